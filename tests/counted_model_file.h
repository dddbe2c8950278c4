/* transformer.h and examples/model_file.h, the latter with the allocator of allocator.h. */
#ifndef COUNTED_MODEL_FILE_H
#define COUNTED_MODEL_FILE_H
#include "allocator.h"
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define malloc counted_malloc
#define calloc counted_calloc
#define realloc counted_realloc
#define free counted_free
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"
#undef malloc
#undef calloc
#undef realloc
#undef free
#endif

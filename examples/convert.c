/* convert.c - a model from any file that model_file.h reads to one GGUF file, quantised or not.
 *
 * cc -O2 -fopenmp examples/convert.c -o build/convert -lm
 *
 *     build/convert IN OUT.gguf [--type q4_k_m] [--force]
 *
 * What goes into the file is worked out from two things: the transformer_config, which says what
 * the model computes, and the reader's tables in model_file.h, turned around: its names of tensors,
 * its families and architectures.  Before any weight is written, the header is opened with
 * model_file.h and its configuration compared with that of the model: what GGUF cannot say, or
 * says differently, is refused by name.  The tokenizer is checked the same way, by what it makes of
 * some text.  Weights pass through row by row: memory does not grow with the model.
 */
#include "common.h"

#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "model_file.h"
#define TOKENIZER_IMPLEMENTATION
#include "tokenizer.h"
#define QUANTIZE_IMPLEMENTATION
#include "quantize.h"
#define GGUF_WRITER_IMPLEMENTATION
#include "gguf_writer.h"

#include <signal.h>
#include <stddef.h>

static const char usage[] =
    "usage: convert IN OUT.gguf [options]\n"
    "  IN                 a Hugging Face directory, a GGUF file or a llama2.c checkpoint\n"
    "  --type TYPE        f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, q5_1, q5_0, q4_1 or q4_0\n"
    "                     (default: every matrix as it is)\n"
    "  --force            OUT.gguf may exist, if it is a GGUF file\n"
    "  --requantize       matrices that are quantised already may change their type\n"
    "  -z, --tokenizer F  the tokenizer (default: the one beside the model)\n"
    "  --no-tokenizer     write the model without one\n"
    "  --quiet            no progress, no notes\n";

typedef struct arguments {
    const char *in, *out, *tokenizer;
    const quantize_preset *preset; /* NULL = every matrix as it is */
    int force, requantize, no_tokenizer, quiet;
    FILE *notes; /* what is worth knowing goes here; NULL = nowhere */
} arguments;

/* A stretch of a tensor's rows in the source. */
typedef struct source_piece {
    const unsigned char *data;
    uint64_t rows, cols, bytes;
    int dtype;    /* transformer_dtype, or -1: can only be copied */
    int head;     /* > 0: in each group of so many rows, */
    int rotates;  /* the first of them come interleaved: 0, n/2, 1, n/2 + 1, ... */
    int plus_one; /* 1 is added to each number */
} source_piece;

enum { MAX_PIECES = 3 };

typedef struct output_tensor {
    char name[72];
    int type; /* GGUF's number of the type it gets */
    int n_dims, n_pieces;
    uint64_t dims[4]; /* the innermost first */
    source_piece pieces[MAX_PIECES];
} output_tensor;

typedef struct conversion {
    const arguments *arguments;
    model_file *in;
    gguf_writer *out;
    char error[512];
    const mfi_gguf_arch *arch; /* what the model becomes; NULL = it is GGUF already */
    const struct features *features;
    transformer_config *config; /* what the file has to say */
    quantize_model mixture;     /* what types depend on */
    const mfi_name *names[2];   /* of tensors: looked at in this order */
    float *factors[2];          /* of RoPE: short and long ones */
    output_tensor *tensors;
    size_t n_tensors;
    uint64_t done; /* bytes of data */
    int percent;   /* that is shown */
    int noted_ties;
    float *rows; /* of a block, decoded, and encoded again */
    unsigned char *encoded;
    size_t room; /* of each */
} conversion;

static volatile sig_atomic_t interrupted;

static void interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

/* Keeps the first failure; 0, so that callers can return it. */
#if defined(__GNUC__) || defined(__clang__)
__attribute__((format(printf, 2, 3)))
#endif
static int
fail(conversion *c, const char *format, ...) {
    if (c->error[0]) return 0;
    va_list args;
    va_start(args, format);
    vsnprintf(c->error, sizeof c->error, format, args);
    va_end(args);
    mfi_clean(c->error);
    return 0;
}

#if defined(__GNUC__) || defined(__clang__)
__attribute__((format(printf, 2, 3)))
#endif
static void
note(const conversion *c, const char *format, ...) {
    char text[512];
    if (!c->arguments->notes) return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mfi_clean(text); /* tokens may hold anything */
    fprintf(c->arguments->notes, "note: %s\n", text);
}

/* ---- writing tensors ---- */

static void show_progress(conversion *c) {
    uint64_t total = gguf_writer_size(c->out);
    int percent = (int)(100.0 * (double)c->done / (double)total);
    static const char bar[] = "##################################################";
#if MFI_MMAP
    if (!isatty(2)) return;
#endif
    if (c->arguments->quiet || percent == c->percent) return;
    c->percent = percent;
    fprintf(stderr, "\r[%-50.*s] %3d %% of %.1f MB", percent / 2, bar, percent,
            (double)total * 1e-6);
    if (percent == 100) fputc('\n', stderr);
}

static int write_data(conversion *c, const void *data, size_t size) {
    if (interrupted) return fail(c, "interrupted");
    if (gguf_writer_data(c->out, data, size) != GGUF_WRITER_OK)
        return fail(c, "%s", gguf_writer_error(c->out));
    c->done += size;
    show_progress(c);
    return 1;
}

/* Row of the source that becomes row r. */
static uint64_t source_row(const source_piece *p, uint64_t r) {
    uint64_t head, i, half = (uint64_t)p->rotates / 2;
    if (p->head == 0) return r;
    head = r / (uint64_t)p->head;
    i = r % (uint64_t)p->head;
    if (i < (uint64_t)p->rotates) i = i % 2 * half + i / 2;
    return head * (uint64_t)p->head + i;
}

static const unsigned char *row_at(const source_piece *p, uint64_t r, size_t row_bytes) {
    return p->data + (size_t)source_row(p, r) * row_bytes;
}

/* Bytes of a row of the source; 0 if it cannot be decoded. */
static size_t piece_row_bytes(const source_piece *p) {
    return p->dtype < 0 || p->cols > INT_MAX ? 0 : transformer_row_size(p->dtype, (int)p->cols);
}

/* Row r as numbers to x, and these to out. */
static int encode_row(const source_piece *p, uint64_t r, size_t row_bytes, int type, float *x,
                      unsigned char *out, size_t out_bytes, size_t *bad) {
    transformer_tensor t;
    uint64_t i;
    memset(&t, 0, sizeof t);
    t.data = row_at(p, r, row_bytes);
    t.dtype = p->dtype;
    t.rows = 1;
    t.cols = (int)p->cols;
    *bad = 0;
    if (transformer_decode(x, &t, 0, 1) != TRANSFORMER_OK) return 0;
    for (i = 0; i < p->cols && p->plus_one; i++) x[i] += 1;
    return quantize_rows(type, x, 1, (size_t)p->cols, out, out_bytes, bad) == QUANTIZE_OK;
}

static int make_room(conversion *c, uint64_t rows, uint64_t cols) {
    size_t n;
    if (rows > SIZE_MAX / 16 / cols)
        return fail(c, "a row of %llu numbers", (unsigned long long)cols);
    n = (size_t)(rows * cols);
    if (n <= c->room) return 1;
    free(c->rows);
    free(c->encoded);
    c->rows = (float *)malloc(n * sizeof *c->rows);
    c->encoded = (unsigned char *)malloc(n * 4);
    c->room = c->rows && c->encoded ? n : 0;
    return c->room ? 1 : fail(c, "not enough memory for %llu rows", (unsigned long long)rows);
}

/* Rows that change their type, or their order. */
static int write_rows(conversion *c, const output_tensor *t, const source_piece *p) {
    size_t from = piece_row_bytes(p), to = quantize_row_size(t->type, (size_t)p->cols);
    int at_once = (int)(p->cols < 1 << 20 ? (1 << 20) / p->cols : 1), i;
    uint64_t r;
    if (!from || !to) return fail(c, "tensor '%s': cannot be converted", t->name);
    if (!make_room(c, (uint64_t)at_once, p->cols)) return 0;
    for (r = 0; r < p->rows; r += (uint64_t)at_once) {
        int n = p->rows - r < (uint64_t)at_once ? (int)(p->rows - r) : at_once, bad_row = -1;
        size_t bad_column = 0;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 16) if ((uint64_t)n * p->cols > 1 << 18)
#endif
        for (i = 0; i < n; i++) {
            size_t bad = 0;
            int ok = 1;
            if (p->dtype == t->type && !p->plus_one)
                memcpy(c->encoded + (size_t)i * to, row_at(p, r + (uint64_t)i, from), to);
            else
                ok = encode_row(p, r + (uint64_t)i, from, t->type,
                                c->rows + (size_t)i * (size_t)p->cols, c->encoded + (size_t)i * to,
                                to, &bad);
            if (ok) continue;
#ifdef _OPENMP
#pragma omp critical
#endif
            if (bad_row < 0 || i < bad_row) {
                bad_row = i;
                bad_column = bad;
            }
        }
        if (bad_row >= 0)
            return fail(c, "tensor '%s': number %lu of row %llu cannot be written as %s", t->name,
                        (unsigned long)bad_column, (unsigned long long)(r + (uint64_t)bad_row),
                        quantize_type_name(t->type));
        if (!write_data(c, c->encoded, (size_t)n * to)) return 0;
    }
    return 1;
}

static int write_bytes(conversion *c, const unsigned char *data, uint64_t size) {
    while (size > 0) {
        size_t n = size < 1 << 20 ? (size_t)size : (size_t)1 << 20;
        if (!write_data(c, data, n)) return 0;
        data += n;
        size -= n;
    }
    return 1;
}

static int is_copied(const output_tensor *t, const source_piece *p) {
    return p->head == 0 && !p->plus_one && (p->dtype < 0 || p->dtype == t->type);
}

/* Bytes of data that a piece becomes. */
static uint64_t piece_bytes(const output_tensor *t, const source_piece *p) {
    return is_copied(t, p) ? p->bytes : p->rows * quantize_row_size(t->type, (size_t)p->cols);
}

static int list_tensors(conversion *c) {
    size_t i;
    int k;
    for (i = 0; i < c->n_tensors; i++) {
        const output_tensor *t = &c->tensors[i];
        uint64_t bytes = 0;
        for (k = 0; k < t->n_pieces; k++) bytes += piece_bytes(t, &t->pieces[k]);
        gguf_writer_tensor(c->out, t->name, t->type, t->dims, t->n_dims, bytes);
    }
    return 1;
}

static int write_tensors(conversion *c) {
    size_t i;
    int k;
    for (i = 0; i < c->n_tensors; i++)
        for (k = 0; k < c->tensors[i].n_pieces; k++) {
            const output_tensor *t = &c->tensors[i];
            const source_piece *p = &t->pieces[k];
            int ok =
                is_copied(t, p) ? write_bytes(c, p->data, piece_bytes(t, p)) : write_rows(c, t, p);
            if (!ok) return 0;
        }
    return 1;
}

/* ---- GGUF to GGUF: everything as it is, matrices perhaps in another type ---- */

static int is_key(const model_file_value *v, const char *key) {
    return v->key.length == strlen(key) && memcmp(v->key.text, key, v->key.length) == 0;
}

static void copy_metadata(conversion *c) {
    model_file_value v;
    size_t i;
    for (i = 0; model_file_metadata(c->in, i, &v); i++) {
        if (is_key(&v, "general.alignment") ||
            (v.key.length > 6 && memcmp(v.key.text, "split.", 6) == 0))
            continue;
        if (c->arguments->preset &&
            (is_key(&v, "general.file_type") || is_key(&v, "general.quantization_version")))
            continue;
        gguf_writer_raw(c->out, v.key.text, v.key.length, v.type, v.element, v.n, v.data, v.bytes);
    }
}

static void put_file_type(conversion *c, int file_type) {
    gguf_writer_int(c->out, "general.file_type", GGUF_WRITER_U32, file_type);
    gguf_writer_int(c->out, "general.quantization_version", GGUF_WRITER_U32, 2);
}

/* In the order of the file they come from. */
static int by_place(const void *a, const void *b) {
    const mfi_tensor *x = *(const mfi_tensor *const *)a, *y = *(const mfi_tensor *const *)b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->data < y->data ? -1 : x->data > y->data;
}

/* The type that the preset gives to a tensor; -1 and an error if it cannot be had. */
static int chosen_type(conversion *c, const output_tensor *t) {
    const arguments *a = c->arguments;
    const source_piece *p = &t->pieces[0];
    int type;
    if (!a->preset) return t->type;
    type = quantize_tensor_type(a->preset, &c->mixture, t->name, t->n_dims, (size_t)p->cols);
    if (type == t->type) return type;
    if (piece_row_bytes(p) == 0) {
        if (t->n_dims < 2) return t->type; /* whatever it is, it is no matrix */
        return fail(c, "tensor '%s': its type cannot be decoded here", t->name) - 1;
    }
    if (transformer_dtype_block(p->dtype) > 1 && !a->requantize)
        return fail(c, "tensor '%s' is %s already: --requantize would decode it, and lose more",
                    t->name, transformer_dtype_name(p->dtype)) -
               1;
    return type;
}

static int plan_stored(conversion *c, const mfi_tensor *stored, output_tensor *t) {
    int i;
    source_piece *p = &t->pieces[0];
    if (stored->name_length >= sizeof t->name || memchr(stored->name, 0, stored->name_length))
        return fail(c, "tensor '%.*s...': its name is too long, or has a zero in it",
                    mfi_show_name(stored), stored->name);
    snprintf(t->name, sizeof t->name, "%.*s", (int)stored->name_length, stored->name);
    if (stored->bytes == 0)
        return fail(c, "tensor '%s': type number %ld is not known", t->name, (long)stored->gguf);
    t->type = stored->gguf;
    t->n_dims = stored->n_dims;
    t->n_pieces = 1;
    p->data = stored->data;
    p->bytes = stored->bytes;
    p->dtype = mfi_types[stored->type].dtype;
    p->rows = 1;
    for (i = 0; i < t->n_dims; i++) t->dims[i] = stored->dims[t->n_dims - 1 - i];
    for (i = 1; i < t->n_dims; i++) p->rows *= t->dims[i];
    p->cols = t->dims[0];
    t->type = chosen_type(c, t);
    return t->type >= 0;
}

/* A key of the architecture; of a list, which some have of heads, the first number.  -1 = none. */
static int read_count(conversion *c, const char *key) {
    char text[96];
    model_file_value v;
    int64_t n = -1;
    snprintf(text, sizeof text, "%s%s", c->in->info.family, key);
    memset(&v, 0, sizeof v);
    return model_file_find(c->in, text, &v) && model_file_int(&v, 0, &n) && n >= 0 && n <= 1 << 20
               ? (int)n
               : -1;
}

/* Of an architecture that is known.  What others may quantise is not. */
static int read_mixture(conversion *c) {
    quantize_model *m = &c->mixture;
    size_t i, count = sizeof mfi_gguf_archs / sizeof *mfi_gguf_archs;
    m->arch = c->in->info.family;
    for (i = 0; i < count && strcmp(m->arch, mfi_gguf_archs[i].name) != 0;) i++;
    if (i == count)
        return fail(c, "general.architecture '%s': which of its tensors to convert is not known",
                    m->arch);
    m->n_layers = read_count(c, ".block_count");
    m->n_heads = read_count(c, ".attention.head_count");
    m->n_kv_heads = read_count(c, ".attention.head_count_kv");
    m->n_experts = read_count(c, ".expert_count");
    if (m->n_kv_heads < 0) m->n_kv_heads = m->n_heads; /* each has its own */
    m->tied = mfi_lookup(c->in, "output.weight", 13) == NULL;
    return m->n_layers >= 0 ? 1 : fail(c, "%s.block_count is missing or no count", m->arch);
}

static int plan_gguf(conversion *c) {
    size_t i, n = c->in->n_found;
    const mfi_tensor **order = (const mfi_tensor **)malloc((n + 1) * sizeof *order);
    c->tensors = (output_tensor *)calloc(n + 1, sizeof *c->tensors);
    if (!order || !c->tensors) {
        free((void *)order);
        return fail(c, "not enough memory for a list of %lu tensors", (unsigned long)n);
    }
    for (i = 0; i < n; i++) order[i] = &c->in->found[i];
    if (n > 1) qsort((void *)order, n, sizeof *order, by_place);
    if (!c->arguments->preset || read_mixture(c))
        for (; c->n_tensors < n && plan_stored(c, order[c->n_tensors], &c->tensors[c->n_tensors]);)
            c->n_tensors++;
    free((void *)order);
    if (c->error[0]) return 0;
    copy_metadata(c);
    if (c->arguments->preset) put_file_type(c, c->arguments->preset->file_type);
    return 1;
}

/* ---- what an architecture's files have that follows from the configuration ---- */

enum {
    FUSED_QKV = 1,          /* attn_qkv in place of attn_q, attn_k, attn_v */
    FUSED_UP = 2,           /* gate and up in ffn_up */
    TWICE_MLP = 4,          /* feed_forward_length counts both */
    HAS_PARALLEL = 8,       /* use_parallel_residual */
    HAS_CLIP = 16,          /* attention.clamp_kqv */
    HAS_ALIBI = 32,         /* attention.max_alibi_bias */
    HAS_ATTN_CAP = 64,      /* attn_logit_softcapping */
    HAS_LOGIT_CAP = 128,    /* final_logit_softcapping */
    HAS_SCALES = 256,       /* embedding_scale, residual_scale, and logit_scale: of its divisor */
    HAS_ATTN_SCALE = 512,   /* attention.scale */
    HAS_LOGIT_SCALE = 1024, /* logit_scale, of the factor */
    HAS_LOCAL_ROPE = 2048,  /* rope.freq_base_swa, for layers with a window */
    /* what llama.cpp does not know in this architecture: it refuses a file that has it */
    NO_OUT_BIAS = 4096,   /* attn_output.bias */
    NO_MLP_BIAS = 8192,   /* ffn_*.bias */
    NO_TIED_HEAD = 16384, /* a head that is the embedding: no output.weight */
    NO_OWN_HEAD = 32768,  /* output.weight: the head is the embedding */
    NO_HEAD_SIZE = 65536  /* attention.key_length: heads are together as wide as the embedding */
};

typedef struct features {
    const char *arch;
    int flags;
    int pattern; /* 0 = no windows; n = each n-th layer sees everything if nothing is said; 1 = none
                    does */
} features;

static const features all_features[] = {
    {"llama", 0, 0},
    {"gpt2", FUSED_QKV | NO_HEAD_SIZE, 0},
    {"gptneox", FUSED_QKV | HAS_PARALLEL | NO_HEAD_SIZE | NO_TIED_HEAD, 0},
    {"bloom", FUSED_QKV | NO_HEAD_SIZE, 0},
    {"mpt", FUSED_QKV | HAS_CLIP | HAS_ALIBI | NO_HEAD_SIZE, 0},
    {"falcon", FUSED_QKV | NO_HEAD_SIZE, 0},
    {"stablelm", HAS_PARALLEL | NO_OUT_BIAS | NO_MLP_BIAS | NO_TIED_HEAD | NO_HEAD_SIZE, 0},
    {"phi2", NO_TIED_HEAD | NO_HEAD_SIZE, 0},
    {"phi3", FUSED_QKV | FUSED_UP | NO_HEAD_SIZE, 1},
    {"qwen", FUSED_QKV | TWICE_MLP | NO_HEAD_SIZE | NO_TIED_HEAD, 0},
    {"qwen2", NO_HEAD_SIZE, 0},
    {"qwen3", NO_OUT_BIAS | NO_MLP_BIAS, 0},
    {"gemma", NO_OUT_BIAS | NO_MLP_BIAS | NO_OWN_HEAD, 0},
    {"gemma2", HAS_ATTN_CAP | HAS_LOGIT_CAP | NO_OUT_BIAS | NO_MLP_BIAS | NO_OWN_HEAD, 2},
    {"gemma3", HAS_LOGIT_CAP | HAS_LOCAL_ROPE | NO_OUT_BIAS | NO_MLP_BIAS, 6},
    {"olmo", HAS_CLIP | NO_OUT_BIAS | NO_MLP_BIAS | NO_HEAD_SIZE, 0},
    {"olmo2", HAS_LOCAL_ROPE | NO_OUT_BIAS | NO_MLP_BIAS | NO_TIED_HEAD | NO_HEAD_SIZE, 4},
    {"smollm3", NO_OUT_BIAS | NO_MLP_BIAS, 0},
    {"granite", HAS_SCALES | HAS_ATTN_SCALE, 0},
    {"command-r", HAS_LOGIT_SCALE | NO_OUT_BIAS | NO_MLP_BIAS | NO_HEAD_SIZE | NO_OWN_HEAD, 0},
    {"cohere2", HAS_LOGIT_SCALE | NO_OUT_BIAS | NO_MLP_BIAS | NO_HEAD_SIZE | NO_OWN_HEAD, 4},
    {"chatglm", FUSED_UP | NO_HEAD_SIZE, 0},
    {"glm4", FUSED_UP | NO_OUT_BIAS | NO_MLP_BIAS, 0},
    {"minicpm", HAS_SCALES, 0},
    {"ernie4_5", NO_MLP_BIAS, 0},
    {"starcoder", FUSED_QKV | NO_HEAD_SIZE, 0},
    {"starcoder2", NO_HEAD_SIZE, 1},
    {"nemotron", NO_TIED_HEAD | NO_HEAD_SIZE, 0},
    {"exaone4", NO_OUT_BIAS | NO_MLP_BIAS | NO_HEAD_SIZE, 4},
    {"seed_oss", NO_OUT_BIAS | NO_MLP_BIAS, 0},
    {"hunyuan-dense", NO_OUT_BIAS | NO_MLP_BIAS, 0}};

/* Families that are another one's architecture. */
static const char *const same_family[][2] = {{"llama2.c", "llama"},
                                             {"mistral", "llama"},
                                             {"olmo3", "olmo2"},
                                             {"mingpt", "gpt2"},
                                             {"nanogpt", "gpt2"}};

static const char *family_name(const conversion *c) {
    return c->in->family ? c->in->family->type : c->in->info.family;
}

static int find_architecture(conversion *c) {
    const char *family = family_name(c);
    size_t i;
    for (i = 0; i < sizeof same_family / sizeof *same_family; i++)
        if (strcmp(family, same_family[i][0]) == 0) family = same_family[i][1];
    for (i = 0; i < sizeof mfi_gguf_archs / sizeof *mfi_gguf_archs && !c->arch; i++)
        if (strcmp(family, mfi_gguf_archs[i].family) == 0) c->arch = &mfi_gguf_archs[i];
    for (i = 0; i < sizeof all_features / sizeof *all_features && c->arch; i++)
        if (strcmp(c->arch->name, all_features[i].arch) == 0) c->features = &all_features[i];
    return c->features ? 1 : fail(c, "GGUF has no architecture for %s models", family_name(c));
}

/* ---- metadata of the architecture ---- */

static const char *arch_key(const conversion *c, const char *key, char text[128]) {
    snprintf(text, 128, "%s%s", c->arch->name, key);
    return text;
}

static void put_int(conversion *c, const char *key, int value) {
    char text[128];
    gguf_writer_int(c->out, arch_key(c, key, text), GGUF_WRITER_U32, value);
}

static void put_float(conversion *c, const char *key, double value) {
    char text[128];
    gguf_writer_float(c->out, arch_key(c, key, text), GGUF_WRITER_F32, value);
}

static void put_sizes(conversion *c) {
    const transformer_config *m = c->config;
    put_int(c, ".context_length", m->context);
    put_int(c, ".embedding_length", m->dim);
    put_int(c, ".block_count", m->n_layers);
    put_int(c, ".feed_forward_length", m->mlp_dim * (c->features->flags & TWICE_MLP ? 2 : 1));
    put_int(c, ".attention.head_count", m->n_heads);
    put_int(c, ".attention.head_count_kv", m->n_kv_heads);
    put_int(c, ".attention.key_length", m->head_dim);
    put_int(c, ".attention.value_length", m->value_dim);
    put_int(c, ".vocab_size", m->vocab_size);
    put_float(c,
              m->norm == TRANSFORMER_NORM_LAYER ? ".attention.layer_norm_epsilon"
                                                : ".attention.layer_norm_rms_epsilon",
              (double)m->norm_eps);
}

/* YaRN: readers scale attention with the logarithm of the factor, so that only what is more than
 * that is said. */
static void put_rope(conversion *c) {
    const transformer_rope *r = &c->config->rope[0];
    double theta = r->theta, more = r->attention_factor;
    char text[128];
    if (r->dims == 0) return;
    if (r->scaling == TRANSFORMER_ROPE_NTK)
        theta *= pow(r->factor, r->dims > 2 ? (double)r->dims / (r->dims - 2) : 1);
    put_int(c, ".rope.dimension_count", r->dims);
    put_float(c, ".rope.freq_base", theta);
    if (c->features->flags & HAS_LOCAL_ROPE && c->config->rope[1].dims > 0)
        put_float(c, ".rope.freq_base_swa", c->config->rope[1].theta);
    if (r->scaling == TRANSFORMER_ROPE_LINEAR || r->scaling == TRANSFORMER_ROPE_YARN) {
        gguf_writer_text(c->out, arch_key(c, ".rope.scaling.type", text),
                         r->scaling == TRANSFORMER_ROPE_YARN ? "yarn" : "linear");
        put_float(c, ".rope.scaling.factor", r->factor);
    }
    if (r->scaling == TRANSFORMER_ROPE_YARN || r->scaling == TRANSFORMER_ROPE_LONG)
        put_int(c, ".rope.scaling.original_context_length", r->original_context);
    if (r->scaling == TRANSFORMER_ROPE_YARN) {
        put_float(c, ".rope.scaling.yarn_beta_fast", r->beta_fast);
        put_float(c, ".rope.scaling.yarn_beta_slow", r->beta_slow);
        more /= mfi_yarn_mscale(r->factor, 1);
    }
    if (fabs(more - 1) > 1e-9) put_float(c, ".rope.scaling.attn_factor", more);
}

/* The window, and which layers have it unless it is those that readers expect. */
static void put_windows(conversion *c) {
    const transformer_config *m = c->config;
    int i, window = 0, usual = 1, pattern = c->features->pattern;
    char text[128];
    if (pattern == 0) return;
    for (i = 0; i < m->n_layers; i++) window = m->layers[i].window ? m->layers[i].window : window;
    for (i = 0; i < m->n_layers && window; i++) {
        int slides = pattern == 1 || (i + 1) % pattern != 0;
        usual = usual && m->layers[i].window == (slides ? window : 0);
    }
    put_int(c, ".attention.sliding_window", window);
    if (usual) return;
    gguf_writer_array(c->out, arch_key(c, ".attention.sliding_window_pattern", text),
                      GGUF_WRITER_BOOL, (uint64_t)m->n_layers);
    for (i = 0; i < m->n_layers; i++)
        gguf_writer_int(c->out, NULL, GGUF_WRITER_BOOL, m->layers[i].window > 0);
}

static void put_features(conversion *c) {
    const transformer_config *m = c->config;
    int flags = c->features->flags;
    char text[128];
    const struct {
        int flag;
        const char *key;
        double value;
    } numbers[] = {{HAS_CLIP, ".attention.clamp_kqv", (double)m->qkv_clip},
                   {HAS_ALIBI, ".attention.max_alibi_bias", (double)m->alibi_max_bias},
                   {HAS_ATTN_CAP, ".attn_logit_softcapping", (double)m->attn_softcap},
                   {HAS_LOGIT_CAP, ".final_logit_softcapping", (double)m->logit_softcap},
                   {HAS_SCALES, ".embedding_scale", (double)m->embedding_scale},
                   {HAS_SCALES, ".residual_scale", (double)m->residual_scale},
                   {HAS_SCALES, ".logit_scale", 1 / (double)m->logit_scale},
                   {HAS_ATTN_SCALE, ".attention.scale", (double)m->attn_scale},
                   {HAS_LOGIT_SCALE, ".logit_scale", (double)m->logit_scale}};
    size_t i;
    for (i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (flags & numbers[i].flag && (numbers[i].value != 0 || flags & HAS_ATTN_CAP))
            put_float(c, numbers[i].key, numbers[i].value);
    if (flags & HAS_PARALLEL)
        gguf_writer_int(c->out, arch_key(c, ".use_parallel_residual", text), GGUF_WRITER_BOOL,
                        m->parallel != TRANSFORMER_SEQUENTIAL);
}

/* ---- the configuration, changed to what its GGUF file is like ---- */

static int arch_flags(const conversion *c) {
    size_t k;
    for (k = 0; strcmp(mfi_families[k].type, c->arch->family) != 0;) k++;
    return mfi_families[k].flags | c->arch->flags;
}

/* Windows for which the architecture has no key make no difference in a context that is no longer. */
static void cut_context(conversion *c) {
    transformer_config *m = c->config;
    int i, window = 0;
    for (i = 0; i < m->n_layers; i++) {
        int w = m->layers[i].window;
        if (w > 0 && (window == 0 || w < window)) window = w;
        m->layers[i].window = 0;
    }
    if (window == 0 || window >= m->context) return;
    note(c, "%s has no key for sliding windows; the context ends with the window, at %d",
         c->arch->name, window);
    m->context = window;
}

static void set_mixture(conversion *c) {
    const transformer_config *m = c->config;
    c->mixture.arch = c->arch->name;
    c->mixture.n_layers = m->n_layers;
    c->mixture.n_heads = m->n_heads;
    c->mixture.n_kv_heads = m->n_kv_heads;
    c->mixture.tied = m->tied;
}

static int adapt_config(conversion *c) {
    transformer_config *m = c->config;
    int i;
    *m = *model_file_config(c->in);
    tfi_resolve_config(m);
    m->norm_plus_one = 0;               /* it is added to the weights */
    if (m->logn_length >= m->context) { /* it begins there */
        if (m->logn_length)
            note(c, "the scaling of queries beyond position %d has no key; OUT ends there",
                 m->context);
        m->logn_length = 0;
    }
    if (m->rope[0].scaling == TRANSFORMER_ROPE_DYNAMIC)
        note(c, "RoPE that is rescaled beyond position %d has no key; OUT ends there", m->context);
    if (c->features->pattern == 0) cut_context(c);
    for (i = 0; i < 2; i++)
        if (m->rope[i].dims > 0 && arch_flags(c) & MFI_PAIRS)
            m->rope[i].pairing = TRANSFORMER_ROPE_INTERLEAVED; /* rows are permuted */
    return 1;
}

/* ---- tensors of the architecture ---- */

/* Is the role, or its matrix, one of the parts of what this line names? */
static int has_part(const mfi_name *line, int role) {
    int n, k;
    const int *parts = mfi_pieces(line->layout, &n);
    for (k = 0; parts && k < n; k++)
        if (parts[k] == role || mfi_bias_role(parts[k]) == role) return 1;
    return !parts && (line->role == role || mfi_bias_role(line->role) == role);
}

/* The line for a role; fused: that of the tensor which it is a part of. */
static const mfi_name *find_name(const conversion *c, int role, int fused) {
    static const mfi_name *const lists[2] = {mfi_gguf_fused, mfi_names_gguf};
    const mfi_name *line;
    int i;
    for (i = 0; i < 2; i++)
        for (line = fused ? lists[i] : c->names[i]; line && line->pattern; line++)
            if ((line->layout != MFI_ROWS) == fused && has_part(line, role)) return line;
    return NULL;
}

static void choose_names(conversion *c) {
    const transformer_config *m = c->config;
    c->names[0] = NULL;
    c->names[1] = mfi_names_gguf;
    if (strcmp(c->arch->name, "falcon") == 0 && m->parallel == TRANSFORMER_PARALLEL_TWO)
        c->names[0] = mfi_gguf_two_norms;
    if (strcmp(c->arch->name, "seed_oss") == 0) c->names[0] = mfi_gguf_input_norms;
}

static int is_norm_weight(int role) {
    switch (role) {
    case TRANSFORMER_EMBEDDING_NORM:
    case TRANSFORMER_ATTN_NORM:
    case TRANSFORMER_ATTN_POST_NORM:
    case TRANSFORMER_MLP_NORM:
    case TRANSFORMER_MLP_POST_NORM:
    case TRANSFORMER_FINAL_NORM:
    case TRANSFORMER_Q_NORM:
    case TRANSFORMER_K_NORM: return 1;
    default: return 0;
    }
}

/* "blk.3.attn_q.weight" */
static void write_name(const mfi_name *line, int role, int layer, char *text, size_t size) {
    int cut = (int)strcspn(line->pattern, "#");
    const char *end = mfi_is_matrix(role) || is_norm_weight(role) ? ".weight" : ".bias";
    if (line->pattern[cut])
        snprintf(text, size, "%.*s%d%s%s", cut, line->pattern, layer, line->pattern + cut + 1, end);
    else snprintf(text, size, "%s%s", line->pattern, end);
}

/* Part of which fused tensor, and which part?  0 = none. */
static int fused_part(const conversion *c, int role) {
    int flags = c->features->flags;
    switch (role) {
    case TRANSFORMER_Q:
    case TRANSFORMER_Q_BIAS: return flags & FUSED_QKV ? 1 : 0;
    case TRANSFORMER_K:
    case TRANSFORMER_K_BIAS: return flags & FUSED_QKV ? 2 : 0;
    case TRANSFORMER_V:
    case TRANSFORMER_V_BIAS: return flags & FUSED_QKV ? 3 : 0;
    case TRANSFORMER_MLP_GATE:
    case TRANSFORMER_MLP_GATE_BIAS: return flags & FUSED_UP ? 1 : 0;
    case TRANSFORMER_MLP_UP:
    case TRANSFORMER_MLP_UP_BIAS: return flags & FUSED_UP ? 2 : 0;
    default: return 0;
    }
}

static int is_query_or_key(int role) {
    return role == TRANSFORMER_Q || role == TRANSFORMER_K || role == TRANSFORMER_Q_BIAS ||
           role == TRANSFORMER_K_BIAS;
}

static source_piece make_piece(const conversion *c, const transformer_tensor *t, int role) {
    const transformer_config *from = model_file_config(c->in);
    source_piece p;
    memset(&p, 0, sizeof p);
    p.data = (const unsigned char *)t->data;
    p.dtype = t->dtype;
    p.rows = (uint64_t)t->rows;
    p.cols = (uint64_t)t->cols;
    p.bytes = p.rows * transformer_row_size(t->dtype, t->cols);
    p.plus_one = from->norm_plus_one && is_norm_weight(role);
    if (is_query_or_key(role) && from->rope[0].pairing != c->config->rope[0].pairing) {
        p.head = c->config->head_dim;
        p.rotates = c->config->rope[0].dims;
        if (!mfi_is_matrix(role)) { /* its numbers are the rows */
            p.rows = p.cols;
            p.cols = 1;
        }
    }
    return p;
}

/* The type of a matrix that is planned. */
static int matrix_type(const conversion *c, const output_tensor *t) {
    const quantize_preset *preset = c->arguments->preset;
    int i, type = t->pieces[0].dtype;
    if (preset)
        return quantize_tensor_type(preset, &c->mixture, t->name, t->n_dims, (size_t)t->dims[0]);
    for (i = 1; i < t->n_pieces; i++)
        if (t->pieces[i].dtype != type) type = TRANSFORMER_F32;
    return strcmp(t->name, "position_embd.weight") == 0 ? (int)TRANSFORMER_F32 : type;
}

/* One tensor of a role, or one more piece of a fused one. */
static int plan_role(conversion *c, int role, int layer) {
    const transformer_tensor *source = model_file_tensor(c->in, role, layer);
    int part = fused_part(c, role), matrix = mfi_is_matrix(role);
    const mfi_name *line = find_name(c, role, part > 0);
    output_tensor *t = &c->tensors[c->n_tensors];
    int per_head = c->config->qk_norm == TRANSFORMER_QK_NORM_PER_HEAD &&
                   (role == TRANSFORMER_Q_NORM || role == TRANSFORMER_K_NORM);
    char name[sizeof t->name];
    if (!source) return 1;
    if (!line)
        return fail(c, "GGUF's %s has no tensor for %s", c->arch->name,
                    transformer_role_name(role));
    write_name(line, role, layer, name, sizeof name);
    for (; t > c->tensors && part > 1; t--)
        if (strcmp(t[-1].name, name) == 0) break;
    if (part > 1 && t > c->tensors) t--;
    else {
        c->n_tensors++;
        snprintf(t->name, sizeof t->name, "%s", name);
        t->n_dims = matrix || per_head ? 2 : 1;
        t->dims[0] = (uint64_t)(per_head ? c->config->head_dim : source->cols);
    }
    t->pieces[t->n_pieces++] = make_piece(c, source, role);
    if (matrix) t->dims[1] += (uint64_t)source->rows;
    else if (per_head) t->dims[1] = (uint64_t)(source->cols / c->config->head_dim);
    else if (part > 1) t->dims[0] += (uint64_t)source->cols;
    t->type = matrix ? matrix_type(c, t) : (int)TRANSFORMER_F32;
    return 1;
}

/* A vector of RoPE's divisors: two for LongRoPE; one for Llama 3, by which plain frequencies are
 * more than its own. */
static int plan_factors(conversion *c, const char *name, int which) {
    const transformer_rope *r = &c->config->rope[0];
    output_tensor *t = &c->tensors[c->n_tensors++];
    float *out = c->factors[which] = (float *)malloc(sizeof r->long_factors);
    transformer_rope plain = *r;
    tfi_rope_table x, y;
    int i, n = r->dims / 2;
    if (!out) return fail(c, "not enough memory");
    plain.scaling = TRANSFORMER_ROPE_PLAIN;
    tfi_resolve_rope(&x, &plain, 0);
    tfi_resolve_rope(&y, r, 0);
    memcpy(out, which ? r->long_factors : r->short_factors, sizeof r->long_factors);
    for (i = 0; i < n && r->scaling == TRANSFORMER_ROPE_LLAMA3; i++)
        out[i] = (float)(x.frequency[i] / y.frequency[i]);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = TRANSFORMER_F32;
    t->n_dims = t->n_pieces = 1;
    t->dims[0] = t->pieces[0].cols = (uint64_t)n;
    t->pieces[0].data = (const unsigned char *)out;
    t->pieces[0].dtype = TRANSFORMER_F32;
    t->pieces[0].rows = 1;
    t->pieces[0].bytes = (uint64_t)n * sizeof *out;
    return 1;
}

static int plan_model(conversion *c) {
    size_t most = (size_t)c->config->n_layers * TRANSFORMER_N_ROLES + 2;
    int scaling = c->config->rope[0].dims > 0 ? c->config->rope[0].scaling : -1, role, layer;
    c->tensors = (output_tensor *)calloc(most, sizeof *c->tensors);
    if (!c->tensors) return fail(c, "not enough memory for a list of tensors");
    choose_names(c);
    /* first, so that check_model has them */
    if (scaling == TRANSFORMER_ROPE_LLAMA3 && !plan_factors(c, "rope_freqs.weight", 0)) return 0;
    if (scaling == TRANSFORMER_ROPE_LONG && (!plan_factors(c, "rope_factors_long.weight", 1) ||
                                             !plan_factors(c, "rope_factors_short.weight", 0)))
        return 0;
    for (layer = 0; layer < c->config->n_layers; layer++)
        for (role = 0; role < TRANSFORMER_N_ROLES; role++)
            if (!plan_role(c, role, layer)) return 0;
    return 1;
}

/* ---- is the file what the model is? ---- */

typedef struct field {
    const char *name;
    size_t offset;
} field;

#define FIELD(name)                                                                                \
    { #name, offsetof(transformer_config, name) }

static const field int_fields[] = {FIELD(dim),
                                   FIELD(n_layers),
                                   FIELD(n_heads),
                                   FIELD(n_kv_heads),
                                   FIELD(head_dim),
                                   FIELD(value_dim),
                                   FIELD(mlp_dim),
                                   FIELD(vocab_size),
                                   FIELD(embedding_dim),
                                   FIELD(context),
                                   FIELD(norm),
                                   FIELD(norm_weight),
                                   FIELD(norm_bias),
                                   FIELD(norm_plus_one),
                                   FIELD(norm_placement),
                                   FIELD(embedding_norm),
                                   FIELD(final_norm),
                                   FIELD(parallel),
                                   FIELD(residual_from_norm),
                                   FIELD(causal),
                                   FIELD(position),
                                   FIELD(position_offset),
                                   FIELD(alibi_falcon),
                                   FIELD(biases),
                                   FIELD(qk_norm),
                                   FIELD(qk_norm_after_rope),
                                   FIELD(logn_length),
                                   FIELD(activation),
                                   FIELD(gated),
                                   FIELD(tied)};
static const field float_fields[] = {
    FIELD(norm_eps),        FIELD(alibi_max_bias), FIELD(attn_softcap), FIELD(qkv_clip),
    FIELD(embedding_scale), FIELD(residual_scale), FIELD(logit_scale),  FIELD(logit_softcap)};

static int close_to(double a, double b) { return fabs(a - b) <= 1e-6 * (fabs(a) + fabs(b)); }

static int differs(conversion *c, const char *what, double model, double file) {
    return fail(c, "GGUF's %s cannot say what this model is: %s would be %g, not %g", c->arch->name,
                what, file, model);
}

/* The angles that a layer's queries and keys turn by, in sequences of that length. */
static int check_rope(conversion *c, const transformer_rope *a, const transformer_rope *b,
                      int length) {
    tfi_rope_table x, y;
    int i;
    if (a->dims != b->dims) return differs(c, "rope.dims", a->dims, b->dims);
    if (a->pairing != b->pairing) return differs(c, "rope.pairing", a->pairing, b->pairing);
    if (!close_to(a->attention_factor, b->attention_factor))
        return differs(c, "rope.attention_factor", a->attention_factor, b->attention_factor);
    memset(&x, 0, sizeof x);
    memset(&y, 0, sizeof y);
    tfi_resolve_rope(&x, a, length);
    tfi_resolve_rope(&y, b, length);
    for (i = 0; i < x.pairs; i++)
        if (!close_to((double)x.frequency[i], (double)y.frequency[i]))
            return differs(c, "a frequency of RoPE", (double)x.frequency[i],
                           (double)y.frequency[i]);
    return 1;
}

static int check_layer(conversion *c, const transformer_config *a, const transformer_config *b,
                       int i) {
    const transformer_layer *x = &a->layers[i], *y = &b->layers[i];
    if (x->window != y->window) return differs(c, "a layer's window", x->window, y->window);
    if ((x->rope < 0) != (y->rope < 0)) return differs(c, "a layer's rope", x->rope, y->rope);
    if (x->n_heads != y->n_heads) return differs(c, "a layer's n_heads", x->n_heads, y->n_heads);
    if (x->n_kv_heads != y->n_kv_heads || x->mlp_dim != y->mlp_dim)
        return differs(c, "a layer's n_kv_heads or mlp_dim", x->mlp_dim, y->mlp_dim);
    if (!close_to((double)x->attn_scale, (double)y->attn_scale))
        return differs(c, "a layer's attn_scale", (double)x->attn_scale, (double)y->attn_scale);
    if (x->rope < 0) return 1;
    return check_rope(c, &a->rope[x->rope], &b->rope[y->rope], 0) &&
           check_rope(c, &a->rope[x->rope], &b->rope[y->rope], a->context);
}

static int check_config(conversion *c, const transformer_config *a, const transformer_config *b) {
    size_t i;
    int layer;
    for (i = 0; i < sizeof int_fields / sizeof *int_fields; i++) {
        int x, y;
        memcpy(&x, (const char *)a + int_fields[i].offset, sizeof x);
        memcpy(&y, (const char *)b + int_fields[i].offset, sizeof y);
        if (x != y) return differs(c, int_fields[i].name, x, y);
    }
    for (i = 0; i < sizeof float_fields / sizeof *float_fields; i++) {
        float x, y;
        memcpy(&x, (const char *)a + float_fields[i].offset, sizeof x);
        memcpy(&y, (const char *)b + float_fields[i].offset, sizeof y);
        if (!close_to((double)x, (double)y))
            return differs(c, float_fields[i].name, (double)x, (double)y);
    }
    for (layer = 0; layer < a->n_layers; layer++)
        if (!check_layer(c, a, b, layer)) return 0;
    return 1;
}

/* The header followed by zeros in place of the weights, which cost no memory until they are read;
 * the reader only looks at RoPE's factors, which come first. */
static int check_model(conversion *c) {
    size_t header, i;
    uint64_t size = gguf_writer_size(c->out);
    const void *data = gguf_writer_header(c->out, &header);
    unsigned char *image = size < SIZE_MAX ? (unsigned char *)calloc((size_t)size + 1, 1) : NULL;
    transformer_error error;
    model_file *file;
    int ok = 0;
    if (!image) {
        note(c, "not enough memory to check the header");
        return 1;
    }
    memcpy(image, data, header);
    for (i = 0; i < c->n_tensors && c->tensors[i].name[0] == 'r'; i++) {
        size_t bytes = (size_t)c->tensors[i].dims[0] * sizeof(float);
        memcpy(image + header, c->tensors[i].pieces[0].data, bytes);
        header += (bytes + 31) / 32 * 32;
    }
    file = model_file_open_memory(image, (size_t)size, NULL, &error);
    if (!file) {
        fail(c, "GGUF's %s cannot hold this model: %s", c->arch->name, error.text);
    } else {
        transformer_config *read = &file->config;
        tfi_resolve_config(read);
        ok = check_config(c, c->config, read);
    }
    model_file_close(file);
    free(image);
    return ok;
}

/* ---- the tokenizer ---- */

static void put_token_id(conversion *c, const char *key, int id) {
    if (id >= 0 && id < c->config->vocab_size) gguf_writer_int(c->out, key, GGUF_WRITER_U32, id);
}

/* llama2.c's file writes spaces as they are, and names with line feeds around them. */
static int llama2c_piece(const tokenizer *t, int id, char *out, size_t room) {
    static const char *const names[3] = {"<unk>", "<s>", "</s>"};
    int size = 0, i, n = 0;
    const char *text = tokenizer_piece(t, id, &size);
    if (id < 3) return snprintf(out, room, "%s", names[id]);
    for (i = 0; i < size && (size_t)n + 3 <= room; i++) {
        int wide = text[i] == ' ';
        memcpy(out + n, wide ? "\xE2\x96\x81" : &text[i], wide ? 3 : 1);
        n += wide ? 3 : 1;
    }
    return n;
}

static int put_pieces(conversion *c, const tokenizer *t) {
    int id, n = c->config->vocab_size, size, is_llama2c = tokenizer_kind(t) == TOKENIZER_LLAMA2C;
    size_t room = 3 * tokenizer_decode_bound(t) + 16;
    char *text = (char *)malloc(room);
    if (!text) return fail(c, "not enough memory for the tokens");
    gguf_writer_array(c->out, "tokenizer.ggml.tokens", GGUF_WRITER_STRING, (uint64_t)n);
    for (id = 0; id < n; id++) {
        const char *piece = tokenizer_piece(t, id, &size);
        if (!piece) piece = text, size = snprintf(text, room, "[PAD%d]", id);
        else if (is_llama2c) piece = text, size = llama2c_piece(t, id, text, room);
        gguf_writer_string(c->out, NULL, piece, (size_t)size);
    }
    free(text);
    return 1;
}

/* "<0x0A>", which in a unigram may also be text like any other */
static int is_byte(const tokenizer *t, int id) {
    int size;
    const char *text = tokenizer_piece(t, id, &size);
    return !tokenizer_byte_level(t) && tokenizer_model(t) != TOKENIZER_UNIGRAM && text &&
           size == 6 && memcmp(text, "<0x", 3) == 0 && memchr("0123456789ABCDEF", text[3], 16) &&
           memchr("0123456789ABCDEF", text[4], 16) && text[5] == '>';
}

static void put_types(conversion *c, const tokenizer *t) {
    int id, type;
    gguf_writer_array(c->out, "tokenizer.ggml.token_type", GGUF_WRITER_I32,
                      (uint64_t)c->config->vocab_size);
    for (id = 0; id < c->config->vocab_size; id++) {
        type = tokenizer_type(t, id);
        if (type == 0) type = TOKENIZER_UNUSED;
        if (type == TOKENIZER_NORMAL && is_byte(t, id)) type = TOKENIZER_BYTE;
        gguf_writer_int(c->out, NULL, GGUF_WRITER_I32, type);
    }
}

/* The two parts of a merge with `between` between them, to be freed; NULL = not enough memory. */
static char *join_merge(const tokenizer *t, int i, const char *between, size_t *size) {
    int left = 0, right = 0, a = 0, b = 0;
    size_t n = strlen(between);
    const char *x, *y;
    char *both;
    tokenizer_merge(t, i, &left, &right);
    x = tokenizer_piece(t, left, &a);
    y = tokenizer_piece(t, right, &b);
    *size = (size_t)a + n + (size_t)b;
    if ((both = (char *)calloc(*size + 1, 1)) == NULL || !x || !y) return both;
    memcpy(both, x, (size_t)a);
    memcpy(both + a, between, n);
    memcpy(both + (size_t)a + n, y, (size_t)b);
    return both;
}

/* Of a unigram, a token that text must not become.  llama.cpp knows that by its score alone. */
static int is_unused(const tokenizer *t, int id) {
    int type = tokenizer_type(t, id);
    return tokenizer_model(t) == TOKENIZER_UNIGRAM && (type == TOKENIZER_UNUSED || type == 0);
}

/* A list of merges puts the earlier first, scores the higher: a piece scores by the first merge
 * that makes it. */
static int put_scores(conversion *c, const tokenizer *t) {
    int id, i, n = c->config->vocab_size;
    size_t size;
    char *both;
    float *scores = (float *)malloc(((size_t)n + 1) * sizeof *scores);
    if (!scores) return fail(c, "not enough memory for the tokens' scores");
    for (id = 0; id < n; id++)
        scores[id] = tokenizer_model(t) == TOKENIZER_BPE ? -1e9f
                     : is_unused(t, id)                  ? -1e4f
                                                         : (float)tokenizer_score(t, id);
    for (i = tokenizer_n_merges(t) - 1; i >= 0; i--) {
        if ((both = join_merge(t, i, "", &size)) == NULL) break;
        id = tokenizer_find(t, both, size);
        if (id >= 0 && id < n) scores[id] = -(float)i;
        free(both);
    }
    gguf_writer_array(c->out, "tokenizer.ggml.scores", GGUF_WRITER_F32, (uint64_t)n);
    for (id = 0; id < n; id++) gguf_writer_float(c->out, NULL, GGUF_WRITER_F32, (double)scores[id]);
    free(scores);
    return i < 0 ? 1 : fail(c, "not enough memory for the tokens' scores");
}

static int put_merges(conversion *c, const tokenizer *t) {
    int i, n = tokenizer_n_merges(t);
    gguf_writer_array(c->out, "tokenizer.ggml.merges", GGUF_WRITER_STRING, (uint64_t)n);
    for (i = 0; i < n; i++) {
        size_t size;
        char *both = join_merge(t, i, " ", &size);
        if (!both) return fail(c, "not enough memory for the merges");
        gguf_writer_string(c->out, NULL, both, size);
        free(both);
    }
    return 1;
}

static void put_flag(conversion *c, const char *key, int value) {
    gguf_writer_int(c->out, key, GGUF_WRITER_BOOL, value != 0);
}

/* What only the normaliser of unigrams has keys for.  llama.cpp takes no map without texts, by which
 * nothing changes. */
static void put_normaliser(conversion *c, const tokenizer *t) {
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    size_t size;
    const void *map = tokenizer_charsmap(t, &size);
    put_flag(c, "tokenizer.ggml.remove_extra_whitespaces", tokenizer_removes_spaces(t));
    if (map && t->charsmap.texts_size > 0)
        gguf_writer_raw(c->out, key, sizeof key - 1, GGUF_WRITER_ARRAY, GGUF_WRITER_U8, size, map,
                        size);
}

static int put_vocabulary(conversion *c, const tokenizer *t) {
    int bytes = tokenizer_byte_level(t), unigram = tokenizer_model(t) == TOKENIZER_UNIGRAM;
    gguf_writer_text(c->out, "tokenizer.ggml.model", bytes ? "gpt2" : unigram ? "t5" : "llama");
    gguf_writer_text(c->out, "tokenizer.ggml.pre", bytes ? tokenizer_pre(t) : "default");
    if (!put_pieces(c, t) || !(bytes ? put_merges(c, t) : put_scores(c, t))) return 0;
    put_types(c, t);
    put_token_id(c, "tokenizer.ggml.bos_token_id", tokenizer_bos(t));
    put_token_id(c, "tokenizer.ggml.eos_token_id", tokenizer_eos(t));
    put_token_id(c, "tokenizer.ggml.unknown_token_id", tokenizer_unk(t));
    put_flag(c, "tokenizer.ggml.add_bos_token", tokenizer_adds_bos(t));
    put_flag(c, "tokenizer.ggml.add_eos_token", tokenizer_adds_eos(t));
    if (!bytes) put_flag(c, "tokenizer.ggml.add_space_prefix", tokenizer_adds_space(t));
    if (unigram) put_normaliser(c, t);
    if (tokenizer_chat_template(t))
        gguf_writer_text(c->out, "tokenizer.chat_template", tokenizer_chat_template(t));
    return 1;
}

/* Tokens that decode alike are no error, but llama.cpp looks each up by its text and counts them. */
static void note_same_text(const conversion *c, const tokenizer *t) {
    int id, size = 0, first;
    for (id = 0; id < tokenizer_vocab_size(t) && id < c->config->vocab_size; id++) {
        const char *text = tokenizer_piece(t, id, &size);
        first = size > 0 ? tokenizer_find(t, text, (size_t)size) : id;
        if (first == id) continue;
        note(c, "llama.cpp will refuse this file: tokens %d and %d have the same text, '%.*s'",
             first, id, size < 60 ? size : 60, text);
        return;
    }
}

/* The first token of a type that has at most so many characters; -1 = there is none. */
static int find_type(const tokenizer *t, int type, int most) {
    int id, size = 0, i, n;
    for (id = 0; id < tokenizer_vocab_size(t); id++) {
        const char *text = tokenizer_piece(t, id, &size);
        for (i = n = 0; i < size; i++) n += ((unsigned char)text[i] & 0xC0) != 0x80;
        if (tokenizer_type(t, id) == type && n >= 1 && n <= most) return id;
    }
    return -1;
}

/* Where llama.cpp's unigram is not SentencePiece's, which this library reads from the same keys. */
static void note_unigram(const conversion *c, const tokenizer *t) {
    int adds = tokenizer_adds_space(t), removes = tokenizer_removes_spaces(t);
    const struct {
        int there;
        const char *what;
    } ways[] = {{tokenizer_byte_fallback(t) && find_type(t, TOKENIZER_BYTE, INT_MAX) >= 0,
                 "a character that is no token becomes <unk>, not tokens of its bytes"},
                {find_type(t, TOKENIZER_USER_DEFINED, INT_MAX) >= 0,
                 "what follows a user-defined token is treated like the beginning of a text"},
                {find_type(t, TOKENIZER_UNUSED, 1) >= 0,
                 "tokens of one character that are marked unused are used all the same"},
                {removes && !adds, "a space is put in front of every text"},
                {!removes && adds && tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE,
                 "no space is put in front of a text that has nothing but spaces"}};
    size_t i;
    for (i = 0; i < sizeof ways / sizeof *ways; i++)
        if (ways[i].there) note(c, "llama.cpp cuts some text otherwise: %s", ways[i].what);
}

/* The sum of a unigram's scores, which makes one cut of a text better than another; *others counts
 * the tokens that are no pieces of text. */
static double sum_of_scores(const tokenizer *t, const int32_t *tokens, int n, int *others) {
    double sum = 0;
    int i;
    *others = 0;
    for (i = 0; i < n; i++) {
        if (tokenizer_type(t, tokens[i]) == TOKENIZER_NORMAL) sum += tokenizer_score(t, tokens[i]);
        else ++*others;
    }
    return sum;
}

/* Are both cuts of a text as good?  Sums are rounded here or there. */
static int is_tie(const tokenizer *t, const int32_t *x, int n, const int32_t *y, int m) {
    int others, more;
    double best = sum_of_scores(t, x, n, &others), sum = sum_of_scores(t, y, m, &more);
    return tokenizer_model(t) == TOKENIZER_UNIGRAM && others == more &&
           fabs(best - sum) <= 1e-5 * fabs(best);
}

/* Do both make the same tokens of this text?  -1 without memory; 2: not the same, but it is a tie. */
static int compare_tokens(const tokenizer *a, const tokenizer *b, const char *text, size_t size,
                          int flags) {
    size_t room = tokenizer_encode_bound(a, size), other = tokenizer_encode_bound(b, size);
    int32_t *x = (int32_t *)malloc((room + other + 1) * sizeof *x), *y;
    tokenizer_error error;
    int n, m, same;
    if (!x) return -1;
    y = x + room;
    n = tokenizer_encode(a, text, size, flags, x, room, &error);
    m = tokenizer_encode(b, text, size, flags, y, other, &error);
    same = n < 0 || m < 0 ? -1 : n == m && memcmp(x, y, (size_t)n * sizeof *x) == 0;
    if (same == 0 && is_tie(a, x, n, y, m)) same = 2;
    free(x);
    return same;
}

static int same_tokens(conversion *c, const tokenizer *a, const tokenizer *b, const char *text,
                       size_t size, int flags) {
    int same = compare_tokens(a, b, text, size, flags);
    if (same == 2 && !c->noted_ties++)
        note(c, "of two cuts of a text that are equally good GGUF's readers may take the other");
    if (same > 0) return 1;
    if (same < 0) return fail(c, "not enough memory to check the tokenizer");
    return fail(c,
                "the tokenizer does something that GGUF has no key for: it cuts '%.*s' in another "
                "way (--no-tokenizer writes the model without it)",
                size > 60 ? 60 : (int)size, text);
}

/* What is worth a note: readers of GGUF put a space in front of a text that begins with one, too,
 * and in front of what follows a control token.  Newer tokenizer.json do neither. */
static int check_edges(conversion *c, const tokenizer *a, const tokenizer *b) {
    static const char *const rare[] = {"x \xE2\x91\xA0", "x\xE2\x96\x81y"}; /* a number, U+2581 */
    char text[128];
    const char *piece = NULL;
    size_t i;
    int id = 0, size = 0, same = compare_tokens(a, b, " Hello", 6, TOKENIZER_AUTO);
    if (same == 0) note(c, "GGUF puts a space more in front of a text that begins with one");
    for (; same >= 0 && id < tokenizer_vocab_size(a); id++) {
        piece = tokenizer_piece(a, id, &size);
        if (tokenizer_type(a, id) == TOKENIZER_CONTROL && piece && size > 0 && size < 60) break;
    }
    if (same >= 0 && id < tokenizer_vocab_size(a)) {
        snprintf(text, sizeof text, "x%.*sHello %.*s", size, piece, size, piece);
        same = compare_tokens(a, b, text, strlen(text), TOKENIZER_SPECIAL);
        if (same == 0)
            note(c, "text right behind %.*s gets a space in front in GGUF, or loses it", size,
                 piece);
    }
    for (i = 0; same >= 0 && i < sizeof rare / sizeof *rare; i++) {
        same = compare_tokens(a, b, rare[i], strlen(rare[i]), TOKENIZER_AUTO);
        if (same == 0) note(c, "GGUF cuts text like '%s' in another way", rare[i]);
    }
    return same >= 0 ? 1 : fail(c, "not enough memory to check the tokenizer");
}

/* Text that tokenizers treat differently: none begins with a space, of which check_edges makes a note. */
static const char *const samples[] = {
    "",
    "Hello, World!  It's 2024-10-31, 1234567 + 0.5 = x_1;\n\n\tif (a[i] != \"b\") { return; "
    "}\r\n   ",
    "caf\xC3\xA9 na\xC3\xAFve \xE2\x82\xAC 42 \xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 "
    "\xE4\xBD\xA0\xE5\xA5\xBD \xE3\x81\x93 \xED\x95\x9C \xF0\x9F\x98\x80",
    "WE'RE don't  end  ",
    /* other forms of characters: an accent on its own, a ligature, wide, half of a width */
    "cafe\xCC\x81 \xEF\xAC\x81ne \xEF\xBC\xA1 \xEF\xBD\xB6\xEF\xBE\x9E",
    "x\001\177y\xC2\xA0z\xE2\x80\x8Bw\xE3\x80\x80v"};

/* The samples; then what every token stands for. */
static int check_tokenizer(conversion *c, const tokenizer *a) {
    size_t header, used = 0, i, bound = tokenizer_decode_bound(a);
    const void *data = gguf_writer_header(c->out, &header);
    const int flags = TOKENIZER_AUTO; /* names of control tokens are plain text here */
    tokenizer_error error;
    tokenizer *b = tokenizer_open_memory(data, header, 0, &error);
    char *text = (char *)malloc(64 * bound + 64);
    tokenizer_stream stream;
    int id, ok;
    memset(&stream, 0, sizeof stream);
    if (!b || !text) fail(c, "the tokenizer: %s", b ? "not enough memory" : error.text);
    ok = b && text;
    for (i = 0; ok && i < sizeof samples / sizeof *samples; i++)
        ok = same_tokens(c, a, b, samples[i], strlen(samples[i]), flags);
    for (id = 0; ok && id < tokenizer_vocab_size(a) && id < c->config->vocab_size; id++) {
        if (tokenizer_type(a, id) != TOKENIZER_CONTROL && id != tokenizer_unk(a))
            used += (size_t)tokenizer_decode(a, &stream, id, text + used);
        text[used] = 0;
        if (id % 64 == 63 || id + 1 == tokenizer_vocab_size(a)) {
            size_t spaces = strspn(text, " ");
            ok = same_tokens(c, a, b, text + spaces, used - spaces, flags);
            used = 0;
        }
    }
    if (ok && tokenizer_kind(a) != TOKENIZER_LLAMA2C) ok = check_edges(c, a, b);
    free(text);
    tokenizer_close(b);
    return ok;
}

/* 1, 0, or -1 without memory. */
static int exists(const char *directory, const char *name) {
    char *path = mfi_join(directory, name, strlen(name));
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (f) fclose(f);
    if (!path) return -1;
    free(path);
    return f != NULL;
}

/* The directory that the model is in: IN, or where the file IN is.  NULL without memory. */
static char *model_directory(const char *in) {
    int whole = exists(in, "config.json");
    char *path = whole < 0 ? NULL : mfi_join(in, "", 0);
    if (path && !whole) path[mfi_base_name(in) - in] = 0;
    return path;
}

/* *t = NULL if there is none to be found. */
static int open_tokenizer(conversion *c, tokenizer **t) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json",
                                        "tokenizer.bin"};
    const arguments *a = c->arguments;
    char *directory = model_directory(a->in);
    const char *path = a->tokenizer ? a->tokenizer : directory && *directory ? directory : ".";
    tokenizer_error error;
    int found = 0;
    size_t i;
    *t = NULL;
    if (!directory) return fail(c, "not enough memory");
    for (i = 0; i < 4 && !a->tokenizer && !found; i++) found = exists(path, names[i]);
    if (a->tokenizer || found > 0) *t = tokenizer_open(path, c->config->vocab_size, &error);
    if (found < 0) fail(c, "not enough memory");
    else if ((a->tokenizer || found) && !*t)
        fail(c, "the tokenizer, %s: %s", path, without_path(path, error.text));
    free(directory);
    return c->error[0] == 0;
}

/* Tokens that begin and end a text, from config.json if the tokenizer's files do not say. */
static int config_token(const conversion *c, const char *key) {
    model_file_value v;
    mfi_span text;
    const char *at;
    int64_t id = -1;
    memset(&v, 0, sizeof v);
    if (!model_file_find(c->in, key, &v) || v.type != MODEL_FILE_JSON) return -1;
    text.p = at = (const char *)v.data;
    text.end = text.p + v.bytes;
    if (*at == '[') mfi_json_next(&at, NULL, &text);
    if (!mfi_json_integer(text, &id)) return -1;
    return id >= 0 && id < c->config->vocab_size ? (int)id : -1;
}

static int put_tokenizer(conversion *c, tokenizer **t) {
    int unigram;
    *t = NULL;
    if (!c->arguments->no_tokenizer && !open_tokenizer(c, t)) return 0;
    if (!*t) {
        if (!c->arguments->no_tokenizer) note(c, "no tokenizer beside the model; OUT has none");
        gguf_writer_text(c->out, "tokenizer.ggml.model", "none");
        return 1;
    }
    unigram = tokenizer_model(*t) == TOKENIZER_UNIGRAM;
    if (tokenizer_byte_level(*t) && (unigram || !tokenizer_pre(*t)))
        return fail(c,
                    "the tokenizer: GGUF has no name for %s (--no-tokenizer writes the model "
                    "without it)",
                    unigram ? "a unigram of bytes" : "the way it cuts text into words");
    if (tokenizer_vocab_size(*t) > c->config->vocab_size)
        note(c, "of the tokenizer's %d tokens only %d are the model's", tokenizer_vocab_size(*t),
             c->config->vocab_size);
    note_same_text(c, *t);
    if (unigram) note_unigram(c, *t);
    if (!put_vocabulary(c, *t)) return 0;
    if (tokenizer_bos(*t) < 0)
        put_token_id(c, "tokenizer.ggml.bos_token_id", config_token(c, "bos_token_id"));
    if (tokenizer_eos(*t) < 0)
        put_token_id(c, "tokenizer.ggml.eos_token_id", config_token(c, "eos_token_id"));
    put_token_id(c, "tokenizer.ggml.padding_token_id", config_token(c, "pad_token_id"));
    return 1;
}

/* ---- any other file to GGUF ---- */

/* The number that says which type most weights have. */
static int file_type(const conversion *c) {
    const transformer_tensor *t = model_file_tensor(c->in, TRANSFORMER_EMBEDDING, 0);
    if (c->arguments->preset) return c->arguments->preset->file_type;
    return t->dtype == TRANSFORMER_F16 ? 1 : t->dtype == TRANSFORMER_BF16 ? 32 : 0;
}

static void put_general(conversion *c) {
    const char *in = c->arguments->in;
    char name[128];
    size_t n = strlen(in);
    while (n > 1 && (in[n - 1] == '/' || in[n - 1] == '\\')) n--;
    snprintf(name, sizeof name, "%.*s", (int)(n > 1000 ? 1000 : n), in);
    gguf_writer_text(c->out, "general.architecture", c->arch->name);
    gguf_writer_text(c->out, "general.type", "model");
    gguf_writer_text(c->out, "general.name", mfi_base_name(name));
    put_file_type(c, file_type(c));
}

/* A file that only this library loads is written all the same, but not in silence. */
static void note_foreign(const conversion *c) {
    const transformer_config *m = c->config;
    const struct {
        int flag, there;
        const char *what;
    } parts[] = {
        {NO_TIED_HEAD, m->tied, "a head that is the embedding"},
        {NO_OWN_HEAD, !m->tied, "a head of its own"},
        {NO_MLP_BIAS, m->biases & (TRANSFORMER_BIAS_MLP_UP | TRANSFORMER_BIAS_MLP_DOWN),
         "biases of the MLP"},
        {NO_OUT_BIAS, m->biases & TRANSFORMER_BIAS_ATTN_OUT, "a bias of the attention's output"},
        {NO_HEAD_SIZE, m->n_heads * m->head_dim != m->dim,
         "heads that are together wider or narrower than the embedding"}};
    size_t i;
    for (i = 0; i < sizeof parts / sizeof *parts; i++)
        if (c->features->flags & parts[i].flag && parts[i].there)
            note(c, "llama.cpp will refuse this file: it knows no %s models with %s", c->arch->name,
                 parts[i].what);
}

static int plan_other(conversion *c, tokenizer **t) {
    c->config = (transformer_config *)malloc(sizeof *c->config);
    if (!c->config) return fail(c, "not enough memory");
    if (!find_architecture(c) || !adapt_config(c)) return 0;
    set_mixture(c);
    note_foreign(c);
    put_general(c);
    put_sizes(c);
    put_rope(c);
    put_windows(c);
    put_features(c);
    return put_tokenizer(c, t) && plan_model(c);
}

/* Opens IN: GGUF only to look at, the rest whole. */
static model_file *open_input(const char *path, transformer_error *error) {
    model_file_options options;
    model_file *file;
    memset(&options, 0, sizeof options);
    options.only_look = 1;
    file = model_file_open(path, &options, error);
    if (!file || strcmp(model_file_get_info(file)->format, "GGUF") == 0) return file;
    model_file_close(file);
    return model_file_open(path, NULL, error);
}

/* Rows of a length that no block divides keep their weights whole. */
static void note_whole(const conversion *c) {
    const quantize_preset *preset = c->arguments->preset;
    int whole = 0, matrices = 0;
    if (!preset || transformer_dtype_block(preset->type) == 1) return;
    for (size_t i = 0; i < c->n_tensors; i++) {
        int is_float = transformer_dtype_block(c->tensors[i].type) == 1;
        if (c->tensors[i].n_dims < 2) continue;
        matrices++, whole += is_float && c->tensors[i].dims[0] % 32 != 0;
    }
    if (whole)
        note(c, "%d of %d matrices are not quantised: no block fits their rows", whole, matrices);
}

static int write_all(conversion *c, const tokenizer *t) {
    list_tensors(c);
    note_whole(c);
    if (gguf_writer_begin(c->out) != GGUF_WRITER_OK)
        return fail(c, "%s", gguf_writer_error(c->out));
    if (c->arch && !check_model(c)) return 0;
    if (t && !check_tokenizer(c, t)) return 0;
    if (!write_tensors(c)) return 0;
    if (gguf_writer_end(c->out) != GGUF_WRITER_OK) return fail(c, "%s", gguf_writer_error(c->out));
    return 1;
}

/* 1, or 0 with the reason in error; then there is no file, and one that was there is as it was. */
static int convert(const arguments *a, char *error, size_t error_size) {
    conversion c;
    transformer_error opening;
    tokenizer *t = NULL;
    int ok = 0;
    memset(&c, 0, sizeof c);
    c.arguments = a;
    c.percent = -1;
    c.in = open_input(a->in, &opening);
    c.out = c.in ? gguf_writer_new_file(a->out, a->force) : NULL;
    if (!c.in) fail(&c, "%s: %s", a->in, without_path(a->in, opening.text));
    else if (!c.out || *gguf_writer_error(c.out)) fail(&c, "%s", gguf_writer_error(c.out));
    else if (strcmp(model_file_get_info(c.in)->format, "GGUF") == 0) {
        ok = a->tokenizer || a->no_tokenizer
                 ? fail(&c, "a GGUF file keeps its own tokenizer: no --tokenizer, --no-tokenizer")
                 : plan_gguf(&c);
    } else ok = plan_other(&c, &t);
    ok = ok && write_all(&c, t);
    if (c.percent >= 0 && c.percent < 100) fputc('\n', stderr);
    gguf_writer_free(c.out);
    tokenizer_close(t);
    model_file_close(c.in);
    free(c.config);
    free(c.tensors);
    free(c.factors[0]);
    free(c.factors[1]);
    free(c.rows);
    free(c.encoded);
    snprintf(error, error_size, "%s", c.error);
    return ok;
}

/* "q4_k_m", or "Q4_K_M". */
static const quantize_preset *find_preset(const char *name) {
    const quantize_preset *preset;
    char lower[16];
    size_t i, n = strlen(name);
    for (i = 0; i < n && i < sizeof lower - 1; i++)
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    lower[i] = 0;
    preset = quantize_preset_find(lower);
    if (!preset || i < n) die("--type: '%s' is not known\n%s", name, usage);
    return preset;
}

static void read_arguments(int argc, char **argv, arguments *a) {
    int i;
    memset(a, 0, sizeof *a);
    for (i = 1; i < argc; i++) {
        if (is_option(argv, &i, "--type")) {
            a->preset = find_preset(option_value(argc, argv, &i));
        } else if (tokenizer_option(argc, argv, &i, &a->tokenizer)) continue;
        else if (is_option(argv, &i, "--no-tokenizer")) a->no_tokenizer = 1;
        else if (is_option(argv, &i, "--force")) a->force = 1;
        else if (is_option(argv, &i, "--requantize")) a->requantize = 1;
        else if (is_option(argv, &i, "--quiet")) a->quiet = 1;
        else if (argv[i][0] == '-' && argv[i][1]) die("%s is not an option\n%s", argv[i], usage);
        else if (!a->in) a->in = argv[i];
        else if (!a->out) a->out = argv[i];
        else die("one argument too many: %s\n%s", argv[i], usage);
    }
    if (!a->out) die("IN and OUT.gguf are needed\n%s", usage);
    a->notes = a->quiet ? NULL : stderr;
    size_t length = strlen(a->out);
    if (length == 0 || strcmp(a->out, "-") == 0 || a->out[length - 1] == '/')
        die("OUT is '%s': the result is written beside it and renamed, so it must name a file",
            a->out);
}

int main(int argc, char **argv) {
    arguments a;
    char error[512];
    offer_help(argc, argv, usage);
    read_arguments(argc, argv, &a);
    signal(SIGINT, interrupt);
    signal(SIGTERM, interrupt);
#ifdef SIGHUP
    signal(SIGHUP, interrupt);
#endif
    if (!convert(&a, error, sizeof error)) die("%s", error);
    return 0;
}

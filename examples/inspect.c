/* inspect.c - what is in a model file: family, sizes, types of weights, tokenizer, metadata.
 *
 *     cc -O2 examples/inspect.c -o build/inspect -lm
 *     build/inspect MODEL [--tensors] [--json]
 *
 * MODEL is whatever model_file.h reads, and of what it cannot run, whatever can be listed.
 */
#include "common.h"
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "model_file.h"
#define TOKENIZER_IMPLEMENTATION
#include "tokenizer.h"

#include <stddef.h>

static const char usage[] = "usage: inspect MODEL [options]\n"
                            "  --tensors   every tensor: name, type, shape, bytes, offset, file\n"
                            "  --json      for programs: one JSON object, long strings in full\n";

/* ---- text from files ----
 *
 * It may hold anything: what controls a terminal, turns the direction of writing or is no UTF-8 is
 * escaped.  For people: \n, \x1b, \u{202e}; in JSON: \u001b, and U+FFFD for what is no UTF-8. */

/* Bytes of the character at p, 0 if it is not UTF-8 (Unicode 3.9, table 3-7). */
static size_t read_character(const unsigned char *p, size_t n, unsigned long *character) {
    static const unsigned long least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    unsigned long c = size == 1 ? p[0] : p[0] & (0x7fu >> size);
    if (size == 0 || size > n) return 0;
    for (size_t i = 1; i < size; i++) {
        if (p[i] >> 6 != 2) return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    *character = c;
    return c < least[size] || c > 0x10ffff || c >> 11 == 0x1b || p[0] > 0xf4 ? 0 : size;
}

static int is_unprintable(unsigned long c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
           (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
           c >= 0xe0000;
}

static void print_escape(int json, unsigned long c) {
    static const char letters[] = "\b\f\n\r\t", names[] = "bfnrt";
    const char *letter = c > 0 && c < 128 ? strchr(letters, (int)c) : NULL;
    if (letter != NULL) printf("\\%c", names[letter - letters]);
    else if (json && c > 0xffff)
        printf("\\u%04lx\\u%04lx", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
    else if (json) printf("\\u%04lx", c);
    else printf(c < 0x80 ? "\\x%02lx" : "\\u{%lx}", c);
}

/* At most `most` bytes, whole characters; returns how many there were room for. */
static size_t print_text(int json, int quoted, const char *text, size_t n, size_t most) {
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0;
    while (at < n) {
        unsigned long c = 0;
        size_t size = read_character(p + at, n - at, &c), step = size ? size : 1;
        if (at + step > most) break;
        if (size == 0 && json) fputs("\\ufffd", stdout);
        else if (size == 0) printf("\\x%02x", p[at]);
        else if (is_unprintable(c)) print_escape(json, c);
        else if (c == '\\' || (c == '"' && quoted)) printf("\\%c", (int)c);
        else fwrite(p + at, 1, size, stdout);
        at += step;
    }
    return at;
}

/* Correct JSON in one line; strings in it are escaped as above. */
static size_t print_json_text(const char *text, size_t n, size_t most) {
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0, shown = 0;
    int inside = 0;
    while (at < n && shown < most) {
        unsigned long c = 0;
        size_t size = read_character(p + at, n - at, &c);
        if (size == 0) break; /* it was checked: cannot be */
        if (inside && c == '\\') size = 2;
        if (inside && is_unprintable(c)) print_escape(1, c);
        else if (inside || !strchr(" \t\r\n", (int)c)) fwrite(p + at, 1, size, stdout);
        if (!inside && (c == ',' || c == ':')) putchar(' ');
        if (c == '"') inside = !inside;
        at += size, shown += size;
    }
    return at;
}

/* ---- the report: the same calls write it for people and as JSON ---- */

enum {
    DEPTH = 8,
    NAME_WIDTH = 22,
    TEXT_WIDTH = 100, /* for people, strings are cut after so many bytes */
    FEW = 8,          /* elements of an array that are shown to people, and to programs */
    MANY = 64
};

typedef struct column { /* of a table, for people: numbers are set to the right */
    const char *name;
    int width;
} column;

typedef struct report {
    int json, depth;
    int count[DEPTH];     /* members so far, of all that is open */
    char brackets[DEPTH]; /* that close it */
    const column *row;    /* inside an object that takes one line: its columns */
} report;

/* What comes before a value.  name NULL: an element of an array. */
static void begin_value(report *r, const char *name) {
    int count = r->count[r->depth]++, indent = 2 * (r->depth - !r->json);
    if (r->json) {
        if (count > 0) fputs(r->row ? ", " : ",", stdout);
        if (!r->row) printf("\n%*s", indent, "");
        if (name != NULL) printf("\"%s\": ", name);
    } else if (r->row) {
        printf("%s", count > 0 ? "  " : "");
    } else {
        printf("%*s", indent, "");
        if (name != NULL) printf("%-*s ", NAME_WIDTH - indent, name);
    }
}

static void end_value(report *r) {
    if (!r->json && !r->row) putchar('\n');
}

/* Our own words and numbers; in a row, in its column. */
static void show_plain(report *r, const char *name, const char *text) {
    int width = 0;
    if (r->row && !r->json) width = r->row[r->count[r->depth]].width;
    begin_value(r, name);
    printf("%*s", width, text);
    end_value(r);
}

static void push(report *r, char bracket) {
    if (r->json) putchar(bracket);
    r->brackets[++r->depth] = bracket == '{' ? '}' : ']';
    r->count[r->depth] = 0;
}

/* An object or array over several lines; label: its name for people. */
static void open_block(report *r, const char *name, const char *label, char bracket) {
    begin_value(r, r->json ? name : NULL);
    if (!r->json) puts(label);
    push(r, bracket);
}

static void close_block(report *r) {
    char bracket = r->brackets[r->depth--];
    if (!r->json) return;
    if (r->count[r->depth + 1] > 0) printf("\n%*s", 2 * r->depth, "");
    putchar(bracket);
}

static void open_row(report *r, const column *columns) {
    begin_value(r, NULL);
    push(r, '{');
    r->row = columns;
}

static void close_row(report *r) {
    r->depth--;
    r->row = NULL;
    putchar(r->json ? '}' : '\n');
}

/* An array of rows. */
static void open_table(report *r, const char *name, const column *columns) {
    open_block(r, name, name, '[');
    if (r->json) return;
    for (int i = 0; columns[i].name != NULL; i++)
        printf("  %*s", columns[i].width, columns[i].name);
    putchar('\n');
}

static void show_word(report *r, const char *name, const char *word) {
    char text[80];
    snprintf(text, sizeof text, r->json ? "\"%s\"" : "%s", word);
    show_plain(r, name, text);
}

static void show_flag(report *r, const char *name, int yes) {
    show_plain(r, name, r->json ? yes ? "true" : "false" : yes ? "yes" : "no");
}

static void show_null(report *r, const char *name, const char *shown) {
    show_plain(r, name, r->json ? "null" : shown);
}

/* unit: for people, who get large numbers rounded as well. */
static void show_count(report *r, const char *name, uint64_t n, const char *unit) {
    static const char letters[] = " kMGTPE";
    char text[80];
    int size = snprintf(text, sizeof text, "%llu", (unsigned long long)n), i = 0;
    double rounded = (double)n;
    while (rounded >= 1000) rounded /= 1000, i++;
    if (!r->json && !r->row && i > 0)
        snprintf(text + size, sizeof text - (size_t)size, " (%.3g %c%s)", rounded, letters[i],
                 unit);
    show_plain(r, name, text);
}

static void show_int(report *r, const char *name, int n) {
    char text[16];
    snprintf(text, sizeof text, "%d", n);
    show_plain(r, name, text);
}

static void print_number(int json, double d, int digits) {
    const char *quote = json ? "\"" : "";
    if (d - d != 0)
        printf("%s%s%s", quote, d != d ? "NaN" : d < 0 ? "-Infinity" : "Infinity", quote);
    else printf("%.*g", digits, d);
}

static void show_number(report *r, const char *name, double d, int digits) {
    begin_value(r, name);
    print_number(r->json, d, digits);
    end_value(r);
}

/* From a file.  In a row, and for programs, it is whole. */
static void print_string(const report *r, int quoted, const char *text, size_t n) {
    size_t shown;
    if (quoted) putchar('"');
    shown = print_text(r->json, quoted, text, n, r->json || r->row ? n : TEXT_WIDTH);
    if (quoted) putchar('"');
    if (shown < n) printf("... (%lu bytes)", (unsigned long)n);
}

static void show_string(report *r, const char *name, const char *text, size_t n) {
    int width = r->row && !r->json ? -r->row[r->count[r->depth]].width : 0;
    begin_value(r, name);
    print_string(r, r->json, text, n);
    if (width > 0 && n < (size_t)width) printf("%*s", width - (int)n, "");
    end_value(r);
}

/* ---- what transformer.h computes ---- */

static const char *const norm_names[] = {"rms", "layer"};
static const char *const place_names[] = {"input", "output", "sum"};
static const char *const wiring_names[] = {"sequential", "parallel", "parallel, two norms"};
static const char *const position_names[] = {"none", "learned", "sinusoidal", "alibi"};
static const char *const qk_norm_names[] = {"none", "head", "full", "per head"};
static const char *const activation_names[] = {"silu",  "gelu", "gelu_tanh", "gelu_quick", "relu",
                                               "relu2", "tanh", "sigmoid",   "identity"};
static const char *const bias_names[] = {"q",      "k",        "v",    "attn_out",
                                         "mlp_up", "mlp_down", "head", "qk_norm"};
static const char *const pairing_names[] = {"half", "interleaved"};
static const char *const scaling_names[] = {"none",   "linear", "dynamic", "ntk",
                                            "llama3", "yarn",   "longrope"};

enum { INT, FLOAT, DOUBLE, FLAG, WORD, BITS };

/* A field of a struct.  `off`: the value that it has when it changes nothing, and is not shown. */
typedef struct field {
    const char *name;
    size_t offset;
    double off; /* NONE = always shown */
    const char *const *words;
    int kind, n_words;
} field;

#define NONE (-1e30)
#define CONFIG(kind, name, off)                                                                    \
    { #name, offsetof(transformer_config, name), off, NULL, kind, 0 }
#define ROPE(kind, name, off)                                                                      \
    { #name, offsetof(transformer_rope, name), off, NULL, kind, 0 }
#define WORDS(kind, type, name, off, words)                                                        \
    { #name, offsetof(type, name), off, words, kind, (int)(sizeof words / sizeof *words) }

static const field config_fields[] = {
    CONFIG(INT, dim, NONE),
    CONFIG(INT, n_layers, NONE),
    CONFIG(INT, n_heads, NONE),
    CONFIG(INT, n_kv_heads, NONE),
    CONFIG(INT, head_dim, NONE),
    CONFIG(INT, value_dim, NONE),
    CONFIG(INT, mlp_dim, NONE),
    CONFIG(INT, vocab_size, NONE),
    CONFIG(INT, embedding_dim, NONE),
    CONFIG(INT, context, NONE),
    WORDS(WORD, transformer_config, norm, NONE, norm_names),
    CONFIG(FLOAT, norm_eps, NONE),
    CONFIG(FLAG, norm_weight, 1),
    CONFIG(FLAG, norm_bias, 0),
    CONFIG(FLAG, norm_plus_one, 0),
    WORDS(BITS, transformer_config, norm_placement, NONE, place_names),
    CONFIG(FLAG, embedding_norm, 0),
    CONFIG(FLAG, final_norm, 1),
    WORDS(WORD, transformer_config, parallel, 0, wiring_names),
    CONFIG(FLAG, residual_from_norm, 0),
    CONFIG(FLAG, causal, 1),
    WORDS(WORD, transformer_config, position, 0, position_names),
    CONFIG(INT, position_offset, 0),
    CONFIG(FLOAT, alibi_max_bias, 0),
    CONFIG(FLAG, alibi_falcon, 0),
    WORDS(BITS, transformer_config, biases, 0, bias_names),
    WORDS(WORD, transformer_config, qk_norm, 0, qk_norm_names),
    CONFIG(FLAG, qk_norm_after_rope, 0),
    CONFIG(FLOAT, attn_scale, NONE),
    CONFIG(FLOAT, attn_softcap, 0),
    CONFIG(FLOAT, qkv_clip, 0),
    CONFIG(INT, logn_length, 0),
    WORDS(WORD, transformer_config, activation, NONE, activation_names),
    CONFIG(FLAG, gated, NONE),
    CONFIG(FLOAT, embedding_scale, 1),
    CONFIG(FLOAT, residual_scale, 1),
    CONFIG(FLOAT, logit_scale, 1),
    CONFIG(FLOAT, logit_softcap, 0),
    CONFIG(FLAG, tied, NONE)};

static const field rope_fields[] = {ROPE(INT, dims, NONE),
                                    WORDS(WORD, transformer_rope, pairing, NONE, pairing_names),
                                    ROPE(FLAG, reverse, 0),
                                    ROPE(DOUBLE, theta, NONE),
                                    WORDS(WORD, transformer_rope, scaling, NONE, scaling_names),
                                    ROPE(DOUBLE, factor, 1),
                                    ROPE(INT, original_context, 0),
                                    ROPE(DOUBLE, low_freq_factor, 0),
                                    ROPE(DOUBLE, high_freq_factor, 0),
                                    ROPE(DOUBLE, beta_fast, 0),
                                    ROPE(DOUBLE, beta_slow, 0),
                                    ROPE(FLAG, truncate, 0),
                                    ROPE(DOUBLE, attention_factor, 1)};

static void show_bits(report *r, const field *f, int bits) {
    begin_value(r, f->name);
    if (r->json) putchar('[');
    for (int i = 0, n = 0; i < f->n_words; i++)
        if (bits >> i & 1) printf(r->json ? "%s\"%s\"" : "%s%s", n++ ? ", " : "", f->words[i]);
    if (r->json) putchar(']');
    else if (bits == 0) fputs("none", stdout);
    end_value(r);
}

static void show_field(report *r, const field *f, const void *structure) {
    const char *at = (const char *)structure + f->offset;
    int i = 0;
    float single = 0;
    double d;
    if (f->kind == DOUBLE) memcpy(&d, at, sizeof d);
    else if (f->kind == FLOAT) d = (double)(memcpy(&single, at, sizeof single), single);
    else d = (memcpy(&i, at, sizeof i), i);
    if (!r->json && d == f->off) return;
    switch (f->kind) {
    case INT: show_int(r, f->name, i); break;
    case FLAG: show_flag(r, f->name, i); break;
    case WORD: show_word(r, f->name, i >= 0 && i < f->n_words ? f->words[i] : "unknown"); break;
    case BITS: show_bits(r, f, i); break;
    default: show_number(r, f->name, d, f->kind == FLOAT ? 7 : 15); break;
    }
}

#define SHOW_FIELDS(r, fields, structure)                                                          \
    for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) show_field(r, &fields[k], structure)

/* Layers that are alike share a line. */
static void show_layers(report *r, const transformer_config *c) {
    static const column columns[] = {{"first", 5},   {"last", 5},    {"window", 8},
                                     {"rope", 5},    {"n_heads", 8}, {"n_kv_heads", 11},
                                     {"mlp_dim", 8}, {NULL, 0}};
    open_table(r, "layers", columns);
    for (int first = 0, last; first < c->n_layers; first = last + 1) {
        const transformer_layer *l = &c->layers[first];
        for (last = first; last + 1 < c->n_layers; last++)
            if (memcmp(l, l + (last + 1 - first), sizeof *l) != 0) break;
        open_row(r, columns);
        show_int(r, "first", first);
        show_int(r, "last", last);
        if (l->window == 0) show_null(r, "window", "all");
        else show_int(r, "window", l->window);
        if (l->rope < 0 || c->rope[l->rope > 0].dims == 0) show_null(r, "rope", "none");
        else show_int(r, "rope", l->rope);
        show_int(r, "n_heads", l->no_attention ? 0 : l->n_heads ? l->n_heads : c->n_heads);
        show_int(r, "n_kv_heads",
                 l->no_attention ? 0
                 : l->n_kv_heads ? l->n_kv_heads
                                 : c->n_kv_heads);
        show_int(r, "mlp_dim", l->no_mlp ? 0 : l->mlp_dim ? l->mlp_dim : c->mlp_dim);
        close_row(r);
    }
    close_block(r);
}

static void show_config(report *r, const transformer_config *c) {
    open_block(r, "config", "config", '{');
    SHOW_FIELDS(r, config_fields, c);
    close_block(r);
    open_block(r, "rope", "rope", '[');
    for (int i = 0; i < 2; i++) {
        if (c->rope[i].dims == 0) continue;
        open_block(r, NULL, i ? "table 1" : "table 0", '{');
        SHOW_FIELDS(r, rope_fields, &c->rope[i]);
        close_block(r);
    }
    close_block(r);
    show_layers(r, c);
}

/* ---- tensors ---- */

/* One, as the file stores it; of llama2.c, whose files have no names, as the model has it. */
typedef struct entry {
    char role[64];
    model_file_stored_tensor t;
} entry;

/* Moves *at on; 0 at the end. */
static int next_tensor(const model_file *file, size_t *at, entry *e) {
    const transformer_config *c = model_file_config(file);
    if (model_file_get_info(file)->n_stored > 0) return model_file_stored(file, (*at)++, &e->t);
    for (; *at / TRANSFORMER_N_ROLES < (size_t)c->n_layers; ++*at) {
        int role = (int)(*at % TRANSFORMER_N_ROLES), layer = (int)(*at / TRANSFORMER_N_ROLES);
        const transformer_tensor *t = model_file_tensor(file, role, layer);
        if (t == NULL) continue;
        memset(e, 0, sizeof *e);
        snprintf(e->role, sizeof e->role, "%s.%d", transformer_role_name(role), layer);
        e->t.name.text = e->role;
        e->t.name.length = strlen(e->role);
        e->t.type = transformer_dtype_name(t->dtype);
        e->t.dtype = t->dtype;
        e->t.gguf_type = -1;
        e->t.n_dims = 2;
        e->t.dims[0] = (uint64_t)t->rows, e->t.dims[1] = (uint64_t)t->cols;
        e->t.data = t->data;
        e->t.bytes = (size_t)t->rows * transformer_row_size(t->dtype, t->cols);
        ++*at;
        return 1;
    }
    return 0;
}

/* Weights are those of a float or block type; masks and the like are not. */
static uint64_t elements_of(const model_file_stored_tensor *t) {
    uint64_t n = 1;
    int integers = (strchr("IU", t->type[0]) && t->type[1] != 'Q') || strcmp(t->type, "BOOL") == 0;
    for (int i = 0; i < t->n_dims && i < 4; i++) n *= t->dims[i];
    return integers || t->n_dims > 4 || t->bytes == 0 ? 0 : n;
}

typedef struct type_count {
    const char *name;
    uint64_t tensors, elements, bytes;
} type_count;

static void show_types(report *r, const model_file *file) {
    static const column columns[] = {
        {"type", -12}, {"tensors", 8}, {"parameters", 16}, {"bytes", 16}, {NULL, 0}};
    type_count types[64];
    size_t n = 0, i, at = 0;
    uint64_t parameters = 0;
    entry e;
    while (next_tensor(file, &at, &e)) {
        for (i = 0; i < n && strcmp(types[i].name, e.t.type) != 0; i++) {
        }
        if (i == sizeof types / sizeof *types) continue; /* model_file.h knows fewer */
        if (i == n) {
            memset(&types[n], 0, sizeof types[n]);
            types[n++].name = e.t.type;
        }
        types[i].tensors++;
        types[i].elements += elements_of(&e.t);
        types[i].bytes += e.t.bytes;
        parameters += elements_of(&e.t);
    }
    show_count(r, "parameters", parameters, "");
    open_table(r, "types", columns);
    for (i = 0; i < n; i++) {
        open_row(r, columns);
        show_word(r, "type", types[i].name);
        show_count(r, "tensors", types[i].tensors, "");
        show_count(r, "parameters", types[i].elements, "");
        show_count(r, "bytes", types[i].bytes, "");
        close_row(r);
    }
    close_block(r);
}

static void show_shape(report *r, const model_file_stored_tensor *t) {
    char text[120] = "[";
    int n = 1;
    for (int i = 0; i < t->n_dims && i < 4; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%llu", i ? ", " : "",
                      (unsigned long long)t->dims[i]);
    if (t->n_dims > 4)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s", r->json ? ", null" : ", ...");
    snprintf(text + n, sizeof text - (size_t)n, "]");
    show_plain(r, "shape", text);
}

/* Where in which file its data lie; nowhere if they were expanded. */
static void show_place(report *r, const model_file *file, const void *data) {
    model_file_part part;
    for (int i = 0; model_file_part_at(file, i, &part); i++) {
        uintptr_t offset = (uintptr_t)data - (uintptr_t)part.data; /* huge if it lies before */
        if (offset > part.size) continue;
        show_count(r, "offset", offset, "");
        show_string(r, "file", part.name, strlen(part.name));
        return;
    }
    show_null(r, "offset", "(expanded)");
    show_null(r, "file", "");
}

static void show_tensors(report *r, const model_file *file) {
    static const column columns[] = {{"name", -48},  {"type", -8}, {"shape", -16}, {"bytes", 12},
                                     {"offset", 12}, {"file", -1}, {NULL, 0}};
    size_t at = 0;
    entry e;
    open_table(r, "tensors", columns);
    while (next_tensor(file, &at, &e)) {
        char type[32];
        snprintf(type, sizeof type, "%s", e.t.type);
        if (e.t.gguf_type >= 0 && strcmp(type, "unknown") == 0)
            snprintf(type, sizeof type, "unknown (%d)", e.t.gguf_type);
        open_row(r, columns);
        show_string(r, "name", e.t.name.text, e.t.name.length);
        show_word(r, "type", type);
        show_shape(r, &e.t);
        show_count(r, "bytes", e.t.bytes, "");
        show_place(r, file, e.t.data);
        close_row(r);
    }
    close_block(r);
}

/* ---- metadata ---- */

static const char *const value_types[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                          "bool", "string", "array", "u64", "i64", "f64", "json"};

/* Element i of what is not an array of strings or of arrays. */
static void print_element(const report *r, const model_file_value *v, size_t i) {
    int64_t integer = 0;
    double number = 0;
    if (v->element == MODEL_FILE_F32 || v->element == MODEL_FILE_F64) {
        model_file_float(v, i, &number);
        print_number(r->json, number, v->element == MODEL_FILE_F64 ? 17 : r->json ? 9 : 7);
    } else if (!model_file_int(v, i, &integer)) { /* 2^63 and above */
        uint64_t most = 0;
        for (int k = 7; k >= 0; k--) most = most << 8 | v->data[8 * i + (size_t)k];
        printf("%llu", (unsigned long long)most);
    } else if (v->element == MODEL_FILE_BOOL) {
        fputs(integer ? "true" : "false", stdout);
    } else {
        printf("%lld", (long long)integer);
    }
}

static void print_array(const report *r, const model_file_value *v) {
    size_t limit = r->json ? MANY : FEW, at = 0;
    size_t n = v->element == MODEL_FILE_ARRAY ? 0 : v->n < limit ? v->n : limit;
    model_file_string s;
    if (r->json && n < v->n)
        printf("{\"array\": \"%s\", \"length\": %lu, \"first\": ", value_types[v->element],
               (unsigned long)v->n);
    putchar('[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0) fputs(", ", stdout);
        if (v->element != MODEL_FILE_STRING) print_element(r, v, i);
        else if (model_file_next_string(v, &at, &s)) print_string(r, 1, s.text, s.length);
    }
    putchar(']');
    if (r->json && n < v->n) putchar('}');
    if (!r->json && n < v->n)
        printf(" (%s, the first of %lu)", value_types[v->element], (unsigned long)v->n);
}

static void print_value(const report *r, const model_file_value *v) {
    const char *text = (const char *)v->data;
    model_file_string s;
    size_t at = 0;
    if (v->type == MODEL_FILE_ARRAY) print_array(r, v);
    else if (v->type == MODEL_FILE_JSON) {
        if (print_json_text(text, v->bytes, r->json ? v->bytes : TEXT_WIDTH) < v->bytes)
            printf("... (%lu bytes)", (unsigned long)v->bytes);
    } else if (v->type != MODEL_FILE_STRING) print_element(r, v, 0);
    else if (model_file_next_string(v, &at, &s)) print_string(r, r->json, s.text, s.length);
}

static void show_metadata(report *r, const model_file *file) {
    model_file_value v;
    open_block(r, "metadata", "metadata", '{');
    for (size_t i = 0; model_file_metadata(file, i, &v); i++) {
        begin_value(r, NULL);
        if (r->json) putchar('"');
        print_text(r->json, r->json, v.key.text, v.key.length, v.key.length);
        fputs(r->json ? "\": " : " = ", stdout);
        print_value(r, &v);
        end_value(r);
    }
    close_block(r);
}

/* ---- the tokenizer that comes with it ---- */

static tokenizer *open_tokenizer(const char *path, const model_file *file, tokenizer_error *error) {
    tokenizer_files memory;
    model_file_part part;
    const char *base = path;
    for (const char *p = path; *p != '\0'; p++)
        if (*p == '/' || *p == '\\') base = p + 1;
    if (strcmp(model_file_get_info(file)->format, "GGUF") == 0 &&
        model_file_part_at(file, 0, &part)) { /* it has the metadata */
        memset(&memory, 0, sizeof memory);
        memory.data = part.data;
        memory.size = part.size;
        return tokenizer_open_files(&memory, 0, error);
    }
    if (strcmp(model_file_get_info(file)->format, "safetensors") == 0) {
        size_t n = strlen(base) > 5 && (strstr(base, ".safetensors") || strstr(base, ".json"))
                       ? (size_t)(base - path)
                       : strlen(path);
        char *directory = (char *)allocate(n + 2, 1);
        snprintf(directory, n + 2, "%.*s", n ? (int)n : 1, n ? path : ".");
        tokenizer *t = tokenizer_open(directory, 0, error);
        free(directory);
        return t;
    }
    snprintf(error->text, sizeof error->text, "llama2.c has it in a file of its own");
    return NULL;
}

static void show_tokenizer(report *r, const char *path, const model_file *file) {
    static const char *const kinds[] = {"llama2.c", "GGUF", "tokenizer.json", "SentencePiece",
                                        "vocab.json and merges.txt"};
    static const char *const models[] = {"SPM", "BPE", "unigram"};
    tokenizer_error error;
    tokenizer *t = open_tokenizer(path, file, &error);
    if (t == NULL) {
        if (r->json) show_null(r, "tokenizer", "");
        show_string(r, r->json ? "no_tokenizer" : "tokenizer", error.text, strlen(error.text));
        return;
    }
    open_block(r, "tokenizer", "tokenizer", '{');
    show_word(r, "kind", kinds[tokenizer_kind(t)]);
    show_word(r, "model", models[tokenizer_model(t)]);
    if (tokenizer_pre(t)) show_string(r, "pre", tokenizer_pre(t), strlen(tokenizer_pre(t)));
    else show_null(r, "pre", "none");
    show_int(r, "vocab_size", tokenizer_vocab_size(t));
    show_int(r, "bos", tokenizer_bos(t));
    show_int(r, "eos", tokenizer_eos(t));
    show_int(r, "unk", tokenizer_unk(t));
    show_flag(r, "adds_bos", tokenizer_adds_bos(t));
    show_flag(r, "adds_eos", tokenizer_adds_eos(t));
    show_flag(r, "adds_space", tokenizer_adds_space(t));
    show_flag(r, "chat_template", tokenizer_chat_template(t) != NULL);
    close_block(r);
    tokenizer_close(t);
}

/* ---- all of it ---- */

typedef struct arguments {
    const char *model;
    int tensors, json;
} arguments;

/* The file, to run (*model) or else to look at, with the reason in *why. */
static model_file *open_file(const char *path, transformer_model **model, transformer_error *why) {
    transformer_options options;
    model_file_options look;
    transformer_error error;
    memset(&options, 0, sizeof options);
    memset(&look, 0, sizeof look);
    model_file *file = model_file_open(path, NULL, why);
    *model = model_file_model(file, &options, why);
    if (file && *model) return file;
    model_file_close(file);
    look.only_look = 1;
    file = model_file_open(path, &look, &error);
    if (file == NULL) die_about(path, why->text);
    return file;
}

static void show_summary(report *r, const model_file *file, const transformer_model *model,
                         const char *why) {
    const model_file_info *info = model_file_get_info(file);
    transformer_options options;
    memset(&options, 0, sizeof options);
    show_word(r, "format", info->format);
    show_string(r, "family", info->family, strlen(info->family));
    show_flag(r, "runs", model != NULL);
    if (model == NULL) show_string(r, r->json ? "reason" : "  because", why, strlen(why));
    show_int(r, "files", info->n_files);
    show_count(r, "file_bytes", info->file_bytes, "B");
    if (model == NULL) return;
    show_count(r, "copied_bytes", info->copied_bytes, "B");
    show_count(r, "state_bytes", transformer_state_size(model, &options), "B");
}

static void inspect(const arguments *a) {
    transformer_error why;
    transformer_model *model;
    model_file *file = open_file(a->model, &model, &why);
    report r;
    memset(&r, 0, sizeof r);
    r.json = a->json;
    push(&r, '{');
    show_summary(&r, file, model, why.text);
    show_types(&r, file);
    if (model != NULL) show_config(&r, transformer_model_config(model));
    show_tokenizer(&r, a->model, file);
    show_metadata(&r, file);
    if (a->tensors) show_tensors(&r, file);
    close_block(&r);
    if (a->json) putchar('\n');
    transformer_free(model);
    model_file_close(file);
}

int main(int argc, char **argv) {
    arguments a;
    offer_help(argc, argv, usage);
    memset(&a, 0, sizeof a);
    for (int i = 1; i < argc; i++) {
        if (is_option(argv, &i, "--tensors")) a.tensors = 1;
        else if (is_option(argv, &i, "--json")) a.json = 1;
        else if (argv[i][0] != '-' && a.model == NULL) a.model = argv[i];
        else die("unknown argument '%s'", argv[i]);
    }
    if (a.model == NULL) {
        fputs(usage, stderr);
        return 1;
    }
    inspect(&a);
    if (fflush(stdout) != 0 || ferror(stdout)) die("cannot write: %s", strerror(errno));
    return 0;
}

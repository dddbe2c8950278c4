/* examples/convert.c and examples/gguf_writer.h.  Every golden model that GGUF can express becomes the file that
 * llama.cpp's own converter made of it (tests/gguf) and gives its logits to the bit; the others are refused. */
#include "allocator.h"
#define malloc counted_malloc
#define calloc counted_calloc
#define realloc counted_realloc
#define free counted_free
#define main convert_main
#include "../examples/convert.c"
#undef main
#undef malloc
#undef calloc
#undef realloc
#undef free
#include "goldens.h"

#if MFI_MMAP
#include <sys/resource.h>
#include <unistd.h>
#endif

#define OUT "build/test_convert.gguf"
#define SECOND "build/test_convert.2.gguf"

#define NOTES "build/test_convert.notes"

static char error_text[512], notes_text[4096];

static int run(const char *in, const char *out, const char *type, arguments a) {
    a.in = in;
    a.out = out;
    a.preset = type ? quantize_preset_find(type) : NULL;
    a.quiet = 1;
    a.notes = fopen(NOTES, "w+b");
    CHECK((!type || a.preset) && a.notes);
    error_text[0] = 0;
    int ok = convert(&a, error_text, sizeof error_text);
    if (!a.notes) return ok;
    rewind(a.notes);
    notes_text[fread(notes_text, 1, sizeof notes_text - 1, a.notes)] = 0;
    fclose(a.notes);
    return ok;
}

/* Converts over whatever is there; what is wrong is printed. */
static int make(const char *in, const char *out, const char *type) {
    arguments a;
    memset(&a, 0, sizeof a);
    a.force = 1;
    if (run(in, out, type, a)) return 1;
    fprintf(stderr, "%s: %s\n", in, error_text);
    return 0;
}

static int is_there(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static const char *golden_path(const char *name) {
    static char path[300];
    snprintf(path, sizeof path, "tests/goldens/%s/model.bin", name);
    if (!is_there(path)) snprintf(path, sizeof path, "tests/goldens/%s", name);
    return path;
}

static model_file *look(const char *path) {
    model_file_options options;
    transformer_error error;
    memset(&options, 0, sizeof options);
    options.only_look = 1;
    model_file *file = model_file_open(path, &options, &error);
    if (!file) fprintf(stderr, "%s: %s\n", path, error.text);
    CHECK(file != NULL);
    return file;
}

/* ---- the same files as llama.cpp's ---- */

/* Divisors of RoPE's frequencies: that converter rounds them a little differently. */
static int same_data(const model_file_stored_tensor *a, const model_file_stored_tensor *b) {
    if (a->bytes != b->bytes || a->gguf_type != b->gguf_type || a->n_dims != b->n_dims) return 0;
    if (memcmp(a->dims, b->dims, sizeof a->dims) != 0) return 0;
    if (memcmp(a->data, b->data, a->bytes) == 0) return 1;
    if (a->name.length != 17 || memcmp(a->name.text, "rope_freqs.weight", 17) != 0) return 0;
    for (size_t i = 0; i < a->bytes / 4; i++)
        if (!close_to((double)((const float *)a->data)[i], (double)((const float *)b->data)[i]))
            return 0;
    return 1;
}

static void same_tensors(const model_file *a, const model_file *b, const char *name) {
    model_file_stored_tensor x, y;
    CHECK(model_file_get_info(a)->n_stored == model_file_get_info(b)->n_stored);
    for (size_t i = 0; model_file_stored(a, i, &x) && model_file_stored(b, i, &y); i++) {
        int same = x.name.length == y.name.length &&
                   memcmp(x.name.text, y.name.text, x.name.length) == 0 && same_data(&x, &y);
        if (!same) fprintf(stderr, "%s: %.*s\n", name, (int)x.name.length, x.name.text);
        CHECK(same);
    }
}

/* Keys of the architecture that are in theirs and not in ours, or not the same. */
static void same_metadata(const model_file *theirs, const model_file *ours, const char *name) {
    static const char *const known[] = {
        "falcon.context_length",
        "falcon.tensor_data_layout", /* theirs ignores config.json's */
        "bloom.context_length",
        ".rope.scaling.type", /* "none" */
        ".attention.layer_norm_epsilon",
        ".attention.layer_norm_rms_epsilon", /* one will do */
        ".attention.sliding_window_pattern", /* the usual one */
        ".rope.scaling.yarn_attn_factor",    /* we write attn_factor */
        "phi3.rope.scaling.original_context_length" /* that of no scaling */};
    const char *arch = model_file_get_info(theirs)->family;
    model_file_value v, w;
    for (size_t i = 0; model_file_metadata(theirs, i, &v); i++) {
        char key[128];
        int expected = 0;
        size_t k;
        if (v.key.length < strlen(arch) || memcmp(v.key.text, arch, strlen(arch)) != 0) continue;
        snprintf(key, sizeof key, "%.*s", (int)v.key.length, v.key.text);
        for (k = 0; k < sizeof known / sizeof *known; k++)
            expected |= strstr(key, known[k]) != NULL;
        int same = model_file_find(ours, key, &w) && v.type == w.type && v.n == w.n &&
                   v.bytes == w.bytes && memcmp(v.data, w.data, v.bytes) == 0;
        if (!same && !expected) fprintf(stderr, "%s: %s differs\n", name, key);
        CHECK(same || expected);
    }
}

static void against_llama(char *line, const void *unused) {
    char name[64], golden_name[64], path[300];
    (void)unused;
    CHECK(sscanf(line, "%63s %63s", name, golden_name) == 2);
    snprintf(path, sizeof path, "tests/gguf/%s.gguf", name);
    CHECK(make(golden_path(golden_name), OUT, NULL));
    model_file *theirs = look(path), *ours = look(OUT);
    if (theirs && ours) {
        same_tensors(theirs, ours, name);
        same_metadata(theirs, ours, name);
    }
    model_file_close(theirs);
    model_file_close(ours);
}

/* ---- the same logits ---- */

/* What GGUF cannot express, and what the message must say. */
static const char *const refused[][2] = {{"bloom_odd", "residual_from_norm"},
                                         {"falcon_11b", "q_bias"},
                                         {"falcon_mha", "mlp_norm"},
                                         {"falcon_rw", "q_bias"},
                                         {"falcon_rw_rounded", "q_bias"},
                                         {"gemma2", "attn_scale"},
                                         {"gemma2_odd", "attn_scale"},
                                         {"gemma3", "attn_scale"},
                                         {"gemma3_bf16", "attn_scale"},
                                         {"gemma3_f16", "attn_scale"},
                                         {"gemma3_linear", "attn_scale"},
                                         {"gemma3_seven", "attn_scale"},
                                         {"gemma3_wrapped", "attn_scale"},
                                         {"gpt2_noscale", "activation"},
                                         {"gpt2_odd", "activation"},
                                         {"gpt_bigcode_mha", "activation"},
                                         {"gpt_neo", "gpt_neo"},
                                         {"gpt_neo_odd", "gpt_neo"},
                                         {"gpt_neox_sequential", "activation"},
                                         {"gptj", "gptj"},
                                         {"gptj_odd", "gptj"},
                                         {"llama_bias", "activation"},
                                         {"microgpt", "microgpt"},
                                         {"microgpt_odd", "microgpt"},
                                         {"minicpm_odd", "q_bias"},
                                         {"mpt_odd", "attn_scale"},
                                         {"nanochat", "nanochat"},
                                         {"nanochat_odd", "nanochat"},
                                         {"nanogpt", "activation"},
                                         {"nanogpt_nobias", "bias"},
                                         {"olmo_clip", "q_bias"},
                                         {"opt", "opt"},
                                         {"opt_350m", "opt"},
                                         {"opt_bare", "opt"},
                                         {"opt_nofinal", "opt"},
                                         {"phi_odd", "q_norm"},
                                         {"qwen3_yarn", "RoPE"},
                                         {"qwen_logn", "logn_length"},
                                         {"smollm3_odd", "rope"},
                                         {"starcoder2_nobias", "activation"}};

/* What llama.cpp refuses of the rest, found by running its llama-bench on them all, and what the notes must say: the
 * parts that its loader does not know. */
static const char *const foreign[][2] = {{"cohere2_old", "attention's output"},
                                         {"cohere_qknorm", "attention's output"},
                                         {"ernie4_5_bias", "biases of the MLP"},
                                         {"exaone4_full", "wider or narrower"},
                                         {"gemma_old", "attention's output"},
                                         {"glm", "wider or narrower"},
                                         {"glm_odd", "wider or narrower"},
                                         {"hunyuan_alpha", "attention's output"},
                                         {"nemotron", "wider or narrower"},
                                         {"nemotron_odd", "head that is the embedding"},
                                         {"olmo2_odd", "head that is the embedding"},
                                         {"olmo2_odd", "attention's output"},
                                         {"olmo3_old", "head that is the embedding"},
                                         {"seed_oss_odd", "biases of the MLP"},
                                         {"seed_oss_odd", "attention's output"},
                                         {"stablelm_bias", "head that is the embedding"}};

static int count(const char *text, const char *what) {
    int n = 0;
    for (; (text = strstr(text, what)) != NULL; text++) n++;
    return n;
}

/* As many lines as the list has, and each of them. */
static void check_notes(const char *name) {
    int n = 0;
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (strcmp(foreign[i][0], name) == 0) {
            n++;
            CHECK(strstr(notes_text, foreign[i][1]) != NULL);
        }
    int same = count(notes_text, "llama.cpp will refuse this file") == n;
    if (!same) fprintf(stderr, "%s: %d notes expected: %s\n", name, n, notes_text);
    CHECK(same);
}

static int n_same_bits;

static int same_numbers(const model_file *a, const model_file *b) {
    const transformer_config *x = model_file_config(a), *y = model_file_config(b);
    const transformer_rope *r = &x->rope[0], *s = &y->rope[0];
    return r->pairing == s->pairing && r->scaling == s->scaling && r->theta == s->theta &&
           r->factor == s->factor && r->attention_factor == s->attention_factor &&
           x->logit_scale == y->logit_scale && x->attn_scale == y->attn_scale;
}

/* The golden through both files, as far as the converted one's context goes. */
static void check_logits(const char *name) {
    static golden g;
    transformer_error error;
    if (!open_golden(&g, "tests/goldens", name)) return;
    model_file *from = model_file_open(golden_path(name), NULL, &error);
    model_file *to = model_file_open(OUT, NULL, &error);
    CHECK(from && to);
    size_t n = (size_t)g.n_tokens * (size_t)g.vocab_size;
    float *x = (float *)calloc(n, sizeof *x), *y = (float *)calloc(n, sizeof *y);
    int context = to ? model_file_config(to)->context : 0;
    if (context < g.n_tokens) {
        g.n_tokens = context;
        g.rope_length = 0;
        n = (size_t)context * (size_t)g.vocab_size;
    }
    CHECK(context > 4);
    int ok = from && to && x && y && run_case(&g, from, 1, g.n_tokens, x, NULL) &&
             run_case(&g, to, 1, g.n_tokens, y, NULL);
    /* to the bit, unless rows are permuted, which changes the order of sums, or numbers are rounded */
    double most = ok ? test_difference(x, y, n) : 1,
           allowed = ok && same_numbers(from, to) ? 0 : 1e-5;
    if (!(most <= allowed)) fprintf(stderr, "%s: logits are %g apart\n", name, most);
    CHECK(most <= allowed);
    n_same_bits += most == 0;
    free(x), free(y), free(g.logits), free(g.residual);
    model_file_close(from);
    model_file_close(to);
}

static int n_refused;

static void check_golden(char *line, const void *unused) {
    const char *reason = NULL;
    arguments a;
    memset(&a, 0, sizeof a);
    (void)unused;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(refused[i][0], line) == 0) reason = refused[i][1];
    remove(OUT);
    if (!reason) {
        CHECK(make(golden_path(line), OUT, NULL));
        check_notes(line);
        check_logits(line);
        return;
    }
    CHECK(!run(golden_path(line), OUT, NULL, a));
    if (!strstr(error_text, reason)) fprintf(stderr, "%s: %s\n", line, error_text);
    CHECK(strstr(error_text, reason) != NULL);
    CHECK(!is_there(OUT) && !is_there(OUT ".part"));
    n_refused++;
}

static void test_goldens(void) {
    int n = test_each_line("tests/goldens/index.txt", check_golden, NULL);
    CHECK(n_same_bits >= 40 && n_refused == (int)(sizeof refused / sizeof *refused));
    GROUP(
        "%d golden models give the same logits, %d of them the same bits; %d are refused by name; "
        "notes on what llama.cpp refuses",
        n - n_refused, n_same_bits, n_refused);
}

/* ---- GGUF to GGUF, and types ---- */

/* Nothing is lost, and nothing changes its place. */
static void check_copy(char *line, const void *unused) {
    char name[64], path[300];
    size_t n = 0, m = 0;
    (void)unused;
    CHECK(sscanf(line, "%63s", name) == 1);
    snprintf(path, sizeof path, "tests/gguf/%s.gguf", name);
    CHECK(make(path, OUT, NULL));
    char *x = test_read_file(path, &n), *y = test_read_file(OUT, &m);
    CHECK(x && y && n == m && memcmp(x, y, n) == 0);
    free(x), free(y);
}

#define PART "build/test_convert-0000%d-of-00002.gguf"

/* Half of a file's tensors, and all its keys in the first of two parts. */
static void write_part(const model_file *from, int part) {
    char path[100], name[72];
    model_file_value v;
    model_file_stored_tensor t;
    size_t half = model_file_get_info(from)->n_stored / 2, i;
    snprintf(path, sizeof path, PART, part + 1);
    gguf_writer *w = gguf_writer_new_file(path, 1);
    for (i = 0; part == 0 && model_file_metadata(from, i, &v); i++)
        gguf_writer_raw(w, v.key.text, v.key.length, v.type, v.element, v.n, v.data, v.bytes);
    gguf_writer_int(w, "split.no", GGUF_WRITER_U16, part);
    gguf_writer_int(w, "split.count", GGUF_WRITER_U16, 2);
    gguf_writer_int(w, "split.tensors.count", GGUF_WRITER_I32,
                    (int64_t)model_file_get_info(from)->n_stored);
    for (int data = 0; data < 2; data++) {
        for (i = 0; model_file_stored(from, i, &t); i++) {
            uint64_t dims[2] = {t.dims[t.n_dims - 1], t.dims[0]};
            if ((i >= half) != part) continue;
            snprintf(name, sizeof name, "%.*s", (int)t.name.length, t.name.text);
            if (data) gguf_writer_data(w, t.data, t.bytes);
            else gguf_writer_tensor(w, name, t.gguf_type, dims, t.n_dims, t.bytes);
        }
        if (!data) gguf_writer_begin(w);
    }
    CHECK(gguf_writer_end(w) == GGUF_WRITER_OK);
    gguf_writer_free(w);
}

static void test_split(void) {
    static const char source[] = "tests/gguf/qwen2.gguf";
    char path[100];
    model_file_value v;
    model_file *from = look(source);
    for (int part = 0; from && part < 2; part++) write_part(from, part);
    snprintf(path, sizeof path, PART, 2);
    CHECK(make(path, OUT, NULL));
    model_file *to = look(OUT);
    if (from && to) {
        same_tensors(from, to, source);
        CHECK(model_file_get_info(from)->n_metadata == model_file_get_info(to)->n_metadata);
        CHECK(!model_file_find(to, "split.count", &v));
    }
    model_file_close(from);
    model_file_close(to);
    for (int part = 1; part <= 2; part++) {
        snprintf(path, sizeof path, PART, part);
        remove(path);
    }
    GROUP("the parts of a split file become one");
}

/* Squared error of all weights of b relative to those of a, which has them in float32. */
static double weights_error(const char *a, const char *b) {
    transformer_error error;
    model_file *x = model_file_open(a, NULL, &error), *y = model_file_open(b, NULL, &error);
    double off = 0, power = 0;
    CHECK(x && y);
    for (int layer = 0; x && y && layer < model_file_config(x)->n_layers; layer++)
        for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
            const transformer_tensor *s = model_file_tensor(x, role, layer);
            const transformer_tensor *t = model_file_tensor(y, role, layer);
            CHECK(!s == !t);
            if (!s || !t) continue;
            size_t n = (size_t)s->rows * (size_t)s->cols;
            float *values = (float *)malloc(2 * n * sizeof *values);
            CHECK(!transformer_decode(values, s, 0, s->rows) &&
                  !transformer_decode(values + n, t, 0, t->rows));
            for (size_t i = 0; i < n; i++) {
                double d = (double)values[i] - (double)values[n + i];
                off += d * d;
                power += (double)values[i] * (double)values[i];
            }
            free(values);
        }
    model_file_close(x);
    model_file_close(y);
    return off / power;
}

static int type_of(const char *path, const char *name) {
    model_file *file = look(path);
    model_file_stored_tensor t;
    int type = -1;
    for (size_t i = 0; file && model_file_stored(file, i, &t); i++)
        if (t.name.length == strlen(name) && memcmp(t.name.text, name, t.name.length) == 0)
            type = t.gguf_type;
    model_file_close(file);
    return type;
}

static int64_t key_of(const char *path, const char *key) {
    model_file *file = look(path);
    model_file_value v;
    int64_t value = -1;
    if (file && model_file_find(file, key, &v)) model_file_int(&v, 0, &value);
    model_file_close(file);
    return value;
}

/* A llama2.c checkpoint with noise for weights. */
static void make_llama2c(const char *path, int dim, int vocab_size, uint32_t seed) {
    const int header[7] = {dim, 2 * dim, 2, 2, 1, vocab_size, 32}, hd = dim / 2;
    const size_t d = (size_t)dim;
    size_t n = (size_t)vocab_size * d + 2 * (2 * d + d * d * 3 + d * d * 6) + d, i;
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(header, 4, 7, f) == 7);
    for (i = 0; f && i < n; i++) {
        float x = test_noise(seed + (uint32_t)i);
        fwrite(&x, 4, 1, f);
    }
    for (i = 0; f && i < (size_t)(32 * hd); i++) { /* cosines, then sines */
        size_t p = i / (size_t)(hd / 2) % 32, k = i % (size_t)(hd / 2);
        double angle = (double)p * pow(1e4, -2.0 * (double)k / hd);
        float x = (float)(i < (size_t)(16 * hd) ? cos(angle) : sin(angle));
        fwrite(&x, 4, 1, f);
    }
    CHECK(f && fclose(f) == 0);
}

#define MADE "build/test_convert.bin"

static void test_types(void) {
    static const struct {
        const char *name;
        int file_type, embedding, query, value;
        double error;
    } types[] = {{"f32", 0, 0, 0, 0, 0},           {"f16", 1, 1, 1, 1, 1e-7},
                 {"bf16", 32, 30, 30, 30, 1e-5},   {"q8_0", 7, 8, 8, 8, 5e-5},
                 {"q6_k", 18, 14, 14, 14, 5e-4},   {"q5_k_m", 17, 14, 13, 14, 2e-3},
                 {"q4_k_m", 15, 14, 12, 14, 8e-3}, {"q4_0", 2, 14, 2, 2, 1e-2}};
    arguments a;
    memset(&a, 0, sizeof a);
    a.force = 1;
    make_llama2c(MADE, 256, 300, 7);
    CHECK(make(MADE, SECOND, "f32"));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        CHECK(make(MADE, OUT, types[i].name));
        CHECK(!strstr(notes_text, "not quantised"));
        double e = weights_error(MADE, OUT);
        printf("      %-7s squared error of the weights %.1e\n", types[i].name, e);
        CHECK(e <= types[i].error && (e > 0 || i == 0));
        CHECK(key_of(OUT, "general.file_type") == types[i].file_type);
        CHECK(key_of(OUT, "general.quantization_version") == 2);
        CHECK(type_of(OUT, "token_embd.weight") == types[i].embedding);
        CHECK(type_of(OUT, "blk.0.attn_q.weight") == types[i].query);
        CHECK(type_of(OUT, "blk.0.attn_v.weight") == types[i].query);
        CHECK(type_of(OUT, "blk.1.attn_v.weight") == types[i].value); /* the last of two */
        CHECK(type_of(OUT, "blk.0.attn_norm.weight") == 0);
        if (strcmp(types[i].name, "q8_0") != 0 && strcmp(types[i].name, "q4_k_m") != 0) continue;
        CHECK(make(SECOND, SECOND ".b", types[i].name)); /* by way of GGUF in float32 */
        CHECK(key_of(SECOND ".b", "general.file_type") == types[i].file_type);
        model_file *x = look(OUT), *y = look(SECOND ".b");
        if (x && y) same_tensors(x, y, types[i].name);
        model_file_close(x);
        model_file_close(y);
    }
    CHECK(make(MADE, OUT, "q8_0"));
    CHECK(!run(OUT, SECOND, "q4_0", a) && strstr(error_text, "--requantize"));
    CHECK(!is_there(SECOND ".part"));
    a.requantize = 1;
    CHECK(run(OUT, SECOND, "f32", a) && type_of(SECOND, "token_embd.weight") == 0);
    CHECK(weights_error(SECOND, OUT) == 0);
    CHECK(make(SECOND, SECOND ".b", "q8_0") && weights_error(SECOND, SECOND ".b") == 0);
    remove(SECOND ".b");
    CHECK(make(golden_path("llama"), OUT, "f16") && !strstr(notes_text, "not quantised"));
    CHECK(make(golden_path("llama"), OUT, "q4_0")); /* 24 and 28 columns; 7 matrices a layer */
    CHECK(strstr(notes_text, "23 of 23 matrices are not quantised: no block fits") != NULL);
    GROUP("types: of every tensor, and their errors");
}

/* A GGUF file of one matrix of 256 numbers, of which nothing but its type matters. */
static void write_mixture(const quantize_model *m, const char *tensor) {
    static const struct {
        const char *key;
        size_t offset;
    } counts[] = {{"block_count", offsetof(quantize_model, n_layers)},
                  {"attention.head_count", offsetof(quantize_model, n_heads)},
                  {"attention.head_count_kv", offsetof(quantize_model, n_kv_heads)},
                  {"expert_count", offsetof(quantize_model, n_experts)}};
    static const uint64_t dims[2] = {256, 1};
    static const float numbers[256];
    char key[64];
    gguf_writer *w = gguf_writer_new_file(SECOND, 1);
    gguf_writer_text(w, "general.architecture", m->arch);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int value;
        memcpy(&value, (const char *)m + counts[i].offset, sizeof value);
        snprintf(key, sizeof key, "%s.%s", m->arch, counts[i].key);
        if (value > 0) gguf_writer_int(w, key, GGUF_WRITER_U32, value);
    }
    gguf_writer_tensor(w, tensor, 0, dims, 2, sizeof numbers);
    gguf_writer_begin(w);
    gguf_writer_data(w, numbers, sizeof numbers);
    CHECK(gguf_writer_end(w) == GGUF_WRITER_OK);
    gguf_writer_free(w);
}

/* What a mixture depends on is read from a file's keys. */
static void test_mixtures(void) {
    static const struct {
        quantize_model model;
        const char *tensor;
        int type;
    } cases[] = {{{"llama", 80, 64, 8, 0, 0}, "blk.10.attn_v.weight", QUANTIZE_Q5_K},
                 {{"llama", 80, 64, 64, 0, 0}, "blk.10.attn_v.weight", QUANTIZE_Q4_K},
                 {{"llama", 80, 64, 0, 0, 0}, "blk.10.attn_v.weight", QUANTIZE_Q4_K},
                 {{"llama", 5, 4, 4, 0, 0}, "blk.4.attn_v.weight", QUANTIZE_Q6_K},
                 {{"llama", 32, 32, 8, 8, 0}, "blk.10.attn_k.weight", QUANTIZE_Q8_0},
                 {{"llama", 32, 32, 8, 8, 0}, "blk.10.ffn_gate_inp.weight", QUANTIZE_F32},
                 {{"falcon", 32, 8, 1, 0, 0}, "token_embd.weight", QUANTIZE_Q8_0},
                 {{"gpt2", 12, 4, 4, 0, 0}, "blk.1.attn_qkv.weight", QUANTIZE_Q4_K},
                 {{"gpt2", 12, 4, 4, 0, 0}, "token_embd.weight", QUANTIZE_Q6_K}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_mixture(&cases[i].model, cases[i].tensor);
        CHECK(make(SECOND, OUT, "q4_k_m"));
        CHECK(type_of(OUT, cases[i].tensor) == cases[i].type);
    }
    GROUP("mixtures that depend on the model");
}

/* ---- tokenizers ---- */

static const char *in_tokenizers(const char *name) {
    static char path[200];
    snprintf(path, sizeof path, "tests/data/tokenizers/%s", name);
    return path;
}

/* Every token, and what becomes of a text. */
static void same_tokenizer(const tokenizer *a, const tokenizer *b) {
    static const char text[] = "Some text, 12345 and  more:\n\tcaf\xC3\xA9 \xF0\x9F\x98\x80!";
    int32_t x[200], y[200];
    CHECK(tokenizer_vocab_size(a) == tokenizer_vocab_size(b));
    CHECK(tokenizer_bos(a) < 0 || tokenizer_bos(a) == tokenizer_bos(b));
    CHECK(tokenizer_eos(a) < 0 || tokenizer_eos(a) == tokenizer_eos(b));
    CHECK(tokenizer_adds_bos(a) == tokenizer_adds_bos(b));
    CHECK(tokenizer_adds_eos(a) == tokenizer_adds_eos(b));
    for (int flags = 0; flags <= TOKENIZER_AUTO; flags += TOKENIZER_AUTO) {
        int n = tokenizer_encode(a, text, strlen(text), flags, x, 200, NULL);
        int m = tokenizer_encode(b, text, strlen(text), flags, y, 200, NULL);
        CHECK(n > 0 && n == m && memcmp(x, y, (size_t)n * sizeof *x) == 0);
    }
    for (int id = 0; id < tokenizer_vocab_size(a); id++) {
        int n = 0, m = 0, llama2c = tokenizer_kind(a) == TOKENIZER_LLAMA2C;
        const char *p = tokenizer_piece(a, id, &n), *q = tokenizer_piece(b, id, &m);
        CHECK(llama2c || (n == m && memcmp(p, q, (size_t)n) == 0));
        if (!tokenizer_byte_level(a) && n == 6 && memcmp(p, "<0x", 3) == 0)
            CHECK(tokenizer_type(b, id) == TOKENIZER_BYTE);
        else if (tokenizer_type(a, id) != TOKENIZER_NORMAL)
            CHECK(tokenizer_type(a, id) == tokenizer_type(b, id));
    }
}

#define VARIANT "build/test_convert.json"

/* llama2.json as newer files are written: the space is put in front by the pre-tokenizer, and only at the start. */
static void test_newer_llama(void) {
    static const char cuts[] =
        "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":"
        "\"\xE2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":false},";
    char *text = test_read_file(in_tokenizers("llama2.json"), NULL);
    char *from = text ? strstr(text, "\"normalizer\"") : NULL;
    char *to = from ? strstr(from, "\"post_processor\"") : NULL, *special;
    tokenizer_error error;
    arguments a;
    CHECK(to != NULL);
    if (!to) return;
    FILE *f = fopen(VARIANT, "wb");
    while ((special = strstr(to, "\"special\":false")) != NULL)
        memcpy(special, "\"special\": true", 15);
    CHECK(f && fprintf(f, "%.*s%s%s", (int)(from - text), text, cuts, to) > 0 && fclose(f) == 0);
    tokenizer *t = tokenizer_open(VARIANT, 0, &error);
    CHECK(t != NULL);
    if (t) make_llama2c(MADE, 8, tokenizer_vocab_size(t), 1);
    memset(&a, 0, sizeof a);
    a.force = 1;
    a.tokenizer = VARIANT;
    CHECK(run(MADE, OUT, NULL, a));
    tokenizer *u = tokenizer_open(OUT, 0, &error);
    CHECK(u != NULL);
    if (t && u) same_tokenizer(t, u);
    tokenizer_close(t);
    tokenizer_close(u);
    remove(VARIANT);
    free(text);
    GROUP("a newer tokenizer.json of Llama");
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size);
    CHECK(f && fclose(f) == 0);
}

/* ---- unigrams ---- */

/* The same tokens of a text of many scripts, as a whole and of each line; skip: not of those that begin with a space. */
static void same_cuts(const tokenizer *a, const tokenizer *b, int skip) {
    size_t size = 0, n_lines = 0, n_same = 0;
    char *text = test_read_file(in_tokenizers("text.txt"), &size), *line = text, *end;
    int whole = text ? compare_tokens(a, b, text, size, TOKENIZER_AUTO) : -1;
    CHECK(whole > 0);
    for (; line && (end = (char *)memchr(line, '\n', size - (size_t)(line - text))) != NULL;
         line = end + 1) {
        if (skip && *line == ' ') continue;
        n_lines++;
        n_same += compare_tokens(a, b, line, (size_t)(end - line), TOKENIZER_AUTO) == 1;
    }
    CHECK(n_lines > 35 && n_same == n_lines);
    free(text);
}

/* Converts a small model with this tokenizer and compares the two; NULL = it is refused. */
static tokenizer *convert_unigram(const char *path, int skip) {
    tokenizer_error error;
    tokenizer *t = tokenizer_open(path, 0, &error), *u = NULL;
    arguments a;
    memset(&a, 0, sizeof a);
    a.force = 1;
    a.tokenizer = path;
    CHECK(t != NULL);
    if (!t) return NULL;
    make_llama2c(MADE, 8, tokenizer_vocab_size(t), 5);
    if (run(MADE, OUT, NULL, a)) {
        u = tokenizer_open(OUT, 0, &error);
        CHECK(u && tokenizer_model(u) == TOKENIZER_UNIGRAM);
        CHECK(u && tokenizer_removes_spaces(t) == tokenizer_removes_spaces(u));
        CHECK(u && tokenizer_unk(t) == tokenizer_unk(u));
    }
    if (u) same_cuts(t, u, skip);
    tokenizer_close(t);
    return u;
}

/* The keys that the gguf package wrote for the same file. */
static void same_unigram_keys(void) {
    model_file *theirs = look(in_tokenizers("spm_unigram.gguf")), *ours = look(OUT);
    model_file_value v, w;
    int n = 0;
    for (size_t i = 0; theirs && ours && model_file_metadata(theirs, i, &v); i++) {
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)v.key.length, v.key.text);
        if (strncmp(key, "tokenizer.", 10) != 0) continue;
        int same = model_file_find(ours, key, &w) && v.type == w.type && v.element == w.element &&
                   v.bytes == w.bytes && memcmp(v.data, w.data, v.bytes) == 0;
        if (!same) fprintf(stderr, "%s differs\n", key);
        CHECK(same);
        n++;
    }
    CHECK(n == 8);
    model_file_close(theirs);
    model_file_close(ours);
}

#define UNIGRAM "build/test_convert.model"

/* SentencePiece's files, and changed ones: what comes last in such a file counts. */
static void test_sentencepiece_unigrams(void) {
    static const struct {
        const char *name, *more;
        size_t size;
        const char *note; /* the last of so many */
        int n_notes;
    } files[] = {
        {"spm_unigram.model", "", 0, "what follows a user-defined token", 1},
        {"spm_unigram_bytes.model", "", 0, "becomes <unk>, not tokens of its bytes", 1},
        /* add_dummy_prefix = 0, remove_extra_whitespaces = 0; a piece that is unused */
        {"spm_unigram_bytes.model", "\x1A\2\x18\0", 4, "a space is put in front of every", 2},
        {"spm_unigram_bytes.model", "\x1A\2\x20\0", 4, "nothing but spaces", 2},
        {"spm_unigram_bytes.model", "\x1A\4\x18\0\x20\0", 6, "not tokens of its bytes", 1},
        {"spm_unigram.model", "\n\14\n\3\xE2\x98\x83\x15\0\0\x80\xBF\x18\5", 14,
         "marked unused are used", 2}};
    static const char unused[] = "\xE2\x98\x83"; /* of the last */
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t size = 0;
        char *data = test_read_file(in_tokenizers(files[i].name), &size);
        FILE *f = fopen(UNIGRAM, "wb");
        CHECK(data && f && fwrite(data, 1, size, f) == size);
        CHECK(f && fwrite(files[i].more, 1, files[i].size, f) == files[i].size && fclose(f) == 0);
        tokenizer *u = convert_unigram(UNIGRAM, 0);
        if (!u) fprintf(stderr, "%s: %s\n", files[i].name, error_text);
        int same = u && count(notes_text, "llama.cpp cuts some text otherwise") == files[i].n_notes;
        same = same && strstr(notes_text, files[i].note) != NULL;
        if (!same)
            fprintf(stderr, "%s: not the notes of case %d: %s\n", files[i].name, (int)i,
                    notes_text);
        CHECK(same);
        if (i == 0) same_unigram_keys();
        int id = u ? tokenizer_find(u, unused, 3) : -1;
        CHECK((id >= 0) == (files[i].size == 14));
        if (id >= 0) /* llama.cpp knows it by its score */
            CHECK(tokenizer_type(u, id) == TOKENIZER_UNUSED && tokenizer_score(u, id) < -9999);
        tokenizer_close(u);
        free(data);
    }
    remove(UNIGRAM);
    GROUP("unigrams of SentencePiece: the same ids, the keys of the gguf package, notes");
}

/* unigram.json with other steps before its model.  Then two cuts of "abc" that are equally good: one in double, the
 * other in float; and text that looks like a byte's token, in a model that has none. */
static void test_json_unigrams(void) {
    static const char space[] =
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\","
        "\"prepend_scheme\":\"%s\",\"split\":true},";
    static const char tie[] = "{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":null,"
                              "\"decoder\":null,\"model\":{\"type\":"
                              "\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"abc\",-100],["
                              "\"a\",-3.25],[\"bc\",-7.05],"
                              "[\"ab\",-5.95],[\"c\",-4.35],[\"<0x0A>\",-5]]}}";
    static const char bytes[] =
        "{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1]]}}";
    static const struct {
        const char *normalizer, *scheme, *wrong; /* NULL = is converted */
    } files[] = {
        {"null", "always", NULL},
        {"null", "never", NULL},
        {"{\"type\":\"NFC\"}", "always", "another way"},
        {"{\"type\":\"NFKC\"}", "always", "another way"},
        {"{\"type\":\"Nmt\"}", "always", "another way"},
        {"{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAAAAAA\"}", "always", NULL},
        {"{\"type\":\"Strip\"}", "always", "another way"}};
    char *text = test_read_file(in_tokenizers("unigram.json"), NULL), cuts[200];
    char *from = text ? strstr(text, "\"normalizer\"") : NULL;
    char *to = from ? strstr(from, "\"post_processor\"") : NULL;
    CHECK(to != NULL);
    for (size_t i = 0; to && i < sizeof files / sizeof *files; i++) {
        FILE *f = fopen(VARIANT, "wb");
        snprintf(cuts, sizeof cuts, space, files[i].scheme);
        CHECK(f && fprintf(f, "%.*s\"normalizer\":%s,%s%s", (int)(from - text), text,
                           files[i].normalizer, cuts, to) > 0);
        CHECK(f && fclose(f) == 0);
        error_text[0] = 0;
        tokenizer *u = convert_unigram(VARIANT, strcmp(files[i].scheme, "always") == 0);
        int same = !u == !!files[i].wrong && (u || strstr(error_text, files[i].wrong));
        if (!same) fprintf(stderr, "unigram, case %d: %s\n", (int)i, error_text);
        CHECK(same && count(notes_text, "llama.cpp") == 1);
        CHECK(strstr(notes_text, "0 and 155 have the same text, '<unk>'") != NULL);
        tokenizer_close(u);
    }
    write_file(VARIANT, tie, sizeof tie - 1);
    tokenizer *u = convert_unigram(VARIANT, 0);
    CHECK(u && count(notes_text, "equally good") == 1 && count(notes_text, "note") == 1);
    tokenizer_close(u);
    write_file(VARIANT, bytes, sizeof bytes - 1);
    u = convert_unigram(VARIANT, 0);
    CHECK(!u && strstr(error_text, "a unigram of bytes") != NULL);
    tokenizer_close(u);
    remove(VARIANT);
    free(text);
    GROUP("unigrams of tokenizer.json");
}

static void test_tokenizers(void) {
    static const struct {
        const char *name, *wrong; /* NULL = is converted */
    } files[] = {{"gpt2.json", NULL},
                 {"llama3.json", NULL},
                 {"qwen2.json", NULL},
                 {"falcon.json", NULL},
                 {"bloom.json", NULL},
                 {"tekken.json", NULL},
                 {"gpt4o.json", NULL},
                 {"starcoder.json", NULL},
                 {"deepseek_v3.json", NULL},
                 {"llama2.json", NULL},
                 {"gemma.json", NULL},
                 {"spm_bpe.model", NULL},
                 {"spm_bpe.gguf", NULL},
                 {"llama3.gguf", NULL},
                 {"han.json", "no name"},
                 {"metaspace.json", "Hello"},
                 {"spm_bpe_nmt.model", "Hello"},
                 {"unigram.json", "Hello"},
                 {"spm_unigram.model", NULL},
                 {"spm_unigram_bytes.model", NULL},
                 {"tiny/tiny_unigram.model", "cuts ''"},
                 {"tiny/tiny_unigram.json", "another way"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        tokenizer_error error;
        arguments a;
        tokenizer *t = tokenizer_open(in_tokenizers(files[i].name), 0, &error), *u;
        CHECK(t != NULL);
        if (!t) continue;
        make_llama2c(MADE, 8, tokenizer_vocab_size(t), (uint32_t)i);
        memset(&a, 0, sizeof a);
        a.tokenizer = in_tokenizers(files[i].name);
        remove(OUT);
        int ok = run(MADE, OUT, NULL, a);
        if (ok != !files[i].wrong) fprintf(stderr, "%s: %s\n", files[i].name, error_text);
        CHECK(ok == !files[i].wrong);
        u = ok ? tokenizer_open(OUT, 0, &error) : NULL;
        int before = test_failed;
        if (u) same_tokenizer(t, u);
        if (test_failed > before) fprintf(stderr, "%s is not the same\n", files[i].name);
        CHECK(ok ? u != NULL
                 : files[i].wrong && strstr(error_text, files[i].wrong) && !is_there(OUT ".part"));
        a.no_tokenizer = 1;
        a.force = 1;
        CHECK(run(MADE, OUT, NULL, a));
        tokenizer_close(t);
        tokenizer_close(u);
    }
    GROUP("tokenizers");
}

static inline void copy_file(const char *from, const char *to) {
    size_t size = 0;
    char *data = test_read_file(from, &size);
    CHECK(data != NULL);
    if (data) write_file(to, data, size);
    free(data);
}

#define DIRECTORY "build/test_convert.d"

/* A directory as on the hub: the tokenizer's files, tokenizer_config.json, config.json, a template. */
static void test_directory(void) {
#if MFI_MMAP
    static const char *const names[] = {
        "/config.json", "/model.safetensors",     "/vocab.json",
        "/merges.txt",  "/tokenizer_config.json", "/chat_template.jinja"};
    static const char merges[] = "#version: 0.2\na b\nab c\n";
    static const char config[] = "{\"bos_token\": {\"content\": \"!\"}, \"add_bos_token\": true}";
    static const char template_text[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    char vocab[2000], path[100];
    size_t n = 0;
    model_file_value v;
    model_file_string s;
    size_t at = 0;
    mkdir(DIRECTORY, 0777);
    copy_file("tests/goldens/llama/config.json", DIRECTORY "/config.json");
    copy_file("tests/goldens/llama/model.safetensors", DIRECTORY "/model.safetensors");
    n += (size_t)snprintf(vocab, sizeof vocab, "{\"ab\": 0, \"abc\": 1");
    for (int i = 2; i < 46; i++) /* one less than the model has */
        n += (size_t)snprintf(vocab + n, sizeof vocab - n, ", \"%c\": %d",
                              i < 6 ? "!abc"[i - 2] : '&' + i, i);
    n += (size_t)snprintf(vocab + n, sizeof vocab - n, "}");
    write_file(DIRECTORY "/vocab.json", vocab, n);
    write_file(DIRECTORY "/merges.txt", merges, sizeof merges - 1);
    write_file(DIRECTORY "/tokenizer_config.json", config, sizeof config - 1);
    write_file(DIRECTORY "/chat_template.jinja", template_text, sizeof template_text - 1);
    CHECK(make(DIRECTORY, OUT, NULL));
    CHECK(key_of(OUT, "tokenizer.ggml.bos_token_id") == 2);
    CHECK(key_of(OUT, "tokenizer.ggml.eos_token_id") == 2); /* config.json's */
    CHECK(key_of(OUT, "tokenizer.ggml.add_bos_token") == 1);
    CHECK(key_of(OUT, "tokenizer.ggml.padding_token_id") == -1);
    model_file *file = look(OUT);
    CHECK(file && model_file_find(file, "tokenizer.chat_template", &v) &&
          model_file_next_string(&v, &at, &s) && s.length == sizeof template_text - 1 &&
          memcmp(s.text, template_text, s.length) == 0);
    at = 0;
    CHECK(file && model_file_find(file, "tokenizer.ggml.pre", &v) &&
          model_file_next_string(&v, &at, &s) && s.length == 5 && memcmp(s.text, "gpt-2", 5) == 0);
    at = 0;
    CHECK(file && model_file_find(file, "tokenizer.ggml.merges", &v) && v.n == 2 &&
          model_file_next_string(&v, &at, &s) && s.length == 3 && memcmp(s.text, "a b", 3) == 0);
    CHECK(file && model_file_find(file, "tokenizer.ggml.tokens", &v) && v.n == 47);
    at = 0;
    CHECK(file && model_file_find(file, "general.name", &v) &&
          model_file_next_string(&v, &at, &s) && s.length == 14);
    model_file_close(file);
    CHECK(make(DIRECTORY "/model.safetensors", OUT, NULL)); /* by its file's name */
    CHECK(key_of(OUT, "tokenizer.ggml.bos_token_id") == 2);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s%s", DIRECTORY, names[i]);
        remove(path);
    }
    remove(DIRECTORY);
    GROUP("a directory: tokens from all its files, the chat template");
#else
    SKIP("no way to make a directory");
#endif
}

/* A kind of note that no golden has: cohere's golden with a head of its own, which is the same numbers once more. */
static void test_own_head(void) {
#if MFI_MMAP
    static const char before[] = "{\"__metadata__\":{\"format\":\"pt\"},";
    static const char head[] =
        "{\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[47,24],\"data_offsets\":[0,4512]},";
    size_t size = 0, cut = sizeof before - 1, more = sizeof head - 1;
    char *weights = test_read_file("tests/goldens/cohere/model.safetensors", &size);
    char *config = test_read_file("tests/goldens/cohere/config.json", NULL);
    char *tied = config ? strstr(config, "\"tie_word_embeddings\": true") : NULL;
    char *made = (char *)calloc(size + more + 8, 1);
    CHECK(weights && tied && made && size > 8 + cut && memcmp(weights + 8, before, cut) == 0);
    if (weights && tied && made) {
        uint64_t length;
        memcpy(&length, weights, 8);
        length += more - cut;
        memcpy(made, &length, 8);
        memcpy(made + 8, head, more);
        memcpy(made + 8 + more, weights + 8 + cut, size - 8 - cut);
        memcpy(tied, "\"tie_word_embeddings\":false", 27);
        mkdir(DIRECTORY, 0777);
        write_file(DIRECTORY "/model.safetensors", made, size + more - cut);
        write_file(DIRECTORY "/config.json", config, strlen(config));
        CHECK(make(DIRECTORY, OUT, NULL) && type_of(OUT, "output.weight") == 0);
        CHECK(count(notes_text, "llama.cpp will refuse") == 1);
        CHECK(strstr(notes_text, "command-r models with a head of its own") != NULL);
    }
    free(weights), free(config), free(made);
    remove(DIRECTORY "/model.safetensors");
    remove(DIRECTORY "/config.json");
    remove(DIRECTORY);
    GROUP("a note when a head is its own and llama.cpp knows none");
#else
    SKIP("no way to make a directory");
#endif
}

/* The model that is in the repository: a text through the file is the text without it. */
static void test_toy(void) {
    static const char toy[] = "examples/toy_lm";
    tokenizer_error error;
    CHECK(make(toy, OUT, NULL));
    tokenizer *t = tokenizer_open(toy, 0, &error), *u = tokenizer_open(OUT, 0, &error);
    CHECK(t && u);
    if (t && u) same_tokenizer(t, u);
    CHECK(type_of(OUT, "token_embd.weight") == 30);
    tokenizer_close(t);
    tokenizer_close(u);
    GROUP("examples/toy_lm, with its tokenizer");
}

/* ---- what llama.cpp computes from the same files ---- */

/* Of each position by itself: how many are llama.cpp's but for the last bits of float sums. */
static int same_positions(const golden *g, const float *logits) {
    static golden one;
    int same = 0;
    for (int p = 0; p < g->n_positions; p++) {
        one.n_positions = 1, one.positions[0] = g->positions[p], one.vocab_size = g->vocab_size;
        one.logits = g->logits + (size_t)p * (size_t)g->vocab_size;
        same += compare(&one, logits).nmse <= 1e-11;
    }
    return same;
}

/* tests/llama_cpp holds llama.cpp's logits (make_llama_goldens.py).  Blocks of 32 meet the same 8-bit activations
 * there, so the logits are the same, until the last bit of a sum turns one of those integers.  K-quants meet blocks of
 * 256 there: ours are to be clearly closer to float32 activations than its own. */
static void check_llama_logits(const char *in, const char *name, const char *type, int same) {
    static golden g;
    transformer_error error;
    CHECK(make(in, OUT, type));
    model_file *file = model_file_open(OUT, NULL, &error);
    CHECK(file != NULL);
    if (!open_golden(&g, "tests/llama_cpp", name) || !file) return;
    size_t n = (size_t)g.n_tokens * (size_t)g.vocab_size;
    float *fast = (float *)calloc(n, sizeof(float)), *exact = (float *)calloc(n, sizeof(float));
    CHECK(run_case(&g, file, 0, 1, fast, NULL) && run_case(&g, file, 1, 1, exact, NULL));
    double apart = compare(&g, fast).nmse, theirs = compare(&g, exact).nmse;
    int equal = same_positions(&g, fast);
    free(g.logits);
    g.logits = exact;
    double ours = compare(&g, fast).nmse;
    CHECK(apart <= 2 * (ours + theirs) && ours <= (same ? 1.5 : 0.75) * theirs);
    CHECK(!same || 2 * equal >= g.n_positions);
    GROUP(
        "%-12s NMSE from llama.cpp %.1e, %d of %d positions the same; 8 bits cost %.1e, there %.1e",
        name, apart, equal, g.n_positions, ours, theirs);
    free(fast), free(exact), free(g.residual);
    model_file_close(file);
}

static void test_llama_logits(void) {
    static const char toy[] = "examples/toy_lm";
    check_llama_logits(toy, "toy_q8_0", "q8_0", 1);
    check_llama_logits(toy, "toy_q4_0", "q4_0", 1);
    check_llama_logits(toy, "toy_q4_k_m", "q4_k_m", 1);
    make_llama2c(MADE, 256, 300, 7);
    check_llama_logits(MADE, "noise_q4_k_m", "q4_k_m", 0);
    check_llama_logits(MADE, "noise_q5_k_m", "q5_k_m", 0);
    check_llama_logits(MADE, "noise_q6_k", "q6_k", 0);
}

/* ---- what may go wrong ---- */

static void test_refusals(void) {
    arguments a;
    size_t size, after;
    memset(&a, 0, sizeof a);
    make_llama2c(MADE, 8, 40, 3);
    FILE *f = fopen(OUT, "wb");
    CHECK(f && fputs("precious", f) >= 0 && fclose(f) == 0);
    CHECK(!run(MADE, OUT, NULL, a) && strstr(error_text, "exists"));
    char *text = test_read_file(OUT, &size);
    CHECK(text && size == 8 && memcmp(text, "precious", 8) == 0);
    free(text);
    a.force = 1;
    CHECK(!run(MADE, OUT, NULL, a) && strstr(error_text, "no GGUF file")); /* not that either */
    text = test_read_file(OUT, &size);
    CHECK(text && size == 8 && memcmp(text, "precious", 8) == 0);
    free(text);
    CHECK(!run(MADE, MADE, NULL, a) && strstr(error_text, "no GGUF file"));
    remove(OUT);
    CHECK(run(MADE, OUT, NULL, a) && run(MADE, OUT, NULL, a));
    CHECK(type_of(OUT, "token_embd.weight") == 0);
    /* what another writer may be at work on, or the file that is read */
    f = fopen(OUT ".part", "wb");
    CHECK(f && fputs("precious", f) >= 0 && fclose(f) == 0);
    CHECK(!run(MADE, OUT, NULL, a) && strstr(error_text, ".part: exists"));
    text = test_read_file(OUT ".part", &size);
    CHECK(text && size == 8 && memcmp(text, "precious", 8) == 0);
    free(text);
    remove(OUT ".part");
    a.no_tokenizer = 1;
    CHECK(!run(OUT, SECOND ".x", NULL, a) && strstr(error_text, "its own tokenizer"));
    a.no_tokenizer = 0;
    /* a failure leaves the old file alone */
    text = test_read_file(OUT, &size);
    CHECK(!run("tests/goldens/gptj", OUT, NULL, a) && !is_there(OUT ".part"));
    free(text);
    text = test_read_file(OUT, &after);
    CHECK(text && size == after);
    free(text);
    CHECK(!run("tests/goldens", SECOND ".x", NULL, a) && !is_there(SECOND ".x"));
    CHECK(!run(MADE, "build/no/such/directory/x.gguf", NULL, a) && strstr(error_text, "written"));
    CHECK(!run(MADE, "", NULL, a));
    /* into a directory: fails when it is to be renamed */
    CHECK(!run(MADE, "tests", NULL, a) && !is_there("tests.part"));
    interrupted = 1;
    CHECK(!run(MADE, OUT, NULL, a) && strstr(error_text, "interrupted") && !is_there(OUT ".part"));
    interrupted = 0;
    /* the file it reads */
    CHECK(run(MADE, SECOND, "f32", a) && run(SECOND, SECOND, "q8_0", a));
    CHECK(type_of(SECOND, "token_embd.weight") == 1); /* 8 is no whole block */
    GROUP("nothing is overwritten, nothing half is left behind");
}

static void test_numbers(void) {
    arguments a;
    float bad = 1e6f;
    memset(&a, 0, sizeof a);
    a.force = 1;
    make_llama2c(MADE, 32, 40, 3);
    FILE *f = fopen(MADE, "r+b");
    CHECK(f && fseek(f, 28 + 4 * (32 * 5 + 7), SEEK_SET) == 0);
    CHECK(f && fwrite(&bad, 4, 1, f) == 1 && fclose(f) == 0);
    CHECK(!run(MADE, OUT, "f16", a) && !is_there(OUT ".part"));
    CHECK(strstr(error_text, "token_embd.weight") && strstr(error_text, "number 7 of row 5"));
    CHECK(run(MADE, OUT, "f32", a));
    GROUP("numbers that a type cannot hold are named");
}

/* A disk that is full, played by a limit to the size of files. */
#if MFI_MMAP
static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}
#endif

static void test_full_disk(void) {
#if MFI_MMAP
    arguments a;
    struct rlimit before;
    memset(&a, 0, sizeof a);
    signal(SIGXFSZ, SIG_IGN);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    for (int size = 8; size <= 256; size *= 32) { /* found out in the end, and on the way */
        make_llama2c(MADE, size, 60, 3);
        remove(SECOND);
        limit_files(1000);
        CHECK(!run(MADE, SECOND, NULL, a) && strstr(error_text, "full"));
        limit_files(before.rlim_cur);
        CHECK(!is_there(SECOND) && !is_there(SECOND ".part"));
    }
    static const uint64_t dims[1] = {4};
    gguf_writer *w = gguf_writer_new_file(SECOND, 1); /* so little that it waits in a buffer */
    gguf_writer_tensor(w, "t", 0, dims, 1, 16);
    gguf_writer_begin(w);
    CHECK(gguf_writer_data(w, "0123456789abcdef", 16) == GGUF_WRITER_OK);
    limit_files(8);
    CHECK(gguf_writer_end(w) == GGUF_WRITER_WRITE && strstr(gguf_writer_error(w), "full"));
    limit_files(before.rlim_cur);
    CHECK(!is_there(SECOND) && !is_there(SECOND ".part"));
    gguf_writer_free(w);
    GROUP("a full disk");
#else
    SKIP("no limits to files here");
#endif
}

/* Every allocation fails once: an error, nothing left, no leak. */
static void starve(const char *in, const char *tokenizer_path, const char *type) {
    arguments a;
    long n = 0, n_fine = 0;
    memset(&a, 0, sizeof a);
    a.force = 1;
    a.tokenizer = tokenizer_path;
    for (int done = 0; !done && n < 5000; n++) {
        remove(OUT);
        allocations = 0;
        fail_at = n + 1;
        int ok = run(in, OUT, type, a);
        done = allocations < fail_at;
        fail_at = 0;
        CHECK(ok == is_there(OUT) && !is_there(OUT ".part"));
        CHECK(ok || error_text[0]);
        n_fine += ok;
        CHECK(allocations_live == 0);
    }
    CHECK(n > 20 && n < 5000);
    CHECK(n_fine == 1 ||
          (n_fine == 2 && !strstr(in, ".gguf"))); /* the header's check is left out */
}

static void test_memory(void) {
    make_llama2c(MADE, 8, 464, 3);
    starve(MADE, "tests/data/tokenizers/gpt2.gguf", "q8_0");
    starve("tests/gguf/llama.gguf", NULL, "f16");
    starve("tests/goldens/phi3_longrope_short", NULL, NULL);
    GROUP("each allocation fails once: an error, no file, no leak");
}

/* ---- gguf_writer.h alone ---- */

typedef struct memory_sink {
    unsigned char data[4096];
    size_t size, limit;
} memory_sink;

static int to_memory(void *user, const void *data, size_t size) {
    memory_sink *m = (memory_sink *)user;
    if (size > m->limit - m->size) return 1;
    memcpy(m->data + m->size, data, size);
    m->size += size;
    return 0;
}

static gguf_writer *start(memory_sink *m, size_t limit) {
    m->size = 0;
    m->limit = limit;
    return gguf_writer_new(to_memory, m);
}

/* One value of each type, and tensors of odd sizes. */
static gguf_writer_status write_everything(gguf_writer *w) {
    static const int64_t least[] = {0, -128, 0, -32768, 0, INT32_MIN, 0, 0, 0, 0, 0, INT64_MIN};
    static const int64_t most[] = {255, 127, 65535, 32767, UINT32_MAX, INT32_MAX,
                                   0,   1,   0,     0,     INT64_MAX,  INT64_MAX};
    static const uint64_t one[1] = {5}, two[2] = {3, 2};
    static const unsigned char data[20] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    char key[32];
    for (int type = 0; type < 12; type++) {
        if (type == GGUF_WRITER_F32 || type == GGUF_WRITER_STRING || type == GGUF_WRITER_ARRAY)
            continue;
        snprintf(key, sizeof key, "least.%d", type);
        gguf_writer_int(w, key, type, least[type]);
        snprintf(key, sizeof key, "most.%d", type);
        gguf_writer_array(w, key, type, 2);
        gguf_writer_int(w, NULL, type, most[type]);
        gguf_writer_int(w, NULL, type, least[type]);
    }
    gguf_writer_alignment(w, 64);
    gguf_writer_float(w, "f32", GGUF_WRITER_F32, 0.1);
    gguf_writer_float(w, "f64", GGUF_WRITER_F64, 0.1);
    gguf_writer_text(w, "text", "");
    gguf_writer_string(w, "zero", "a\0b", 3);
    gguf_writer_array(w, "texts", GGUF_WRITER_STRING, 2);
    gguf_writer_text(w, NULL, "one");
    gguf_writer_text(w, NULL, "two");
    gguf_writer_raw(w, "raw", 3, GGUF_WRITER_ARRAY, GGUF_WRITER_U8, 3, "\1\2\3", 3);
    gguf_writer_array(w, "none", GGUF_WRITER_F64, 0);
    gguf_writer_tensor(w, "b", 24, one, 1, 5);
    gguf_writer_tensor(w, "a", 25, two, 2, 12);
    gguf_writer_begin(w);
    gguf_writer_data(w, data, 2);
    gguf_writer_data(w, data + 2, 3);
    gguf_writer_data(w, data, 12);
    return gguf_writer_end(w);
}

static void check_everything(const memory_sink *m, uint64_t size) {
    model_file_options options;
    transformer_error error;
    model_file_value v;
    model_file_stored_tensor t;
    model_file_string s;
    double d;
    int64_t n;
    size_t at = 0;
    memset(&options, 0, sizeof options);
    options.only_look = 1;
    model_file *f = model_file_open_memory(m->data, m->size, &options, &error);
    CHECK(f != NULL && size == m->size && m->size % 64 == 0);
    if (!f) return;
    CHECK(model_file_find(f, "least.1", &v) && v.type == 1 && model_file_int(&v, 0, &n) &&
          n == -128);
    CHECK(model_file_find(f, "most.2", &v) && v.n == 2 && model_file_int(&v, 0, &n) && n == 65535);
    CHECK(model_file_find(f, "least.11", &v) && model_file_int(&v, 0, &n) && n == INT64_MIN);
    CHECK(model_file_find(f, "most.4", &v) && model_file_int(&v, 0, &n) && n == UINT32_MAX);
    CHECK(model_file_find(f, "f32", &v) && model_file_float(&v, 0, &d) && d == (double)0.1f);
    CHECK(model_file_find(f, "f64", &v) && model_file_float(&v, 0, &d) && d == 0.1);
    CHECK(model_file_find(f, "zero", &v) && model_file_next_string(&v, &at, &s) && s.length == 3);
    at = 0;
    CHECK(model_file_find(f, "texts", &v) && model_file_next_string(&v, &at, &s) &&
          model_file_next_string(&v, &at, &s) && memcmp(s.text, "two", 3) == 0);
    CHECK(model_file_find(f, "raw", &v) && v.n == 3 && v.data[2] == 3);
    CHECK(model_file_find(f, "none", &v) && v.n == 0);
    CHECK(model_file_stored(f, 0, &t) && t.name.text[0] == 'a' && t.dims[0] == 2 && t.dims[1] == 3);
    CHECK(((const unsigned char *)t.data)[9] == 10 &&
          ((size_t)((const unsigned char *)t.data - m->data)) % 64 == 0);
    CHECK(model_file_stored(f, 1, &t) && t.name.text[0] == 'b' && t.bytes == 5);
    model_file_close(f);
}

#define REFUSED(text, call)                                                                        \
    do {                                                                                           \
        gguf_writer *w = start(&m, sizeof m.data);                                                 \
        CHECK(gguf_writer_int(w, "k", GGUF_WRITER_U8, 1) == GGUF_WRITER_OK);                       \
        CHECK((call) == GGUF_WRITER_ARGUMENT && strstr(gguf_writer_error(w), text));               \
        CHECK(gguf_writer_begin(w) == GGUF_WRITER_ARGUMENT && m.size == 0);                        \
        gguf_writer_free(w);                                                                       \
    } while (0)

static void test_writer(void) {
    static memory_sink m;
    static const uint64_t dims[4] = {4, 0, 0, 0};
    gguf_writer *writer = start(&m, sizeof m.data);
    CHECK(write_everything(writer) == GGUF_WRITER_OK && !*gguf_writer_error(writer));
    check_everything(&m, gguf_writer_size(writer));
    gguf_writer_free(writer);
    size_t whole = m.size;
    for (size_t limit = 0; limit < whole; limit++) { /* a sink that fails after any byte */
        writer = start(&m, limit);
        CHECK(write_everything(writer) == GGUF_WRITER_WRITE && *gguf_writer_error(writer));
        gguf_writer_free(writer);
    }
    REFUSED("twice", gguf_writer_text(w, "k", "again"));
    REFUSED("no value", gguf_writer_int(w, "x", GGUF_WRITER_U8, 256));
    REFUSED("no value", gguf_writer_int(w, "x", GGUF_WRITER_BOOL, 2));
    REFUSED("type", gguf_writer_int(w, "x", GGUF_WRITER_F32, 2));
    REFUSED("type", gguf_writer_float(w, "x", GGUF_WRITER_U8, 2));
    REFUSED("without an array", gguf_writer_text(w, NULL, "x"));
    REFUSED("last 1 elements",
            (gguf_writer_array(w, "x", GGUF_WRITER_U8, 1), gguf_writer_text(w, "y", "")));
    REFUSED("another type",
            (gguf_writer_array(w, "x", GGUF_WRITER_U8, 1), gguf_writer_text(w, NULL, "")));
    REFUSED("last elements", (gguf_writer_array(w, "x", GGUF_WRITER_U8, 1), gguf_writer_begin(w)));
    REFUSED("array", gguf_writer_array(w, "x", GGUF_WRITER_ARRAY, 1));
    REFUSED("long", gguf_writer_text(w, "", "x"));
    REFUSED("power of two", gguf_writer_alignment(w, 48));
    REFUSED("1 to 64", gguf_writer_tensor(w, "", 0, dims, 1, 16));
    REFUSED("wrong", gguf_writer_tensor(w, "t", 0, dims, 5, 16));
    REFUSED("wrong", gguf_writer_tensor(w, "t", 0, dims, 1, 0));
    REFUSED("twice", (gguf_writer_tensor(w, "t", 0, dims, 1, 16),
                      gguf_writer_tensor(w, "t", 0, dims, 1, 16)));
    writer = start(&m, sizeof m.data);
    gguf_writer_tensor(writer, "t", 0, dims, 1, 16);
    CHECK(gguf_writer_begin(writer) == GGUF_WRITER_OK);
    CHECK(gguf_writer_data(writer, dims, 12) == GGUF_WRITER_OK);
    CHECK(gguf_writer_end(writer) == GGUF_WRITER_ARGUMENT); /* 4 bytes are missing */
    gguf_writer_free(writer);
    writer = start(&m, sizeof m.data);
    gguf_writer_tensor(writer, "t", 0, dims, 1, 16);
    CHECK(gguf_writer_begin(writer) == GGUF_WRITER_OK);
    CHECK(gguf_writer_data(writer, dims, 17) == GGUF_WRITER_ARGUMENT);
    gguf_writer_free(writer);
    CHECK(gguf_writer_end(NULL) == GGUF_WRITER_ARGUMENT && *gguf_writer_error(NULL));
    gguf_writer_free(NULL);
    GROUP("gguf_writer.h: every type, every refusal, a sink that fails anywhere");
}

int main(void) {
    test_writer();
    CHECK(test_each_line("tests/gguf/index.txt", against_llama, NULL) > 0);
    GROUP("the tensors and keys of llama.cpp's converter");
    test_goldens();
    CHECK(test_each_line("tests/gguf/index.txt", check_copy, NULL) > 0);
    GROUP("GGUF to GGUF: the same file");
    test_split();
    test_types();
    test_mixtures();
    test_tokenizers();
    test_sentencepiece_unigrams();
    test_json_unigrams();
    test_newer_llama();
    test_directory();
    test_own_head();
    test_toy();
    test_llama_logits();
    test_refusals();
    test_numbers();
    test_full_disk();
    test_memory();
    remove(OUT);
    remove(SECOND);
    remove(MADE);
    remove(NOTES);
    return test_finish();
}

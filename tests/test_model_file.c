/* examples/model_file.h against good files and hostile ones.
 *
 * Makes small model files in a temporary directory, opens them, and then spoils them in every way
 * that a damaged or malicious file may be spoilt.  What is asked for is always the same: an error
 * that says where, or a model that works.  Run it under -fsanitize=address,undefined. */
#include "counted_model_file.h"
#include "files.h"
#include "runs.h"

static void check(int ok, const char *what, const char *more) {
    char text[700];
    snprintf(text, sizeof text, "%s: %s", what, more ? more : "");
    test_check(ok, "test_model_file.c", 0, text);
}

/* ---- files ---- */

/* Numbers between -0.5 and 0.5, the same everywhere. */
static float value_of(uint32_t i) {
    i ^= i >> 16;
    i *= 0x85ebca6bu;
    i ^= i >> 13;
    i *= 0xc2b2ae35u;
    i ^= i >> 16;
    return (float)(i >> 8) / 16777216.0f - 0.5f;
}

/* A safetensors file in the making. */
typedef struct st {
    char header[32768];
    unsigned char data[65536];
    size_t n_header, n_data;
} st;

static st file_a, file_b;
static unsigned char image[131072], spoilt[131072 + 16];

static void st_begin(st *s) {
    s->n_header = (size_t)sprintf(s->header, "{\"__metadata__\":{\"format\":\"pt\"}");
    s->n_data = 0;
}

static void st_entry(st *s, const char *name, const char *dtype, const char *shape, long from,
                     long to) {
    char *end = s->header + s->n_header;
    s->n_header +=
        (size_t)sprintf(end, ",\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%ld,%ld]}",
                        name, dtype, shape, from, to);
}

/* rows = 0: a vector.  BF16 keeps the upper half of the float; F16 is something near 0.2. */
static void st_tensor(st *s, const char *name, int rows, int cols, const char *dtype) {
    size_t n = (size_t)(rows ? rows : 1) * (size_t)cols, i, k, start = s->n_data;
    size_t size = strcmp(dtype, "F32") == 0 ? 4 : 2;
    char shape[40];
    for (i = 0; i < n; i++) {
        float v = value_of((uint32_t)(s->n_data / 4 + 7 * strlen(name)));
        uint32_t bits;
        memcpy(&bits, &v, 4);
        if (strcmp(dtype, "F16") == 0) bits = 0x30000000u | (bits & 0x03ff0000u);
        for (k = 0; k < size; k++)
            s->data[s->n_data++] = (unsigned char)(bits >> (8 * (k + 4 - size)));
    }
    if (rows) snprintf(shape, sizeof shape, "[%d, %d]", rows, cols);
    else snprintf(shape, sizeof shape, "[%d]", cols);
    st_entry(s, name, dtype, shape, (long)start, (long)s->n_data);
}

/* The whole file in memory: length, header (padded as the format's own library does), data. */
static size_t st_finish(st *s, unsigned char *out) {
    size_t i, n = s->n_header;
    s->header[n++] = '}';
    while (n % 8 != 0) s->header[n++] = ' ';
    for (i = 0; i < 8; i++) out[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(out + 8, s->header, n);
    memcpy(out + 8 + n, s->data, s->n_data);
    return 8 + n + s->n_data;
}

static void st_write(st *s, const char *name) {
    size_t n = st_finish(s, spoilt);
    write_file(name, spoilt, n);
}

/* ---- a tiny Llama: dim 8, 2 layers, 2 heads, 1 of them with keys, mlp 12, vocabulary 11 ---- */

static const char llama_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":4,"
    "\"intermediate_size\":12,\"vocab_size\":11,\"max_position_embeddings\":32,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
    "\"attention_bias\":false,\"mlp_bias\":false,\"tie_word_embeddings\":false}";

static const struct {
    const char *name;
    int rows, cols;
} llama_tensors[] = {{"model.embed_tokens.weight", 11, 8},
                     {"model.layers.%.input_layernorm.weight", 0, 8},
                     {"model.layers.%.self_attn.q_proj.weight", 8, 8},
                     {"model.layers.%.self_attn.k_proj.weight", 4, 8},
                     {"model.layers.%.self_attn.v_proj.weight", 4, 8},
                     {"model.layers.%.self_attn.o_proj.weight", 8, 8},
                     {"model.layers.%.post_attention_layernorm.weight", 0, 8},
                     {"model.layers.%.mlp.gate_proj.weight", 12, 8},
                     {"model.layers.%.mlp.up_proj.weight", 12, 8},
                     {"model.layers.%.mlp.down_proj.weight", 8, 12},
                     {"model.norm.weight", 0, 8},
                     {"lm_head.weight", 11, 8}};
enum { N_LLAMA = 21, LLAMA_NORM = 19, LLAMA_HEAD = 20 };

/* Tensor i of 21, in the order of the file. */
static void llama_tensor(int i, char *name, int *rows, int *cols) {
    int k = i == 0 ? 0 : i < LLAMA_NORM ? 1 + (i - 1) % 9 : i - 9;
    const char *pattern = llama_tensors[k].name;
    for (; *pattern; pattern++) *name++ = *pattern == '%' ? (char)('0' + (i - 1) / 9) : *pattern;
    *name = 0;
    *rows = llama_tensors[k].rows;
    *cols = llama_tensors[k].cols;
}

/* All tensors but `without`; tensor `odd` in another dtype or shape. */
static void llama_make(const char *dtype, int without, int odd, const char *odd_dtype, int odd_rows,
                       int odd_cols) {
    int i, rows, cols;
    char tensor[80];
    st_begin(&file_a);
    for (i = 0; i < N_LLAMA; i++) {
        llama_tensor(i, tensor, &rows, &cols);
        if (i == odd) st_tensor(&file_a, tensor, rows + odd_rows, cols + odd_cols, odd_dtype);
        else if (i != without) st_tensor(&file_a, tensor, rows, cols, dtype);
    }
}

static void llama_write(const char *dtype, int without, int odd, const char *odd_dtype,
                        int odd_rows, int odd_cols) {
    llama_make(dtype, without, odd, odd_dtype, odd_rows, odd_cols);
    st_write(&file_a, "model.safetensors");
}

/* The good model and one tensor more. */
static void llama_with(const char *name, int rows, int cols) {
    llama_make("F32", -1, -1, "", 0, 0);
    st_tensor(&file_a, name, rows, cols, "F32");
    st_write(&file_a, "model.safetensors");
}

static void llama_good(void) {
    write_text("config.json", llama_config);
    llama_write("F32", -1, -1, "", 0, 0);
}

/* ---- opening ---- */

/* Loads, binds and runs a few tokens; logits (if not NULL) of the last. */
static int works(const char *path, float *logits, transformer_error *error) {
    model_file *file = model_file_open(path, NULL, error);
    int ok = file && runs(file, logits, 0, error);
    model_file_close(file);
    return ok;
}

static void must_work(const char *path, const char *what) {
    transformer_error error;
    int ok = works(path, NULL, &error);
    check(ok, what, error.text);
}

/* Opens a file that may be broken: its sizes must not be believed.  The files here are small. */
static model_file *open_with_little(const char *path, transformer_error *error) {
    size_t before = peak_bytes = live_bytes;
    model_file *file = model_file_open(path, NULL, error);
    check(peak_bytes - before <= 1 << 20, "memory", path);
    return file;
}

/* Must fail, with both words in the error. */
static void must_fail_at(const char *path, const char *what, const char *word, const char *word2) {
    transformer_error error;
    model_file *file = open_with_little(path, &error);
    int ok = !file && error.status != TRANSFORMER_OK && strstr(error.text, word) &&
             strstr(error.text, word2);
    check(ok, what, file ? "was opened" : error.text);
    model_file_close(file);
}
static void must_fail(const char *what, const char *word, const char *word2) {
    must_fail_at(dir, what, word, word2);
}

/* Must fail and say where, or work. */
static void must_survive(const char *path, const char *what) {
    transformer_error error;
    model_file *file = open_with_little(path, &error);
    int opened = file != NULL, ok;
    model_file_close(file);
    ok = opened ? works(path, NULL, &error) : error.status && strchr(error.text, ':');
    check(ok, what, error.text);
}

/* ---- good files ---- */

/* A head that differs from the embedding counts, whatever tie_word_embeddings says. */
static void test_tied_with_other_head(void) {
    transformer_error error;
    model_file *file;
    char config[400];
    size_t at = strlen(llama_config) - strlen("false}");
    llama_good();
    snprintf(config, sizeof config, "%.*strue}", (int)at, llama_config);
    write_text("config.json", config);
    must_work(dir, "tied with another head");
    file = model_file_open(dir, NULL, &error);
    check(file && !model_file_config(file)->tied && model_file_tensor(file, TRANSFORMER_HEAD, 0),
          "another head is used", error.text);
    model_file_close(file);
}

/* A golden model whose config.json has lost a line: what it says then is the family's default. */
static void copy_without(const char *golden, const char *key) {
    char path[200], line[80], *config, *weights, *at;
    size_t config_size = 0, weights_size = 0;
    snprintf(path, sizeof path, "tests/goldens/%s/config.json", golden);
    config = test_read_file(path, &config_size);
    snprintf(path, sizeof path, "tests/goldens/%s/model.safetensors", golden);
    weights = test_read_file(path, &weights_size);
    snprintf(line, sizeof line, "\"%s\": true,", key);
    at = config ? strstr(config, line) : NULL;
    check(at && weights, golden, key);
    if (at) memset(at, ' ', strlen(line));
    if (at) write_file("config.json", config, config_size);
    if (at && weights) write_file("model.safetensors", weights, weights_size);
    free(config), free(weights);
}

static void test_biases_without_a_key(void) {
    copy_without("llama_bias", "attention_bias");
    must_fail("biases that are off by default", "bias", "");
    copy_without("llama_bias", "mlp_bias");
    must_fail("biases that are off by default", "bias", "");
    copy_without("starcoder2", "use_bias");
    must_work(dir, "biases that are on by default");
    copy_without("gpt_neox", "attention_bias");
    must_work(dir, "biases that are on by default");
    llama_good();
}

/* model_file_model: a model, or NULL with the reason, and nothing left behind. */
static void test_model(void) {
    transformer_options options;
    transformer_error error;
    model_file_options look;
    memset(&options, 0, sizeof options);
    memset(&look, 0, sizeof look);
    model_file *file = model_file_open(dir, NULL, &error);
    transformer_model *model = model_file_model(file, &options, &error);
    check(model && transformer_model_ready(model, NULL) == TRANSFORMER_OK, "model", error.text);
    transformer_free(model);
    options.isa = "abacus";
    check(!model_file_model(file, &options, &error) && strstr(error.text, "isa"),
          "options that are wrong", error.text);
    options.isa = NULL;
    model_file_close(file);
    look.only_look = 1;
    file = model_file_open(dir, &look, &error);
    check(file && !model_file_model(file, &options, &error) && strstr(error.text, "only_look"),
          "a file that cannot be bound", error.text);
    model_file_close(file);
    strcpy(error.text, "before");
    check(!model_file_model(NULL, &options, &error) && strcmp(error.text, "before") == 0,
          "no file: the reason stays", error.text);
}

static void test_good(void) {
    static const char *const names[] = {"F32", "F16", "BF16"};
    static const int dtypes[] = {TRANSFORMER_F32, TRANSFORMER_F16, TRANSFORMER_BF16};
    transformer_error error;
    model_file *file;
    const transformer_tensor *t;
    char old[400];
    int i;
    for (i = 0; i < 3; i++) {
        write_text("config.json", llama_config);
        llama_write(names[i], -1, -1, "", 0, 0);
        must_work(dir, names[i]);
        file = model_file_open(dir, NULL, &error);
        t = model_file_tensor(file, TRANSFORMER_MLP_DOWN, 1);
        check(t && t->rows == 8 && t->cols == 12 && t->dtype == dtypes[i], "down", error.text);
        check(file && model_file_get_info(file)->copied_bytes == 0, "all in place", error.text);
        check(file && model_file_get_info(file)->n_tensors == N_LLAMA, "tensors", error.text);
        check(!model_file_tensor(file, TRANSFORMER_Q_BIAS, 0), "no bias", "");
        check(!model_file_tensor(file, TRANSFORMER_Q, 2), "no third layer", "");
        check(model_file_tensor(file, TRANSFORMER_HEAD, 0) != NULL, "the head", "");
        check(!model_file_tensor(file, -1, 0), "no such role", "");
        model_file_close(file);
        test_model();
    }
    llama_good();
    must_work(path_of("model.safetensors"), "by the name of the weights");
    must_work(path_of("config.json"), "by the name of the configuration");
    snprintf(old, sizeof old, "%s", path_of("model.safetensors"));
    rename(old, path_of("other.safetensors"));
    must_work(path_of("other.safetensors"), "weights of another name");
    must_fail("without weights", "model.safetensors", "");
    remove_file("other.safetensors");
    must_fail_at(path_of("nothing"), "no such path", "nothing", "");
    check(!model_file_open(NULL, NULL, NULL), "path NULL", "");
    check(!model_file_open(path_of("nothing"), NULL, NULL), "error NULL", "");
    check(model_file_bind(NULL, NULL, NULL) == TRANSFORMER_ARGUMENT, "bind NULL", "");
    model_file_close(NULL);
    GROUP("a Llama directory");
}

/* Two files and an index of them; `more` goes to the end of the index's list. */
static void shards(const char *more) {
    static char index[4096];
    int i, rows, cols;
    char tensor[80];
    size_t n = (size_t)sprintf(index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    st_begin(&file_a);
    st_begin(&file_b);
    for (i = 0; i < N_LLAMA; i++) {
        llama_tensor(i, tensor, &rows, &cols);
        st_tensor(i < 10 ? &file_a : &file_b, tensor, rows, cols, "F32");
        n += (size_t)sprintf(index + n, "%s\"%s\":\"model-%d-of-2.safetensors\"", i ? "," : "",
                             tensor, i < 10 ? 1 : 2);
    }
    sprintf(index + n, "%s}}", more);
    st_write(&file_a, "model-1-of-2.safetensors");
    st_write(&file_b, "model-2-of-2.safetensors");
    write_text("model.safetensors.index.json", index);
}

static void test_shards(void) {
    static const char *const more[][2] = {
        {",\"more\":\"model-1-of-2.safetensors\"", "'more'"},
        {",\"lm_head.weight\":\"model-1-of-2.safetensors\"", "lm_head"},
        {",\"lm_head.weight\":\"model-2-of-2.safetensors\"", "lists 22"},
        {",\"more\":\"../x.safetensors\"", "../x"},
        {",\"more\":\"/x.safetensors\"", "/x"},
        {",\"more\":\"a\\\\x.safetensors\"", "x"},
        {",\"more\":\"..safetensors\"", "safetensors"},
        {",\"more\":\"x.bin\"", "x.bin"},
        {",\"more\":\"\"", "index.json"},
        {",\"more\":7", "7"},
        {",\"more\":null", "null"},
        {",\"more\":{\"a\":1}", "index.json"},
        {",\"more\":\"model-3-of-2.safetensors\"", "model-3-of-2.safetensors"}};
    size_t i;
    remove_file("model.safetensors");
    shards("");
    must_work(dir, "two shards");
    for (i = 0; i < sizeof more / sizeof *more; i++) {
        shards(more[i][0]);
        must_fail(more[i][0], more[i][1], "");
    }
    shards("");
    st_begin(&file_b);
    st_tensor(&file_b, "model.norm.weight", 0, 8, "F32");
    st_write(&file_b, "model-2-of-2.safetensors");
    must_fail("a shard without its tensors", "index.json", "is not in");
    write_text("model.safetensors.index.json", "{\"metadata\":{}}");
    must_fail("no weight_map", "weight_map", "");
    write_text("model.safetensors.index.json", "{\"weight_map\":[]}");
    must_fail("weight_map of another type", "weight_map", "");
    write_text("model.safetensors.index.json", "{\"weight_map\":{}}");
    must_fail("no files", "index.json", "");
    remove_file("model.safetensors.index.json");
    remove_file("model-1-of-2.safetensors");
    remove_file("model-2-of-2.safetensors");
    GROUP("shards and their index");
}

static float at(const transformer_tensor *t, int r, int c) {
    return t ? ((const float *)t->data)[r * t->cols + c] : -9;
}

static float in_file(size_t start, int i) {
    float v;
    memcpy(&v, file_a.data + start + 4 * (size_t)i, 4);
    return v;
}

/* Adds tensor `name` (rows 0: a vector) and returns where its data begin. */
static size_t add(const char *name, int rows, int cols) {
    size_t start = file_a.n_data;
    st_tensor(&file_a, name, rows, cols, "F32");
    return start;
}

/* GPT-2 stores [in, out]. */
static void test_transposed(void) {
    transformer_error error;
    model_file *file;
    size_t attn, bias, fc;
    int r, c, p, ok;
    write_text("config.json", "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,"
                              "\"n_positions\":16,\"vocab_size\":11}");
    st_begin(&file_a);
    add("wte.weight", 11, 8);
    add("wpe.weight", 16, 8);
    add("h.0.ln_1.weight", 0, 8);
    add("h.0.ln_1.bias", 0, 8);
    add("h.0.attn.bias", 4, 4);
    attn = add("h.0.attn.c_attn.weight", 8, 24);
    bias = add("h.0.attn.c_attn.bias", 0, 24);
    add("h.0.attn.c_proj.weight", 8, 8);
    add("h.0.attn.c_proj.bias", 0, 8);
    add("h.0.ln_2.weight", 0, 8);
    add("h.0.ln_2.bias", 0, 8);
    fc = add("h.0.mlp.c_fc.weight", 8, 32);
    add("h.0.mlp.c_fc.bias", 0, 32);
    add("h.0.mlp.c_proj.weight", 32, 8);
    add("h.0.mlp.c_proj.bias", 0, 8);
    add("ln_f.weight", 0, 8);
    add("ln_f.bias", 0, 8);
    st_write(&file_a, "model.safetensors");
    must_work(dir, "GPT-2");
    file = model_file_open(dir, NULL, &error);
    for (p = 0; p < 3; p++) {
        const transformer_tensor *w = model_file_tensor(file, TRANSFORMER_Q + 2 * p, 0);
        const transformer_tensor *b = model_file_tensor(file, TRANSFORMER_Q_BIAS + 2 * p, 0);
        for (ok = 1, r = 0; r < 8; r++) {
            for (c = 0; c < 8; c++) ok &= at(w, r, c) == in_file(attn, c * 24 + 8 * p + r);
            ok &= at(b, 0, r) == in_file(bias, 8 * p + r);
        }
        check(ok, "GPT-2 q, k, v", error.text);
    }
    for (ok = 1, r = 0; r < 32; r++)
        for (c = 0; c < 8; c++)
            ok &=
                at(model_file_tensor(file, TRANSFORMER_MLP_UP, 0), r, c) == in_file(fc, c * 32 + r);
    check(ok, "GPT-2 c_fc", error.text);
    check(file && model_file_config(file)->tied, "GPT-2 is tied", error.text);
    model_file_close(file);
    GROUP("transposed matrices");
}

/* GPT-NeoX has rows q, k, v of head 0, then of head 1. */
static void test_interleaved(void) {
    transformer_error error;
    model_file *file;
    size_t attn, bias;
    int r, c, p, ok;
    write_text("config.json", "{\"model_type\":\"gpt_neox\",\"hidden_size\":8,"
                              "\"num_hidden_layers\":1,\"num_attention_heads\":2,"
                              "\"intermediate_size\":4,\"rotary_pct\":0.5,\"vocab_size\":11}");
    st_begin(&file_a);
    add("gpt_neox.embed_in.weight", 11, 8);
    add("gpt_neox.layers.0.input_layernorm.weight", 0, 8);
    add("gpt_neox.layers.0.input_layernorm.bias", 0, 8);
    add("gpt_neox.layers.0.post_attention_layernorm.weight", 0, 8);
    add("gpt_neox.layers.0.post_attention_layernorm.bias", 0, 8);
    attn = add("gpt_neox.layers.0.attention.query_key_value.weight", 24, 8);
    bias = add("gpt_neox.layers.0.attention.query_key_value.bias", 0, 24);
    add("gpt_neox.layers.0.attention.dense.weight", 8, 8);
    add("gpt_neox.layers.0.attention.dense.bias", 0, 8);
    add("gpt_neox.layers.0.mlp.dense_h_to_4h.weight", 4, 8);
    add("gpt_neox.layers.0.mlp.dense_h_to_4h.bias", 0, 4);
    add("gpt_neox.layers.0.mlp.dense_4h_to_h.weight", 8, 4);
    add("gpt_neox.layers.0.mlp.dense_4h_to_h.bias", 0, 8);
    add("gpt_neox.final_layer_norm.weight", 0, 8);
    add("gpt_neox.final_layer_norm.bias", 0, 8);
    add("embed_out.weight", 11, 8);
    st_write(&file_a, "model.safetensors");
    must_work(dir, "GPT-NeoX");
    file = model_file_open(dir, NULL, &error);
    for (p = 0; p < 3; p++) {
        const transformer_tensor *w = model_file_tensor(file, TRANSFORMER_Q + 2 * p, 0);
        const transformer_tensor *b = model_file_tensor(file, TRANSFORMER_Q_BIAS + 2 * p, 0);
        for (ok = 1, r = 0; r < 8; r++) {
            int from = r / 4 * 12 + 4 * p + r % 4;
            for (c = 0; c < 8; c++) ok &= at(w, r, c) == in_file(attn, from * 8 + c);
            ok &= at(b, 0, r) == in_file(bias, from);
        }
        check(ok, "GPT-NeoX q, k, v", error.text);
    }
    check(file && !model_file_config(file)->tied, "GPT-NeoX is not tied", error.text);
    check(file && model_file_config(file)->rope[0].dims == 2, "half of it rotates", error.text);
    model_file_close(file);
    GROUP("matrices interleaved by head");
}

/* ---- llama2.c ---- */

enum { L2C_DIM = 8, L2C_FF = 12, L2C_LAYERS = 2, L2C_VOCAB = 11, L2C_CONTEXT = 6 };

static size_t put_int(size_t n, uint32_t v) {
    size_t i;
    for (i = 0; i < 4; i++) image[n + i] = (unsigned char)(v >> (8 * i));
    return n + 4;
}

static size_t put_float(size_t n, float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return put_int(n, bits);
}

/* Tensor `id` of each layer, as floats or as int8 and scales.  All weights are multiples of
 * 1/128, so that both ways hold the same numbers. */
static size_t put_tensor(size_t n, int id, int layers, int count, int quantized) {
    int l, i;
    for (l = 0; l < layers; l++) {
        for (i = 0; i < count; i++) {
            int q = (int)(value_of((uint32_t)(id * 4096 + l * 1024 + i)) * 127);
            if (quantized) image[n++] = (unsigned char)q;
            else n = put_float(n, (float)q / 128);
        }
        for (i = 0; quantized && i < count / 4; i++) n = put_float(n, 1.0f / 128);
    }
    return n;
}

/* Leaves a checkpoint in `image` and returns its size. */
static size_t llama2c(int version, int tied) {
    static const int sizes[7] = {L2C_DIM, L2C_FF, L2C_LAYERS, 2, 1, L2C_VOCAB, L2C_CONTEXT};
    int i, p, q8 = version == 2, n_qo = L2C_DIM * L2C_DIM, n_ff = L2C_DIM * L2C_FF;
    size_t n = 0;
    memset(image, 0, 256);
    if (version) n = put_int(put_int(0, 0x616b3432u), (uint32_t)version);
    for (i = 0; i < 7; i++)
        n = put_int(n, (uint32_t)(i == 5 && !version && !tied ? -sizes[i] : sizes[i]));
    if (version) image[n] = (unsigned char)tied;
    if (q8) put_int(n + 1, 4);
    if (version) {
        n = put_tensor(256, 1, L2C_LAYERS, L2C_DIM, 0);
        n = put_tensor(n, 6, L2C_LAYERS, L2C_DIM, 0);
        n = put_tensor(n, 10, 1, L2C_DIM, 0);
    }
    n = put_tensor(n, 0, 1, L2C_VOCAB * L2C_DIM, q8);
    if (!version) n = put_tensor(n, 1, L2C_LAYERS, L2C_DIM, 0);
    for (i = 2; i < 6; i++)
        n = put_tensor(n, i, L2C_LAYERS, i == 3 || i == 4 ? n_qo / 2 : n_qo, q8);
    if (!version) n = put_tensor(n, 6, L2C_LAYERS, L2C_DIM, 0);
    for (i = 7; i < 10; i++) n = put_tensor(n, i, L2C_LAYERS, n_ff, q8);
    if (!version) {
        n = put_tensor(n, 10, 1, L2C_DIM, 0);
        for (i = 0; i < 2; i++)
            for (p = 0; p < 2 * L2C_CONTEXT; p++) {
                double angle = p % 2 ? p / 2 / 100.0 : p / 2;
                n = put_float(n, (float)(i ? sin(angle) : cos(angle)));
            }
    }
    return tied ? n : put_tensor(n, 11, 1, L2C_VOCAB * L2C_DIM, q8);
}

/* One checkpoint: every other size, every byte of the header changed, each field. */
static void spoil_llama2c(size_t n, const char *what) {
    static const unsigned char values[] = {0, 1, 2, 0x7f, 0x80, 0xff};
    static const uint64_t fields[] = TEST_EXTREMES;
    size_t i, k, size;
    for (i = 0; i <= n; i += i < 300 || i + 9 > n ? 1 : TEST_STEP) { /* i == n: one byte more */
        write_file("m.bin", image, i < n ? i : n + 1);
        must_fail_at(path_of("m.bin"), "another size", "m.bin", "");
    }
    for (i = 0; i < 41; i++)
        for (k = 0; k < sizeof values; k++) {
            memcpy(spoilt, image, n);
            spoilt[i] = values[k];
            write_file("m.bin", spoilt, n);
            must_survive(path_of("m.bin"), what);
        }
    for (i = 0; i < 41; i++) /* the versions have their fields at different addresses */
        for (k = 0; k < 2 * sizeof fields / sizeof *fields; k++) {
            size = k & 1 ? 8 : 4;
            memcpy(spoilt, image, n);
            memcpy(spoilt + i, &fields[k / 2], size);
            write_file("m.bin", spoilt, n);
            must_survive(path_of("m.bin"), what);
        }
}

static void test_llama2c(void) {
    float logits[3][L2C_VOCAB];
    transformer_error error;
    model_file *file;
    int version, tied;
    size_t n;
    for (tied = 0; tied < 2; tied++)
        for (version = 0; version < 3; version++) {
            char what[40];
            snprintf(what, sizeof what, "version %d, tied %d", version, tied);
            n = llama2c(version, tied);
            write_file("m.bin", image, n);
            check(works(path_of("m.bin"), logits[version], &error), what, error.text);
            check(memcmp(logits[0], logits[version], sizeof logits[0]) == 0, "same logits", what);
            file = model_file_open(path_of("m.bin"), NULL, &error);
            check(file && model_file_get_info(file)->dequantized == (version == 2), what, "int8");
            check(file && (model_file_get_info(file)->copied_bytes > 0) == (version == 2), what,
                  "copies");
            model_file_close(file);
            spoil_llama2c(n, what);
        }
    n = llama2c(0, 1);
    put_float(n - 4 * (4 * L2C_CONTEXT - 3), 0.5f);
    write_file("m.bin", image, n);
    must_fail_at(path_of("m.bin"), "another theta", "theta", "");
    write_text("m.bin", "GGUF then a little more than that");
    must_fail_at(path_of("m.bin"), "GGUF", "GGUF", "");
    remove_file("m.bin");
    GROUP("llama2.c checkpoints");
}

/* ---- hostile files ---- */

static void test_truncated(void) {
    size_t i, n, header;
    char what[60];
    llama_good();
    for (i = 0; i < strlen(llama_config); i++) {
        write_file("config.json", llama_config, i);
        snprintf(what, sizeof what, "config.json of %lu bytes", (unsigned long)i);
        must_fail(what, i ? "config.json: " : "", "");
    }
    GROUP("config.json cut short");
    write_text("config.json", llama_config);
    n = st_finish(&file_a, image);
    header = n - file_a.n_data;
    for (i = 0; i < n; i += i < header || i + 9 > n ? 1 : TEST_STEP) {
        write_file("model.safetensors", image, i);
        snprintf(what, sizeof what, "model.safetensors of %lu bytes", (unsigned long)i);
        must_fail(what, "model.safetensors: ", "");
    }
    GROUP("model.safetensors cut short");
}

static void test_header_length(void) {
    static const uint64_t lengths[] = {0,
                                       1,
                                       2,
                                       7,
                                       ~(uint64_t)0,
                                       ((uint64_t)1 << 31) - 1,
                                       (uint64_t)1 << 31,
                                       ((uint64_t)1 << 32) - 1,
                                       (uint64_t)1 << 32,
                                       (uint64_t)1 << 61,
                                       (uint64_t)1 << 63,
                                       ~(uint64_t)0 - 7,
                                       ~(uint64_t)0 - 8};
    size_t i, k, n;
    char what[60];
    llama_good();
    n = st_finish(&file_a, image);
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (k = 0; k < 8; k++) image[k] = (unsigned char)(lengths[i] >> (8 * k));
        write_file("model.safetensors", image, n);
        snprintf(what, sizeof what, "header length %llx", (unsigned long long)lengths[i]);
        must_fail(what, "model.safetensors: header", "");
    }
    write_file("model.safetensors", "{}", 2);
    must_fail("two bytes", "model.safetensors: ", "");
    write_file("model.safetensors", "\2\0\0\0\0\0\0\0[]", 10);
    must_fail("an array", "model.safetensors: header", "");
    write_file("model.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    must_fail("no tensor", "missing", "");
    GROUP("the header's length");
}

/* Each tensor missing, of another shape, of another dtype. */
static void test_tensors(void) {
    int i, rows, cols;
    char tensor[80];
    llama_good();
    for (i = 0; i < N_LLAMA; i++) {
        llama_tensor(i, tensor, &rows, &cols);
        llama_write("F32", i, -1, "", 0, 0);
        must_fail("without a tensor", tensor, "missing");
        llama_write("F32", -1, i, "F32", 0, 1);
        must_fail("a column more", tensor, "expected");
        llama_write("F32", -1, i, "F32", 1, 0);
        must_fail("a row more", tensor, "expected");
        llama_write("F32", -1, i, "F32", cols - rows, rows ? rows - cols : 1);
        if (rows != cols) must_fail("transposed", tensor, "expected");
        llama_write("F32", -1, i, "BF16", 0, 0);
        must_work(dir, "one tensor of another dtype");
    }
    llama_with("model.layers.0.mlp.router.weight", 2, 8);
    must_fail("unknown tensor", "model.layers.0.mlp.router.weight", "");
    llama_with("model.layers.2.mlp.up_proj.weight", 12, 8);
    must_fail("a layer too many", "model.layers.2.mlp.up_proj.weight", "2 layers");
    llama_with("model.layers.99999.mlp.up_proj.weight", 12, 8);
    must_fail("a layer far too many", "model.layers.99999.mlp.up_proj.weight", "");
    llama_with("model.layers.01.mlp.up_proj.weight", 12, 8);
    must_fail("a layer with a zero", "model.layers.01.mlp.up_proj.weight", "");
    llama_with("model.layers.1.self_attn.q_proj.bias", 0, 8);
    must_fail("a bias that the configuration denies", "q_proj.bias", "q_bias");
    llama_with("model.norm.weight", 0, 8);
    must_fail("twice", "model.norm.weight", "twice");
    llama_with("norm.weight", 0, 8);
    must_fail("twice, with another prefix", "norm.weight", "same");
    llama_with("", 0, 8);
    must_fail("no name", "tensor ''", "");
    llama_with(".weight", 0, 8);
    must_fail("hardly a name", "tensor '.weight'", "");
    llama_with("model.layers.0.self_attn.rotary_emb.inv_freq", 0, 2);
    must_work(dir, "a buffer that is known to be useless");
    llama_write("F32", LLAMA_HEAD, -1, "", 0, 0);
    write_text("config.json", "{\"model_type\":\"llama\",\"hidden_size\":8,"
                              "\"num_hidden_layers\":2,\"num_attention_heads\":2,"
                              "\"num_key_value_heads\":1,\"intermediate_size\":12,"
                              "\"vocab_size\":11}");
    must_work(dir, "no head and no word about it: tied");
    GROUP("tensors missing, left over, misshapen");
}

/* A file with nothing but an entry for the last norm. */
static void lone_entry(const char *dtype, const char *shape, const char *place) {
    st_begin(&file_b);
    file_b.n_header +=
        (size_t)sprintf(file_b.header + file_b.n_header,
                        ",\"model.norm.weight\":{\"dtype\":%s,\"shape\":%s,\"data_offsets\":%s}",
                        dtype, shape, place);
    file_b.n_data = 64;
    st_write(&file_b, "model.safetensors");
}

static void test_entries(void) {
    static const char *const dtypes[] = {"I8", "U8", "I64", "F64", "BOOL", "F8_E4M3", "X", "f32"};
    static const char *const bad_dtypes[] = {"\"\"", "7", "null", "[]", "\"F32", "\"F3\\u0032\""};
    static const char *const places[] = {"[0,4]",
                                         "[32,0]",
                                         "[-4,28]",
                                         "[0]",
                                         "[]",
                                         "[0,32,64]",
                                         "[0.0,32]",
                                         "[0,3.2e1]",
                                         "[\"0\",32]",
                                         "[48,80]",
                                         "[99999999,100000031]",
                                         "[9223372036854775776,9223372036854775808]",
                                         "[18446744073709551584,18446744073709551616]",
                                         "[null,null]",
                                         "{}",
                                         "7",
                                         "\"0,32\""};
    static const char *const shapes[] = {"[7]",
                                         "[-8]",
                                         "[8.0]",
                                         "[4611686018427387912]",
                                         "[4294967296,4294967296,8]",
                                         "[4294967296,4294967296,4294967296]",
                                         "[9223372036854775807,2]",
                                         "[18446744073709551624]",
                                         "[1152921504606846977,8]",
                                         "[]",
                                         "[0]",
                                         "[0,4294967296,4294967296,4294967296]",
                                         "[1,1,1,1,1,1,1,1,8]",
                                         "[[8]]",
                                         "\"8\"",
                                         "8",
                                         "{}",
                                         "null"};
    size_t k;
    llama_good();
    for (k = 0; k < sizeof dtypes / sizeof *dtypes; k++) {
        llama_make("F32", LLAMA_HEAD, -1, "", 0, 0);
        st_entry(&file_a, "lm_head.weight", dtypes[k], "[11,8]", 0,
                 strstr(dtypes[k], "64") ? 88 * 8 : 88);
        st_write(&file_a, "model.safetensors");
        must_fail("dtype", "lm_head.weight", dtypes[k]);
    }
    for (k = 0; k < sizeof bad_dtypes / sizeof *bad_dtypes; k++) {
        lone_entry(bad_dtypes[k], "[8]", "[0,32]");
        must_fail(bad_dtypes[k], "model.safetensors: ", "");
    }
    for (k = 0; k < sizeof places / sizeof *places; k++) {
        lone_entry("\"F32\"", "[8]", places[k]);
        must_fail(places[k], "model.norm.weight", "data_offsets");
    }
    for (k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        lone_entry("\"F32\"", shapes[k], "[0,32]");
        must_fail(shapes[k], "model.norm.weight", "shape");
    }
    lone_entry("\"F32\",\"dtype\":\"F32\"", "[8]", "[0,32]");
    must_fail("dtype twice", "model.norm.weight", "dtype");
    st_begin(&file_b);
    file_b.n_header += (size_t)sprintf(file_b.header + file_b.n_header, ",\"a\":7");
    st_write(&file_b, "model.safetensors");
    must_fail("no entry", "tensor 'a'", "");
    GROUP("dtypes, shapes and offsets");
}

/* Replaces the value of a key in the configuration, or adds the key. */
static void with_value(const char *key, const char *value) {
    static char text[2048];
    char quoted[60];
    const char *start, *end;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    start = strstr(llama_config, quoted);
    if (!start) {
        sprintf(text, "{%s%s,%s", quoted, value, llama_config + 1);
    } else {
        start += strlen(quoted);
        end = start + strcspn(start, ",}");
        sprintf(text, "%.*s%s%s", (int)(start - llama_config), llama_config, value, end);
    }
    write_text("config.json", text);
}

static void test_values(void) {
    static const char *const keys[] = {"hidden_size",
                                       "num_hidden_layers",
                                       "num_attention_heads",
                                       "num_key_value_heads",
                                       "head_dim",
                                       "intermediate_size",
                                       "vocab_size",
                                       "max_position_embeddings",
                                       "rms_norm_eps",
                                       "rope_theta",
                                       "hidden_act",
                                       "attention_bias",
                                       "mlp_bias",
                                       "model_type",
                                       "tie_word_embeddings",
                                       "rope_scaling",
                                       "rope_parameters",
                                       "num_experts",
                                       "partial_rotary_factor",
                                       "quantization_config",
                                       "is_encoder_decoder",
                                       "is_causal"};
    static const char *const values[] = {"0",
                                         "-1",
                                         "1",
                                         "3",
                                         "2147483647",
                                         "2147483648",
                                         "4294967297",
                                         "16777216",
                                         "99999999999999999999999",
                                         "1e400",
                                         "-1e400",
                                         "1e-400",
                                         "0.00000000000000000000000000000000000000001e99999999999",
                                         "0.5",
                                         "8.0",
                                         "null",
                                         "true",
                                         "\"x\"",
                                         "\"\"",
                                         "\"\\u0041\"",
                                         "[]",
                                         "{}",
                                         "[1]",
                                         "{\"x\":1}",
                                         "{\"rope_type\":\"yarn\"}",
                                         "{\"rope_type\":\"longrope\"}",
                                         "{\"rope_type\":\"llama3\",\"factor\":8}",
                                         "{\"type\":\"linear\",\"factor\":0}",
                                         "{\"type\":\"dynamic\",\"factor\":2}"};
    char what[120];
    size_t i, k;
    llama_good();
    for (i = 0; i < sizeof keys / sizeof *keys; i++)
        for (k = 0; k < sizeof values / sizeof *values; k++) {
            snprintf(what, sizeof what, "%s = %s", keys[i], values[k]);
            with_value(keys[i], values[k]);
            must_survive(dir, what);
            if (strcmp(values[k], "\"x\"") == 0)
                must_fail(what, strcmp(keys[i], "hidden_act") == 0 ? "'x'" : keys[i], "");
        }
    GROUP("values in config.json");
}

/* The model of a configuration in memory, with the good tensors. */
static model_file *with_config(const char *config, const model_file_options *options,
                               transformer_error *error) {
    llama_make("F32", -1, -1, "", 0, 0);
    size_t n = st_finish(&file_a, image);
    return model_file_open_safetensors(config, strlen(config), image, n, options, error);
}

/* What transformers computes with as it stands, or reads otherwise than one would think. */
static void test_rope_values(void) {
    static const struct {
        const char *more, *error; /* NULL = opens */
        int original, truncate;
    } cases[] = {{"\"original_max_position_embeddings\":16", NULL, 16, 1},
                 {"\"original_max_position_embeddings\":16.0", NULL, 16, 1},
                 {"\"original_max_position_embeddings\":1.6e1", NULL, 16, 1},
                 {"\"original_max_position_embeddings\":16.5", "not an integer: 16.5", 0, 0},
                 {"\"original_max_position_embeddings\":0", "original_max_position", 0, 0},
                 {"\"original_max_position_embeddings\":1e18", "original_max_position", 0, 0},
                 {"\"truncate\":true", NULL, 32, 1},
                 {"\"truncate\":false", NULL, 32, 0},
                 {"\"truncate\":null", NULL, 32, 0},
                 {"\"truncate\":1", "truncate is not true or false", 0, 0}};
    transformer_error error;
    char text[1024];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text,
                 "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.0,%s},%s", cases[i].more,
                 llama_config + 1);
        model_file *file = with_config(text, NULL, &error);
        const transformer_config *c = model_file_config(file);
        if (cases[i].error) check(!file && strstr(error.text, cases[i].error), text, error.text);
        else
            check(file && c->rope[0].original_context == cases[i].original &&
                      c->rope[0].truncate == cases[i].truncate,
                  text, error.text);
        model_file_close(file);
    }
    size_t n_config = 0, n_weights = 0;
    char *config = test_read_file("tests/goldens/olmo3_yarn/config.json", &n_config);
    char *weights = test_read_file("tests/goldens/olmo3_yarn/model.safetensors", &n_weights);
    char *at = config ? strstr(config, "\"rope_parameters\": {") : NULL;
    static char changed[8192];
    check(at && weights, "olmo3_yarn", "is here");
    for (int null = 0; at && weights && null < 2; null++) {
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - config) + 20, config,
                 null ? "\"truncate\": null," : "", at + 20);
        model_file *file =
            model_file_open_safetensors(changed, strlen(changed), weights, n_weights, NULL, &error);
        check(file && model_file_config(file)->rope[0].truncate == !null, "olmo3_yarn", error.text);
        model_file_close(file);
    }
    free(config), free(weights);
    GROUP("values of RoPE scaling");
}

static int same(model_file_string s, const char *text) {
    return s.length == strlen(text) && memcmp(s.text, text, s.length) == 0;
}

/* What can be seen of a file that runs, and of one that does not. */
static void test_looking(void) {
    static const char config[] =
        " {\n \"model_type\" : \"unheard-of\", \"a b\":[1,\n{\"c\":null}] ,\"n\":-1}";
    model_file_options look = {0, 1};
    model_file_value v;
    model_file_part part;
    transformer_error error;
    int64_t i64;
    double d;
    size_t at = 0;
    model_file_string s;
    model_file *file = with_config(config, NULL, &error);
    check(!file && strstr(error.text, "unheard-of"), "model_type", error.text);
    file = with_config(config, &look, &error);
    check(file != NULL, "a family that is not known", error.text);
    const model_file_info *info = model_file_get_info(file);
    CHECK(info->n_metadata == 3 && info->n_stored == N_LLAMA && info->n_files == 1);
    CHECK(strcmp(info->family, "unheard-of") == 0 && strcmp(info->format, "safetensors") == 0);
    CHECK(model_file_metadata(file, 1, &v) && same(v.key, "a b") && v.type == MODEL_FILE_JSON);
    CHECK(v.bytes == strlen("[1,\n{\"c\":null}]") &&
          memcmp(v.data, "[1,\n{\"c\":null}]", v.bytes) == 0);
    CHECK(!model_file_int(&v, 0, &i64) && !model_file_float(&v, 0, &d));
    CHECK(!model_file_next_string(&v, &at, &s) && !model_file_metadata(file, 3, &v));
    CHECK(model_file_find(file, "n", &v) && v.bytes == 2 && memcmp(v.data, "-1", 2) == 0);
    CHECK(!model_file_find(file, "c", &v) && !model_file_find(file, "", &v));
    CHECK(model_file_part_at(file, 0, &part) && part.data == image &&
          strcmp(part.name, "memory") == 0);
    CHECK(!model_file_part_at(file, 1, &part) && !model_file_part_at(file, -1, &part));
    CHECK(!model_file_part_at(NULL, 0, &part) && !model_file_part_at(file, 0, NULL));
    model_file_close(file);
    llama_good();
    GROUP("looking into a family that is not known");
}

static void test_looking_at_types(void) {
    static const struct {
        const char *dtype, *name;
        long bytes;
    } types[] = {{"F8_E4M3FNUZ", "F8_E4M3FNUZ", 8},
                 {"F6_E3M2", "F6_E3M2", 6},
                 {"F4", "F4", 4},
                 {"Z9", "unknown", 7},
                 {"Q8_0", "unknown", 9}};
    model_file_options look = {0, 1};
    model_file_stored_tensor t;
    model_file_value v;
    transformer_error error;
    model_file *file;
    llama_good();
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char quoted[40], place[40];
        snprintf(quoted, sizeof quoted, "\"%s\"", types[i].dtype);
        snprintf(place, sizeof place, "[0,%ld]", types[i].bytes);
        lone_entry(quoted, "[2,4]", place);
        must_fail(quoted, "model.safetensors: tensor", "");
        file = model_file_open(dir, &look, &error);
        check(file && model_file_stored(file, 0, &t) && strcmp(t.type, types[i].name) == 0 &&
                  t.bytes == (size_t)types[i].bytes && t.dtype == -1 && t.gguf_type == -1,
              quoted, error.text);
        model_file_close(file);
    }
    lone_entry("\"F4\"", "[2,4]", "[0,5]"); /* known types have to fit their bytes */
    check(!model_file_open(dir, &look, &error) && strstr(error.text, "takes 4 bytes"), "F4",
          error.text);
    remove_file("config.json");
    must_fail_at(path_of("model.safetensors"), "no config.json", "config.json", "");
    lone_entry("\"F32\"", "[8]", "[0,32]");
    file = model_file_open(path_of("model.safetensors"), &look, &error);
    check(file && model_file_get_info(file)->n_stored == 1, "no config.json", error.text);
    CHECK(file && model_file_get_info(file)->n_metadata == 0 && !model_file_find(file, "n", &v));
    model_file_close(file);
    check(!model_file_open(dir, &look, &error), "no config.json", "but a directory");
    llama_good();
    GROUP("looking into files");
}

static void test_refused(void) {
    static const char *const cases[][3] = {
        /* key, value, words in the error */
        {"model_type", "\"mixtral\"", "mixtral"},
        {"model_type", "\"llama4\"", "llama4"},
        {"model_type", "null", "model_type"},
        {"hidden_act", "\"xielu\"", "xielu"},
        {"rope_scaling", "{\"rope_type\":\"foo\",\"factor\":2}", "rope_scaling.rope_type 'foo'"},
        {"rope_parameters", "{\"rope_type\":\"foo\"}", "rope_parameters.rope_type 'foo'"},
        {"rope_scaling", "{\"type\":\"su\",\"factor\":2}", "'su'"},
        {"rope_scaling", "{\"type\":\"linear\"}", "rope_scaling.factor is missing"},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":\"2\"}", "rope_scaling.factor"},
        {"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}", "low_freq_factor"},
        {"rope_scaling", "7", "rope_scaling"},
        {"rope_parameters", "{\"full_attention\":{}}", "full_attention"},
        {"rope_scaling", "{\"type\":\"longrope\",\"short_factor\":[1,2],\"long_factor\":[1]}",
         "long_factor"},
        {"partial_rotary_factor", "0.5", "partial_rotary_factor"},
        {"num_local_experts", "8", "num_local_experts"},
        {"quantization_config", "{\"bits\":4}", "quantization_config"},
        {"use_bidirectional_attention", "true", "use_bidirectional_attention"},
        {"is_causal", "false", "is_causal"},
        {"attention_chunk_size", "8192", "attention_chunk_size"},
        {"hidden_size", "null", "hidden_size is missing"},
        {"head_dim", "3", "even"},
        {"num_key_value_heads", "3", "n_kv_heads"},
        {"attention_bias", "true", "bias' is missing"},
        {"mlp_bias", "true", "bias' is missing"},
        {"num_hidden_layers", "257", "num_hidden_layers"},
        {"num_hidden_layers", "3", "model.layers.2.input_layernorm.weight' is missing"}};
    static char text[2048];
    size_t i;
    llama_good();
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        with_value(cases[i][0], cases[i][1]);
        must_fail(cases[i][0], cases[i][2], "");
    }
    sprintf(text, "{\"hidden_size\":8,%s", llama_config + 1);
    write_text("config.json", text);
    must_fail("a key twice", "hidden_size is there twice", "");
    GROUP("what is refused, and by which name");
}

static void test_json(void) {
    static const char *const bad[] = {" ",
                                      "{",
                                      "}",
                                      "[",
                                      "nul",
                                      "{}x",
                                      "{,}",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "{\"a\":01}",
                                      "{\"a\":+1}",
                                      "{\"a\":1.}",
                                      "{\"a\":.5}",
                                      "{\"a\":1e}",
                                      "{\"a\":-}",
                                      "{\"a\":0x1}",
                                      "{\"a\":NaN}",
                                      "{\"a\":Infinity}",
                                      "{\"a\":tru}",
                                      "{\"a\":\"\n\"}",
                                      "{\"a\":\"\\x\"}",
                                      "{\"a\":\"\\u12g4\"}",
                                      "{\"a\":\"\\u123",
                                      "{\"a\":\"\\",
                                      "{\"a\":[1,]}",
                                      "{\"a\":[1 2]}",
                                      "{\"a\":[1}}",
                                      "{\"a\":{]}",
                                      "{\"a\":\"\xff\"}",
                                      "{\"a\":\"\xc0\x80\"}",
                                      "{\"a\":\"\xed\xa0\x80\"}",
                                      "{\"a\":\"\xf5\x80\x80\x80\"}",
                                      "{\"a\":\"\xe2\x82\"}",
                                      "{\"a\":\"\xe2\x82",
                                      "{\"a\\u0062\":1}",
                                      "// c\n{}",
                                      "\xef\xbb\xbf{}",
                                      "1",
                                      "\"a\"",
                                      "[]",
                                      "[{}]"};
    static char text[4096];
    size_t i;
    llama_good();
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("config.json", bad[i]);
        must_fail(bad[i], "config.json: ", "");
    }
    memset(text, '[', sizeof text - 1);
    memcpy(text, "{\"a\":", 5);
    write_text("config.json", text);
    must_fail("deep", "deeply", "");
    write_file("config.json", "{\"a\":\"\0\"}", 9);
    must_fail("a zero byte", "config.json: ", "");
    sprintf(text, " \t\r\n%s\n ", llama_config);
    write_text("config.json", text);
    must_work(dir, "space around it");
    sprintf(
        text,
        "{\"\xc3\xa9\":\"\\u00e9\\\"\\\\ \xf0\x9f\x98\x80\",\"x\":[[],{},[{\"y\":[-0.5E+3]}]],%s",
        llama_config + 1);
    write_text("config.json", text);
    must_work(dir, "keys of no interest");
    GROUP("JSON");
}

/* Some bytes changed, half of the time to something that may still be JSON. */
static void damage(unsigned char *text, size_t n, int times, uint32_t *seed, int likely) {
    for (; times > 0; times--) {
        size_t where;
        *seed = *seed * 1664525u + 1013904223u;
        where = (*seed >> 8) % n;
        *seed = *seed * 1664525u + 1013904223u;
        text[where] = likely ? (unsigned char)"0123456789.,:\"{}[]-e"[(*seed >> 8) % 20]
                             : (unsigned char)(*seed >> 24);
    }
}

static void test_random(void) {
    uint32_t seed = 1;
    int i;
    size_t n, header, n_config = sizeof llama_config - 1;
    llama_good();
    for (i = 0; i < 3000; i++) {
        memcpy(spoilt, llama_config, n_config);
        damage(spoilt, n_config, 1 + i % 3, &seed, i & 1);
        write_file("config.json", spoilt, n_config);
        must_survive(dir, "random damage to config.json");
    }
    write_text("config.json", llama_config);
    n = st_finish(&file_a, image);
    header = n - file_a.n_data;
    for (i = 0; i < 3000; i++) {
        memcpy(spoilt, image, n);
        damage(spoilt, header, 1 + i % 3, &seed, i & 1);
        write_file("model.safetensors", spoilt, n);
        must_survive(dir, "random damage to the header");
    }
    GROUP("random damage");
}

/* ---- memory that runs out ---- */

/* Opens a path or, with data, memory; each allocation fails in turn: no model, no leak, and then it opens. */
static void starve(const char *path, const void *config, size_t config_size, const void *data,
                   size_t size, int only_look) {
    transformer_error error;
    model_file_options options = {0, 0};
    model_file *file = NULL;
    long k = 0;
    options.only_look = only_look;
    while (k < 200 && !file) {
        allocations = 0, fail_at = ++k;
        file = data ? model_file_open_safetensors(config, config_size, data, size, &options, &error)
                    : model_file_open(path, &options, &error);
        fail_at = 0;
        if (!file)
            check(error.status == TRANSFORMER_MEMORY && allocations_live == 0, path, error.text);
    }
    check(file && k > 3 && allocations < k, path, "opens at last");
    model_file_close(file);
    check(allocations_live == 0, path, "no leak");
}

/* A model that an index names in its first word. */
static void starve_line(char *line, const void *format) {
    char path[300];
    line[strcspn(line, " ")] = 0;
    snprintf(path, sizeof path, (const char *)format, line);
    if (strncmp(line, "llama2c", 7) == 0)
        snprintf(path, sizeof path, "tests/goldens/%s/model.bin", line);
    starve(path, NULL, 0, NULL, 0, 0);
    starve(path, NULL, 0, NULL, 0, 1);
}

static void test_allocations(void) {
    int n = test_each_line("tests/goldens/index.txt", starve_line, "tests/goldens/%s");
    int n_gguf = test_each_line("tests/gguf/index.txt", starve_line, "tests/gguf/%s.gguf");
    check(n > 100 && n_gguf > 40, "goldens", "are here");
    n += n_gguf;
    shards("");
    remove_file("model.safetensors");
    starve(dir, NULL, 0, NULL, 0, 0);
    starve(dir, NULL, 0, NULL, 0, 1);
    llama_good();
    n_gguf = (int)st_finish(&file_a, image);
    starve("memory", llama_config, sizeof llama_config - 1, image, (size_t)n_gguf, 0);
    remove_file("model.safetensors.index.json");
    remove_file("model-1-of-2.safetensors");
    remove_file("model-2-of-2.safetensors");
    GROUP("every allocation of %d files fails once", n);
}

int main(void) {
    make_dir();
    test_good();
    test_tied_with_other_head();
    test_biases_without_a_key();
    test_shards();
    test_transposed();
    test_interleaved();
    test_llama2c();
    test_truncated();
    test_header_length();
    test_tensors();
    test_entries();
    test_values();
    test_rope_values();
    test_looking();
    test_looking_at_types();
    test_refused();
    test_json();
    test_random();
    test_allocations();
    remove_file("config.json");
    remove_file("model.safetensors");
    rmdir(dir);
    return test_finish();
}

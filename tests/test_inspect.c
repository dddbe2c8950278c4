/* examples/inspect.c: what it says of good files, of files that cannot run and of hostile ones, for people and as JSON,
 * which is checked by a parser of its own. */
#define main inspect_main
#include "../examples/inspect.c"
#undef main
#include "files.h"
#include "gguf_bytes.h"
#include "json.h"

#include <sys/wait.h>

static void check(int ok, const char *what, const char *more) {
    char text[900];
    snprintf(text, sizeof text, "%s: %s", what, more ? more : "");
    test_check(ok, "test_inspect.c", 0, text);
}

/* ---- running it ---- */

typedef struct run {
    int status;
    char *out, *err; /* to be freed */
    size_t n_out, n_err;
} run;

/* In a process of its own, since it exits.  output: where to, or NULL. */
static run run_inspect(const char *model, const char *option, const char *option2,
                       const char *output) {
    char out[400], err[400], *argv[5];
    int argc = 0, status = 0;
    run r;
    memset(&r, 0, sizeof r);
    r.status = -1;
    snprintf(out, sizeof out, "%s", output ? output : path_of("out"));
    snprintf(err, sizeof err, "%s", path_of("err"));
    argv[argc++] = (char *)(uintptr_t) "inspect";
    if (model) argv[argc++] = (char *)(uintptr_t)model;
    if (option) argv[argc++] = (char *)(uintptr_t)option;
    if (option2) argv[argc++] = (char *)(uintptr_t)option2;
    if (!output) unlink(out);
    unlink(err);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen(out, "wb", stdout) || !freopen(err, "wb", stderr)) _exit(9);
        exit(inspect_main(argc, argv));
    }
    if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status))
        r.status = WEXITSTATUS(status);
    r.out = output ? (char *)calloc(1, 1) : test_read_file(out, &r.n_out);
    r.err = test_read_file(err, &r.n_err);
    if (!r.out || !r.err) exit(2);
    return r;
}

static void release(run *r) { free(r->out), free(r->err); }

/* ---- JSON ---- */

static int json_ok(const run *r) {
    const char *end = strlen(r->out) == r->n_out ? json_value(r->out, 0) : NULL;
    return end && *json_blank(end) == '\0';
}

/* No byte that does something to a terminal, all of it UTF-8. */
static int printable(const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        unsigned long c = 0;
        size_t size = read_character((const unsigned char *)text + i, n - i, &c);
        if (size == 0 || (is_unprintable(c) && c != '\n')) return 0;
        i += size;
    }
    return 1;
}

/* Refused with one line on stderr, or good output of either kind.  1 = it was good. */
static int sound(const char *model, const char *option, const char *what) {
    run r = run_inspect(model, option, "--tensors", NULL);
    int ok = r.status == 0;
    int good = ok ? r.n_err == 0 && printable(r.out, r.n_out) && (!option || json_ok(&r))
                  : r.status == 1 && r.n_out == 0 && strncmp(r.err, "error: ", 7) == 0 &&
                        strchr(r.err, '\n') == r.err + r.n_err - 1 && printable(r.err, r.n_err);
    check(good, what, ok ? r.out : r.err);
    release(&r);
    return ok;
}

static void says(const run *r, const char *text) {
    check(strstr(r->out, text) != NULL, text, r->n_out < 700 ? r->out : "is not said");
}

/* ---- good files ---- */

static size_t count(const char *text, const char *word) {
    size_t n = 0;
    for (; (text = strstr(text, word)) != NULL; text++) n++;
    return n;
}

/* Runs, and lists what model_file.h has. */
static void check_model(const char *path) {
    transformer_error error;
    char number[80];
    uint64_t bytes = 0, said = 0;
    model_file_stored_tensor t;
    model_file *file = model_file_open(path, NULL, &error);
    run r = run_inspect(path, "--json", "--tensors", NULL);
    check(file && r.status == 0 && json_ok(&r), path, file ? r.err : error.text);
    if (!file) return;
    const model_file_info *info = model_file_get_info(file);
    const transformer_config *c = model_file_config(file);
    for (size_t i = 0; model_file_stored(file, i, &t); i++) bytes += t.bytes;
    check(strstr(r.out, "\"runs\": true") != NULL, path, "runs");
    snprintf(number, sizeof number, "\"n_layers\": %d,", c->n_layers);
    check(strstr(r.out, number) != NULL, path, number);
    snprintf(number, sizeof number, "\"file_bytes\": %lu,", (unsigned long)info->file_bytes);
    check(strstr(r.out, number) != NULL, path, number);
    const char *tensors = strstr(r.out, "\"tensors\": [");
    size_t n = tensors ? count(tensors, "{\"name\": ") : 0;
    check(n == (info->n_stored ? info->n_stored : info->n_tensors), path, "all tensors");
    for (const char *p = tensors; p && (p = strstr(p, "\"bytes\": ")) != NULL;) {
        p += 9;
        said += strtoull(p, NULL, 10);
    }
    check(info->n_stored == 0 || said == bytes, path, "their bytes");
    release(&r);
    model_file_close(file);
    sound(path, NULL, path);
}

/* A model that an index names in its first word. */
static void check_line(char *line, const void *folder) {
    char path[300];
    line[strcspn(line, " ")] = 0;
    if (strcmp((const char *)folder, "gguf") == 0)
        snprintf(path, sizeof path, "tests/gguf/%s.gguf", line);
    else
        snprintf(path, sizeof path, "tests/goldens/%s%s", line,
                 strncmp(line, "llama2c", 7) == 0 ? "/model.bin" : "");
    check_model(path);
}

/* Offsets: the first value of a tensor of llama2.c and of GGUF lies where it is said to. */
static void check_offset(const char *path, const char *name, float first) {
    char quoted[100];
    run r = run_inspect(path, "--json", "--tensors", NULL);
    size_t n = 0;
    char *bytes = test_read_file(path, &n);
    snprintf(quoted, sizeof quoted, "{\"name\": \"%s\"", name);
    const char *at = strstr(r.out, quoted);
    at = at ? strstr(at, "\"offset\": ") : NULL;
    size_t offset = at ? (size_t)strtoull(at + 10, NULL, 10) : n;
    check(offset > 0 && offset + 4 <= n && memcmp(bytes + offset, &first, 4) == 0, path, name);
    release(&r);
    free(bytes);
}

static void test_offsets(void) {
    transformer_error error;
    model_file_stored_tensor t;
    const char *const paths[] = {"tests/gguf/llama.gguf", "tests/goldens/llama2c_v0/model.bin",
                                 "tests/goldens/llama2c_v1/model.bin"};
    for (size_t i = 0; i < 3; i++) {
        float first = 0;
        char name[80] = "q.1";
        model_file *file = model_file_open(paths[i], NULL, &error);
        check(file != NULL, paths[i], error.text);
        if (!file) continue;
        if (i == 0 && model_file_stored(file, 5, &t)) {
            snprintf(name, sizeof name, "%.*s", (int)t.name.length, t.name.text);
            memcpy(&first, t.data, 4);
        } else {
            memcpy(&first, model_file_tensor(file, TRANSFORMER_Q, 1)->data, 4);
        }
        model_file_close(file);
        check_offset(paths[i], name, first);
    }
    GROUP("offsets");
}

static void test_words(void) {
    run r = run_inspect("examples/toy_lm", NULL, NULL, NULL);
    CHECK(r.status == 0 && r.n_err == 0);
    says(&r, "format                 safetensors\nfamily                 llama\nruns               "
             "    yes\n");
    says(&r, "parameters             927104 (927 k)\n");
    says(&r, "  type           tensors        parameters             bytes\n"
             "  BF16                47            927104           1854208\n");
    says(&r, "  vocab_size           512\n");
    says(&r, "    theta              10000\n");
    says(&r, "  model                SPM\n");
    says(&r, "  architectures = [\"LlamaForCausalLM\"]\n");
    CHECK(strstr(r.out, "model.norm.weight") == NULL);
    release(&r);
    r = run_inspect("examples/toy_lm/model.safetensors", "--json", "--tensors", NULL);
    CHECK(r.status == 0 && json_ok(&r));
    says(&r, "{\"type\": \"BF16\", \"tensors\": 47, \"parameters\": 927104, \"bytes\": 1854208}");
    says(&r, "\"tokenizer\": {\n    \"kind\": \"llama2.c\",");
    says(&r,
         "{\"name\": \"model.norm.weight\", \"type\": \"BF16\", \"shape\": [128], \"bytes\": 256, "
         "\"offset\": 1858960, \"file\": \"model.safetensors\"}");
    says(&r, "\"rope_theta\": 10000.0,");
    release(&r);
    r = run_inspect("tests/gguf/gemma3.gguf", NULL, NULL, NULL);
    says(&r, "      0      4         7      1         4            1        12\n"
             "      5      5       all      0         4            1        12\n"
             "      6      6         7      1         4            1        12\n");
    says(&r, "  tokenizer.ggml.scores = [0, 0, 0, 0, 0, 0, 0, 0] (f32, the first of 47)\n");
    says(&r, "  gemma3.attention.layer_norm_rms_epsilon = 1e-06\n");
    release(&r);
    r = run_inspect("tests/goldens/llama2c_v2/model.bin", "--json", "--tensors", NULL);
    says(&r, "\"offset\": null, \"file\": null}");
    release(&r);
    GROUP("words");
}

/* ---- what cannot run ---- */

static void write_model(void) { write_file("m.gguf", w.bytes, w.n); }

/* Every kind of metadata, with all that a terminal or a parser could choke on. */
static void write_odd(void) {
    const float floats[4] = {(float)INFINITY, -(float)INFINITY, (float)NAN, 0.1f};
    const uint64_t dims[4] = {2, 3, 5, 4};
    begin(3);
    key_string("general.architecture", "of\x1b[2J\"no\\one's");
    key_string("text", "a\nb\t\x1b[31m\x7f \xc2\x9b \xe2\x80\xae \xf3\xa0\x81\x81 \xff\xc0\xaf "
                       "\xed\xa0\x80 \xf0\x9f\x98\x80\\ \"");
    key_string("key\"with\\ \xff\n", "");
    key_int("twice", MODEL_FILE_U8, 1, 1);
    key_int("twice", MODEL_FILE_I8, 255, 1);
    key_int("most", MODEL_FILE_U64, UINT64_MAX, 8);
    key_int("least", MODEL_FILE_I64, (uint64_t)1 << 63, 8);
    key_int("yes", MODEL_FILE_BOOL, 1, 1);
    key_array("floats", MODEL_FILE_F32, 4), put(floats, sizeof floats);
    key_array("none", MODEL_FILE_STRING, 0);
    key_array("strings", MODEL_FILE_STRING, 100);
    for (int i = 0; i < 100; i++) put_string(i == 1 ? "\x1b\"" : "s");
    key_array("most", MODEL_FILE_U64, 9);
    for (int i = 0; i < 9; i++) put_int(UINT64_MAX, 8);
    key_array("nested", MODEL_FILE_ARRAY, 1);
    put_int(MODEL_FILE_STRING, 4), put_int(1, 8), put_string("x");
    key_string("last", "\xf0\x9f\x98");
    tensor("b\x1b\xff", 0, 4, dims, NULL, 480);
    tensor("a", 99, 1, dims, NULL, 2);
    tensor("i", 26, 1, dims, NULL, 8);
    end();
    write_model();
}

static void test_odd(void) {
    char path[400];
    snprintf(path, sizeof path, "%s", path_of("m.gguf"));
    write_odd();
    CHECK(sound(path, NULL, "odd metadata") && sound(path, "--json", "odd metadata"));
    run r = run_inspect(path, NULL, "--tensors", NULL);
    says(&r, "family                 of\\x1b[2J\"no\\\\one's\n");
    says(&r, "runs                   no\n  because              m.gguf: tensor 'a': type number 99 "
             "is not known\n");
    says(&r, "  text = a\\nb\\t\\x1b[31m\\x7f \\u{9b} \\u{202e} \\u{e0041} \\xff\\xc0\\xaf "
             "\\xed\\xa0\\x80 "
             "\xf0\x9f\x98\x80\\\\ \"\n");
    says(&r, "  floats = [Infinity, -Infinity, NaN, 0.1]\n");
    says(&r, "  most = 18446744073709551615\n");
    says(&r, "  strings = [\"s\", \"\\x1b\\\"\", \"s\"");
    says(&r, "  nested = [] (array, the first of 1)\n");
    says(&r, "  last = \\xf0\\x9f\\x98\n");
    says(&r, "unknown (99)");
    release(&r);
    r = run_inspect(path, "--json", "--tensors", NULL);
    says(&r, "\"family\": \"of\\u001b[2J\\\"no\\\\one's\"");
    says(&r, "\"runs\": false,\n  \"reason\": \"m.gguf: ");
    says(&r, "\"text\": \"a\\nb\\t\\u001b[31m\\u007f \\u009b \\u202e \\udb40\\udc41 "
             "\\ufffd\\ufffd\\ufffd "
             "\\ufffd\\ufffd\\ufffd \xf0\x9f\x98\x80\\\\ \\\"\"");
    says(&r, "\"key\\\"with\\\\ \\ufffd\\n\": \"\"");
    says(&r, "\"floats\": [\"Infinity\", \"-Infinity\", \"NaN\", 0.100000001]");
    says(&r, "\"least\": -9223372036854775808");
    says(&r, "\"yes\": true");
    says(&r, "\"none\": []");
    says(&r, "\"strings\": {\"array\": \"string\", \"length\": 100, \"first\": [\"s\", "
             "\"\\u001b\\\"\", \"s\"");
    says(&r, "\"nested\": {\"array\": \"array\", \"length\": 1, \"first\": []}");
    says(&r, "{\"name\": \"a\", \"type\": \"unknown (99)\", \"shape\": [2], \"bytes\": 0,");
    says(&r, "{\"type\": \"I32\", \"tensors\": 1, \"parameters\": 0, \"bytes\": 8}");
    says(&r, "\"parameters\": 120,");
    CHECK(strstr(r.out, "\"config\"") == NULL && strstr(r.out, "\"tokenizer\": null") != NULL);
    release(&r);
    unlink(path);
    GROUP("metadata that is odd, types and architectures that are not known");
}

/* Reads a file, changes a word in it, and writes it to the test's directory. */
static void copy_changed(const char *from, const char *to, const char *word, const char *with) {
    size_t n = 0;
    char *text = test_read_file(from, &n), *at = text ? strstr(text, word) : NULL;
    check(text && (!*word || (at && strlen(word) == strlen(with))), from, word);
    if (at) memcpy(at, with, strlen(with));
    if (text) write_file(to, text, n);
    free(text);
}

static void test_directories(void) {
    char path[400];
    copy_changed("examples/toy_lm/config.json", "config.json", "\"llama\"", "\"mamba\"");
    copy_changed("examples/toy_lm/model.safetensors", "model.safetensors", "", "");
    CHECK(sound(dir, NULL, "another family") && sound(dir, "--json", "another family"));
    run r = run_inspect(dir, NULL, NULL, NULL);
    says(&r, "family                 mamba\nruns                   no\n"
             "  because              config.json: model_type 'mamba' is not supported\n");
    says(&r, "  hidden_size = 128\n");
    release(&r);
    write_text("config.json", "{\"model_type\":\"llama\",\n\t\"a\" : [1 , { \"b\":null } "
                              "],\"c\":\"x\\u001b, y \xc2\x9b\"}");
    r = run_inspect(dir, "--json", NULL, NULL);
    says(&r, "\"a\": [1, {\"b\": null}],\n    \"c\": \"x\\u001b, y \\u009b\"");
    CHECK(json_ok(&r));
    release(&r);
    unlink(path_of("config.json"));
    snprintf(path, sizeof path, "%s", path_of("model.safetensors"));
    CHECK(sound(path, NULL, "weights alone"));
    CHECK(!sound(dir, NULL, "a directory without config.json"));
    unlink(path_of("model.safetensors"));
    GROUP("directories that cannot run");
}

static void test_errors(void) {
    run r = run_inspect("nofile", NULL, NULL, NULL);
    CHECK(
        r.status == 1 &&
        strcmp(
            r.err,
            "error: nofile: neither a directory with config.json nor a file that can be read\n") ==
            0);
    release(&r);
    r = run_inspect("no/such/file", NULL, NULL, NULL);
    CHECK(strcmp(r.err, "error: no/such/file: neither a directory with config.json nor a file that "
                        "can be read\n") == 0);
    release(&r);
    r = run_inspect("README.md", NULL, NULL, NULL);
    CHECK(r.status == 1 && count(r.err, "README.md") == 1);
    release(&r);
    r = run_inspect(NULL, NULL, NULL, NULL);
    CHECK(r.status == 1 && r.n_out == 0 && strncmp(r.err, "usage: inspect MODEL", 20) == 0);
    release(&r);
    r = run_inspect("examples/toy_lm", "--what", NULL, NULL);
    CHECK(r.status == 1 && strcmp(r.err, "error: unknown argument '--what'\n") == 0);
    release(&r);
    FILE *full = fopen("/dev/full", "wb");
    if (full) {
        fclose(full);
        r = run_inspect("examples/toy_lm", "--json", NULL, "/dev/full");
        CHECK(r.status == 1 && strncmp(r.err, "error: cannot write: ", 21) == 0);
        release(&r);
    } else {
        SKIP("/dev/full is not here");
    }
    GROUP("errors");
}

/* ---- damage ---- */

static void damage(const char *from, const char *to, const char *model, size_t most, int times) {
    static uint32_t seed = 7;
    char path[400], what[80];
    size_t n = 0;
    int opened = 0;
    char *good = test_read_file(from, &n), *bad = (char *)malloc(n + 1);
    snprintf(path, sizeof path, "%s", *model ? path_of(model) : dir);
    for (int i = 0; good && bad && i < times; i++) {
        memcpy(bad, good, n);
        for (int k = 0; k < 1 + i % 3; k++) {
            seed = test_hash(seed + 0x9e3779b9u);
            bad[seed % (n < most ? n : most)] = (char)(seed >> 24);
        }
        write_file(to, bad, n);
        snprintf(what, sizeof what, "%s, damage %d", from, i);
        opened += sound(path, i & 1 ? "--json" : NULL, what);
    }
    CHECK(opened > 0 && opened < times);
    free(good), free(bad);
    unlink(path_of(to));
}

static void test_damage(void) {
    write_odd();
    write_file("odd", w.bytes, w.n);
    char odd[400];
    snprintf(odd, sizeof odd, "%s", path_of("odd"));
    damage(odd, "m.gguf", "m.gguf", 1600, 300);
    unlink(odd);
    damage("tests/gguf/llama.gguf", "m.gguf", "m.gguf", 4000, 200);
    copy_changed("tests/goldens/gpt2/model.safetensors", "model.safetensors", "", "");
    damage("tests/goldens/gpt2/config.json", "config.json", "", 4000, 200);
    copy_changed("tests/goldens/gpt2/config.json", "config.json", "", "");
    damage("tests/goldens/gpt2/model.safetensors", "model.safetensors", "", 3000, 200);
    unlink(path_of("config.json"));
    damage("tests/goldens/llama2c_v1/model.bin", "m.bin", "m.bin", 300, 100);
    GROUP("damaged files");
}

int main(void) {
    make_dir();
    test_words();
    test_offsets();
    test_odd();
    test_directories();
    test_errors();
    test_damage();
    int n = test_each_line("tests/goldens/index.txt", check_line, "goldens");
    int n_gguf = test_each_line("tests/gguf/index.txt", check_line, "gguf");
    CHECK(n > 100 && n_gguf > 40);
    GROUP("%d models and %d of GGUF", n, n_gguf);
    remove_file("out");
    remove_file("err");
    rmdir(dir);
    return test_finish();
}

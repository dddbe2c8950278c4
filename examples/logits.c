/* logits.c - the logits of a list of tokens, as raw little-endian float32 on stdout.
 *
 *     cc -O2 -fopenmp examples/logits.c -o build/logits -lm
 *     build/logits MODEL --tokens 1,2,3 > logits.bin
 *
 * For comparing with other implementations: no text, no sampling, nothing else on stdout.
 */
#include "common.h"
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "model_file.h"

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

static const char usage[] =
    "usage: logits MODEL --tokens LIST [options]\n"
    "  --tokens 1,2,3     ids; @FILE reads them from a file, - from stdin (commas or spaces)\n"
    "  --all              logits of every position, not only of the last\n"
    "  --chunk N          feed N tokens per call (default: all in one)\n"
    "  --threads N        threads (with OpenMP)\n"
    "  --isa NAME         use no better instruction set than this (scalar, avx2, ...)\n"
    "  --kv f32|f16       type of the KV cache\n"
    "  --full-precision   float32 activations in every matrix product\n";

typedef struct arguments {
    const char *model, *tokens;
    int all, chunk;
    transformer_options options;
} arguments;

static void parse_arguments(int argc, char **argv, arguments *a) {
    for (int i = 1; i < argc; i++) {
        if (is_option(argv, &i, "--tokens")) a->tokens = option_value(argc, argv, &i);
        else if (is_option(argv, &i, "--all")) a->all = 1;
        else if (is_option(argv, &i, "--chunk"))
            a->chunk = parse_int("--chunk", option_value(argc, argv, &i), 1, INT_MAX);
        else if (argv[i][0] != '-' && a->model == NULL) a->model = argv[i];
        else if (!library_option(argc, argv, &i, &a->options))
            die("unknown argument '%s'", argv[i]);
    }
}

/* ---- the list of tokens ---- */

static char *read_stream(FILE *file, const char *name) {
    size_t size = 0, capacity = 4096;
    char *text = (char *)allocate(capacity, 1);
    while ((size += fread(text + size, 1, capacity - size, file)) == capacity) {
        capacity *= 2;
        text = (char *)realloc(text, capacity);
        if (text == NULL) die("out of memory for %s", name);
    }
    if (ferror(file)) die("cannot read %s", name);
    text[size] = '\0';
    return text;
}

/* Text of the list: the argument itself, or what the file or stdin holds. */
static char *read_list(const char *source) {
    if (strcmp(source, "-") == 0) return read_stream(stdin, "stdin");
    if (source[0] == '@') {
        FILE *file = fopen(source + 1, "rb");
        if (file == NULL) die("%s: %s", source + 1, strerror(errno));
        char *text = read_stream(file, source + 1);
        fclose(file);
        return text;
    }
    size_t size = strlen(source) + 1;
    return (char *)memcpy(allocate(size, 1), source, size);
}

/* Ids separated by commas or white space.  *n = how many. */
static int32_t *parse_tokens(const char *source, int *n) {
    static const char separators[] = ", \t\r\n";
    char *text = read_list(source);
    size_t length = strlen(text);
    int32_t *tokens = (int32_t *)allocate(length / 2 + 1, sizeof *tokens);
    if (length > INT_MAX) die("--tokens: the list is too long");
    *n = 0;
    for (char *word = strtok(text, separators); word; word = strtok(NULL, separators))
        tokens[(*n)++] = parse_int("--tokens", word, 0, INT_MAX);
    free(text);
    if (*n == 0) die("--tokens: the list is empty");
    return tokens;
}

/* ---- output ---- */

static void write_floats(const float *x, size_t n) {
    unsigned char bytes[4096];
    for (size_t done = 0; done < n;) {
        size_t count = n - done < sizeof bytes / 4 ? n - done : sizeof bytes / 4;
        for (size_t i = 0; i < 4 * count; i++) {
            uint32_t bits;
            memcpy(&bits, &x[done + i / 4], 4);
            bytes[i] = (unsigned char)(bits >> 8 * (i % 4));
        }
        if (fwrite(bytes, 4, count, stdout) != count) die("cannot write: %s", strerror(errno));
        done += count;
    }
}

static void print_logits(const arguments *a, const int32_t *tokens, int n) {
    model_file *file;
    transformer_model *model = load_model(a->model, &a->options, &file);
    const transformer_config *config = transformer_model_config(model);
    transformer_options options = a->options;
    if (n > config->context)
        fprintf(stderr, "note: %d tokens are more than the model's context of %d\n", n,
                config->context);
    if (!config->causal) /* every position sees the whole call, which must be one pass */
        options.batch = n;
    transformer_state *state = new_state(model, &options);
    transformer_workspace *work = new_workspace(model, &options);

    int chunk = a->chunk > 0 && a->chunk < n ? a->chunk : n;
    size_t vocab_size = (size_t)config->vocab_size;
    float *logits = (float *)allocate((a->all ? (size_t)chunk : 1) * vocab_size, sizeof *logits);
    for (int at = 0; at < n; at += chunk) {
        transformer_error error;
        transformer_sequence sequence = {0};
        transformer_call call = {0};
        sequence.state = state;
        sequence.tokens = tokens + at;
        sequence.n = chunk < n - at ? chunk : n - at;
        sequence.logits = a->all || at + sequence.n == n ? logits : NULL;
        sequence.logits_rows = a->all ? TRANSFORMER_LOGITS_ALL : TRANSFORMER_LOGITS_LAST;
        call.sequences = &sequence;
        call.n_sequences = 1;
        if (transformer_run(model, work, &call, &error) != TRANSFORMER_OK)
            die("tokens %d to %d: %s", at, at + sequence.n - 1, error.text);
        if (sequence.logits) write_floats(logits, (a->all ? (size_t)sequence.n : 1) * vocab_size);
        if (chunk > n - at) break; /* at + chunk could overflow */
    }
    free(logits);
    transformer_free(work);
    transformer_free(state);
    transformer_free(model);
    model_file_close(file);
}

int main(int argc, char **argv) {
    int n;
    arguments a;
    offer_help(argc, argv, usage);
    memset(&a, 0, sizeof a);
    parse_arguments(argc, argv, &a);
    if (a.model == NULL || a.tokens == NULL) {
        fputs(usage, stderr);
        return 1;
    }
    int32_t *tokens = parse_tokens(a.tokens, &n);
#ifdef _WIN32
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    /* RoPE scalings that depend on the length take that of the whole list, as a single pass in
     * Hugging Face transformers does. */
    a.options.rope_length = n;
    a.options.context = n;
    print_logits(&a, tokens, n);
    free(tokens);
    if (fflush(stdout) != 0) die("cannot write: %s", strerror(errno));
    return 0;
}

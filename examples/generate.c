/* generate.c - writes text: a model, a tokenizer, a sampler and the loop that joins them.
 *
 *     cc -O2 -fopenmp examples/generate.c -o build/generate -lm
 *     build/generate MODEL -p "Once upon a time"
 *
 * The text goes to stdout as it comes, everything else to stderr.
 */
#include "common.h"
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "model_file.h"
#define TOKENIZER_IMPLEMENTATION
#include "tokenizer.h"
#define SAMPLER_IMPLEMENTATION
#include "sampler.h"
#define GRAMMAR_IMPLEMENTATION
#include "grammar.h"
#include "constrain.h"

static const char usage[] =
    "usage: generate MODEL [options]\n"
    "  -p PROMPT          text to go on from (default: none)\n"
    "  -n TOKENS          tokens to generate (default 256; 0 = until the context is "
    "full)\n" SAMPLING_USAGE
    "  --grammar FILE     the new text follows this grammar (grammar.h; json.gbnf is one)\n"
    "  -z, --tokenizer T  a file or directory (default: what MODEL comes with)\n"
    "  --threads N        threads (with OpenMP)\n"
    "  --isa NAME         use no better instruction set than this (scalar, avx2, ...)\n"
    "  --kv f32|f16       type of the KV cache\n"
    "  --full-precision   float32 activations in every matrix product\n";

typedef struct arguments {
    const char *model, *tokenizer, *prompt, *grammar;
    int n;
    sampling sampling;
    transformer_options options;
} arguments;

/* What a running generation needs at every step. */
typedef struct generator {
    model_file *file;
    transformer_model *model;
    transformer_state *state;
    transformer_workspace *work;
    tokenizer *tokenizer;
    tokenizer_stream stream;
    char *text; /* of one token */
    sampler sampler;
    sampler_candidate *scratch;
    float *logits;
    int32_t *tokens; /* [context] the text so far */
    int n_tokens;
    int vocab_size; /* that the model and the tokenizer have */
    constraint constraint;
} generator;

static void parse_arguments(int argc, char **argv, arguments *a) {
    for (int i = 1; i < argc; i++) {
        if (is_option(argv, &i, "-p")) a->prompt = option_value(argc, argv, &i);
        else if (is_option(argv, &i, "-n"))
            a->n = parse_int("-n", option_value(argc, argv, &i), 0, INT_MAX);
        else if (is_option(argv, &i, "-s"))
            a->sampling.options.seed =
                (uint64_t)parse_int("-s", option_value(argc, argv, &i), 0, INT_MAX);
        else if (tokenizer_option(argc, argv, &i, &a->tokenizer)) continue;
        else if (is_option(argv, &i, "--grammar")) a->grammar = option_value(argc, argv, &i);
        else if (argv[i][0] != '-' && a->model == NULL) a->model = argv[i];
        else if (!sampling_option(argc, argv, &i, &a->sampling) &&
                 !library_option(argc, argv, &i, &a->options))
            die("unknown argument '%s'", argv[i]);
    }
}

/* ---- set-up ---- */

/* The tokenizer that the model comes with, unless another is named. */
static tokenizer *load_tokenizer(const arguments *a, int vocab_size) {
    tokenizer_error error;
    const char *name = a->tokenizer ? a->tokenizer : a->model;
    tokenizer *t = tokenizer_open(name, vocab_size, &error);
    if (t == NULL)
        die("tokenizer %s: %s%s", name, error.text, a->tokenizer ? "" : " (-z names another)");
    return t;
}

/* The prompt as tokens, with what the model wants in front.  *n = how many: at least one. */
static int32_t *encode_prompt(const tokenizer *t, const char *prompt, int vocab_size, int *n) {
    tokenizer_error error;
    size_t length = strlen(prompt), capacity = tokenizer_encode_bound(t, length) + 1;
    int32_t *tokens = (int32_t *)allocate(capacity, sizeof *tokens);
    *n = tokenizer_encode(t, prompt, length, TOKENIZER_AUTO, tokens, capacity, &error);
    if (*n < 0) die("%s", error.text);
    if (*n > 0 && tokens[*n - 1] == tokenizer_eos(t) && tokenizer_adds_eos(t))
        --*n; /* the text is to go on */
    if (*n == 0) tokens[(*n)++] = tokenizer_bos(t) >= 0 ? tokenizer_bos(t) : tokenizer_eos(t);
    if (tokens[0] < 0) die("this model needs a prompt: it has no token that begins a text");
    check_tokens(t, vocab_size, tokens, *n);
    return tokens;
}

/* Models of llama2.c end a text with the BOS of the next. */
static int ends_text(const tokenizer *t, int token) {
    return token == tokenizer_bos(t) || tokenizer_is_end(t, token);
}

/* n_prompt tokens and a->n new ones are to fit, as far as the model allows. */
static void set_up_run(generator *g, const arguments *a, int n_prompt) {
    const transformer_config *config = transformer_model_config(g->model);
    transformer_options options = a->options;
    if (n_prompt > config->context)
        die("the prompt has %d tokens, the model's context %d", n_prompt, config->context);
    if (a->n > 0 && a->n < config->context - n_prompt) options.context = n_prompt + a->n;
    size_t vocab_size = (size_t)config->vocab_size;
    g->state = new_state(g->model, &options);
    g->work = new_workspace(g->model, &options);
    g->text = (char *)allocate(tokenizer_decode_bound(g->tokenizer), 1);
    g->logits = (float *)allocate(vocab_size, sizeof *g->logits);
    g->tokens = (int32_t *)allocate((size_t)transformer_state_context(g->state), sizeof *g->tokens);
    g->scratch = (sampler_candidate *)allocate(vocab_size, sizeof *g->scratch);
    if (sampler_init(&g->sampler, &a->sampling.options) != 0) die("impossible sampling options");
    g->vocab_size = tokenizer_vocab_size(g->tokenizer);
    if (config->vocab_size < g->vocab_size) g->vocab_size = config->vocab_size;
    if (a->grammar)
        constraint_load(&g->constraint, a->grammar, g->tokenizer, g->vocab_size,
                        tokenizer_bos(g->tokenizer));
}

static void free_generator(generator *g) {
    constraint_free(&g->constraint);
    free(g->tokens);
    free(g->scratch);
    free(g->logits);
    free(g->text);
    tokenizer_close(g->tokenizer);
    transformer_free(g->work);
    transformer_free(g->state);
    transformer_free(g->model);
    model_file_close(g->file);
}

/* ---- the loop ---- */

static void print_bytes(const char *text, int size) {
    if (size > 0 && (fwrite(text, 1, (size_t)size, stdout) != (size_t)size || fflush(stdout) != 0))
        die("cannot write: %s", strerror(errno));
}

static void print_token(generator *g, int token) {
    print_bytes(g->text, tokenizer_decode(g->tokenizer, &g->stream, token, g->text));
}

static void evaluate(generator *g, const int32_t *tokens, int n, float *logits) {
    int status = (int)transformer_forward(g->model, g->work, g->state, tokens, n, logits);
    if (status != TRANSFORMER_OK) die("forward: %s", transformer_status_text(status));
    memcpy(g->tokens + g->n_tokens, tokens, (size_t)n * sizeof *tokens);
    g->n_tokens += n;
}

/* Evaluates the prompt piece by piece, for a sign of life: the result is the same to the bit. */
static void evaluate_prompt(generator *g, const int32_t *tokens, int n) {
    double start = seconds();
    int piece = 512, shown = 0;
    for (int at = 0; at < n; at += piece) {
        int last = piece >= n - at;
        evaluate(g, tokens + at, last ? n - at : piece, last ? g->logits : NULL);
        if (!last && seconds() - start > 1)
            shown = fprintf(stderr, "\rprompt: %d of %d tokens", at + piece, n);
    }
    if (shown > 0) fprintf(stderr, "\r%*s\r", shown, "");
}

/* Samples and evaluates up to n tokens (0 = no limit), until the text ends or the context is full.
 * Returns how many it sampled. */
static int generate(generator *g, const sampling *choice, int n) {
    int count = 0;
    if (g->constraint.grammar) g->stream.started = 1; /* a space in front is the grammar's */
    while (n == 0 || count < n) {
        constraint_mask(&g->constraint, g->logits);
        int32_t token = choose_token(&g->sampler, choice, g->logits, g->vocab_size, g->tokens,
                                     g->n_tokens, g->scratch);
        if (ends_text(g->tokenizer, token)) break;
        print_token(g, token);
        count++;
        if (constraint_follow(&g->constraint, token) || count == n ||
            transformer_state_position(g->state) == transformer_state_context(g->state))
            break;
        evaluate(g, &token, 1, g->logits);
    }
    print_bytes(g->text, tokenizer_decode_end(&g->stream, g->text));
    return count;
}

static void run(const arguments *a) {
    generator g;
    int n_prompt;
    memset(&g, 0, sizeof g);
    g.model = load_model(a->model, &a->options, &g.file);
    int vocab_size = transformer_model_config(g.model)->vocab_size;
    g.tokenizer = load_tokenizer(a, vocab_size);
    int32_t *prompt = encode_prompt(g.tokenizer, a->prompt, vocab_size, &n_prompt);
    set_up_run(&g, a, n_prompt);

    double start = seconds();
    evaluate_prompt(&g, prompt, n_prompt);
    double prefill = seconds() - start;
    for (int i = 0; i < n_prompt; i++) print_token(&g, prompt[i]);
    start = seconds();
    int count = generate(&g, &a->sampling, a->n);
    double decode = seconds() - start;
    print_bytes("\n", 1);
    if (constraint_is_cut(&g.constraint))
        fprintf(stderr, "the text ends before the grammar does: %s\n",
                count == a->n ? "-n allows no more tokens" : "the context is full");

    fprintf(stderr, "prefill: %d tokens, %.1f/s   decode: %d tokens, %.1f/s   isa: %s", n_prompt,
            n_prompt / prefill, count, count / decode, transformer_isa(g.model));
    if (a->sampling.options.temperature > 0)
        fprintf(stderr, "   seed: %lu", (unsigned long)a->sampling.options.seed);
    fputc('\n', stderr);
    free(prompt);
    free_generator(&g);
}

int main(int argc, char **argv) {
    arguments a;
    offer_help(argc, argv, usage);
    memset(&a, 0, sizeof a);
    a.prompt = "";
    a.n = 256;
    sampling_defaults(&a.sampling);
    parse_arguments(argc, argv, &a);
    if (a.model == NULL) {
        fputs(usage, stderr);
        return 1;
    }
    run(&a);
    return 0;
}

/* chat.c - talks with a model: chat templates, the KV cache kept from turn to turn, Ctrl-C.
 *
 *     cc -O2 -fopenmp examples/chat.c -o build/chat -lm
 *     build/chat MODEL -s "You are a helpful assistant."
 *
 * Each line of stdin is what the user says; the end of the input ends the program.  Answers go to
 * stdout as they come, everything else to stderr.  Ctrl-C stops the answer, not the program.
 *
 * Every turn the whole conversation is rendered and encoded again.  As many tokens as the cache has
 * in common with it are kept, the state is rewound to there, and only the rest is evaluated: right
 * for any template, also those that change earlier turns.
 */
#include "common.h"
#include <signal.h>
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "model_file.h"
#define TOKENIZER_IMPLEMENTATION
#include "tokenizer.h"
#define GRAMMAR_IMPLEMENTATION
#include "grammar.h"
#include "constrain.h"
#define SAMPLER_IMPLEMENTATION
#include "sampler.h"
#define CHAT_IMPLEMENTATION
#include "chat.h"

static const char usage[] =
    "usage: chat MODEL [options]\n"
    "  -s SYSTEM          what the model is told first\n"
    "  -n TOKENS          most tokens of an answer (default 0 = until the context is full)\n"
    "  --ctx N            tokens the conversation can have (default: the model's context)\n"
    "  --template NAME    a template of ours instead of the model's: chatml, llama2, llama3, ...\n"
    "  --fresh            evaluate the whole conversation every turn, as if there were no cache\n"
    "  --set NAME=VALUE   a variable for the template, such as "
    "enable_thinking=false\n" SAMPLING_USAGE
    "  --grammar FILE     every answer follows this grammar (grammar.h; json.gbnf is one)\n"
    "  -z, --tokenizer T  a file or directory (default: what MODEL comes with)\n"
    "  --threads N        threads (with OpenMP)\n"
    "  --isa NAME         use no better instruction set than this (scalar, avx2, ...)\n"
    "  --kv f32|f16       type of the KV cache\n"
    "  --full-precision   float32 activations in every matrix product\n"
    "Each line of the input is a message; its end (Ctrl-D) ends the talk, Ctrl-C only an answer.\n";

enum { MAX_VARIABLES = 16, PIECE = 256 };

typedef struct arguments {
    const char *model, *tokenizer, *system, *template_name, *grammar;
    int n, fresh;
    sampling sampling;
    transformer_options options;
    chat_variable variables[MAX_VARIABLES];
    int n_variables;
} arguments;

typedef struct talker {
    const arguments *arguments;
    model_file *file;
    transformer_model *model;
    transformer_state *state;
    transformer_workspace *work;
    tokenizer *tokenizer;
    chat_template *format;
    sampler sampler;
    sampler_candidate *scratch;
    float *logits;
    char *piece;           /* text of one token */
    int32_t *cached;       /* [context] tokens that the state has seen: as many as its position */
    constraint constraint; /* of an answer */
    int end_of_turn;       /* the token with which the template closes an answer, or -1 */
    size_t longest;        /* bytes of the longest name of a control token */
    char begins[256];      /* can such a name begin with this byte? */
    chat_message *messages;
    int n_messages, capacity;
} talker;

/* Set by Ctrl-C, until the next answer. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    interrupted = 1;
    signal(number, on_interrupt);
}

/* ---- arguments ---- */

static void parse_variable(char *text, arguments *a) {
    char *value = strchr(text, '=');
    if (value == NULL || a->n_variables == MAX_VARIABLES) die("--set: '%s': NAME=VALUE", text);
    *value++ = '\0';
    chat_variable *v = &a->variables[a->n_variables++];
    v->name = text;
    v->truth = strcmp(value, "true") == 0;
    v->text = v->truth || strcmp(value, "false") == 0 ? NULL : value;
}

static void parse_arguments(int argc, char **argv, arguments *a) {
    for (int i = 1; i < argc; i++) {
        if (is_option(argv, &i, "-s")) a->system = option_value(argc, argv, &i);
        else if (is_option(argv, &i, "-n"))
            a->n = parse_int("-n", option_value(argc, argv, &i), 0, INT_MAX);
        else if (is_option(argv, &i, "--ctx"))
            a->options.context = parse_int("--ctx", option_value(argc, argv, &i), 1, INT_MAX);
        else if (is_option(argv, &i, "--template")) a->template_name = option_value(argc, argv, &i);
        else if (is_option(argv, &i, "--fresh")) a->fresh = 1;
        else if (is_option(argv, &i, "--set")) {
            option_value(argc, argv, &i);
            parse_variable(argv[i], a);
        } else if (tokenizer_option(argc, argv, &i, &a->tokenizer)) continue;
        else if (is_option(argv, &i, "--grammar")) a->grammar = option_value(argc, argv, &i);
        else if (argv[i][0] != '-' && a->model == NULL) a->model = argv[i];
        else if (!sampling_option(argc, argv, &i, &a->sampling) &&
                 !library_option(argc, argv, &i, &a->options))
            die("unknown argument '%s'", argv[i]);
    }
}

/* ---- messages ---- */

/* Copies the text. */
static void add_message(talker *c, const char *role, const char *text, size_t size) {
    if (c->n_messages == c->capacity) {
        int capacity = c->capacity ? 2 * c->capacity : 16;
        chat_message *messages = (chat_message *)allocate((size_t)capacity, sizeof *c->messages);
        if (c->n_messages) memcpy(messages, c->messages, (size_t)c->n_messages * sizeof *messages);
        free(c->messages);
        c->messages = messages;
        c->capacity = capacity;
    }
    char *content = (char *)allocate(size, 1);
    memcpy(content, text, size);
    content[size] = '\0';
    c->messages[c->n_messages].role = role;
    c->messages[c->n_messages++].content = content;
}

static void remove_messages(talker *c, int from, int n) {
    for (int i = from; i < from + n; i++) free((void *)(uintptr_t)c->messages[i].content);
    for (int i = from; i + n < c->n_messages; i++) c->messages[i] = c->messages[i + n];
    c->n_messages -= n;
}

/* ---- from messages to tokens ---- */

/* The control token whose name begins at byte `at` and has no byte of a message, or -1; *size is
 * that of its name.  With `any`, names with such bytes count too. */
static int control_token(const talker *c, const chat_text *text, size_t at, int any, size_t *size) {
    size_t most = 0;
    if (!c->begins[(unsigned char)text->text[at]]) return -1;
    while (most < c->longest && at + most < text->size && (any || !text->quoted[at + most])) most++;
    for (*size = most; *size > 0; --*size) {
        int token = tokenizer_find(c->tokenizer, text->text + at, *size);
        if (token >= 0 && tokenizer_type(c->tokenizer, token) == TOKENIZER_CONTROL) return token;
    }
    return -1;
}

/* Is there the name of a control token that is a message's, in whole or in part? */
static int is_hostile(const talker *c, const chat_text *text) {
    size_t size;
    for (size_t at = 0; at < text->size; at++)
        if (control_token(c, text, at, 1, &size) >= 0 && memchr(text->quoted + at, 1, size))
            return 1;
    return 0;
}

/* The bytes from .. to as ordinary text, or with the names of control tokens in it. */
static size_t encode_part(const talker *c, const chat_text *text, size_t from, size_t to, int flags,
                          int32_t *tokens, size_t capacity) {
    tokenizer_error error;
    if (from == to) return 0;
    int n = tokenizer_encode(c->tokenizer, text->text + from, to - from, flags, tokens, capacity,
                             &error);
    if (n < 0) die("%s", error.text);
    return (size_t)n;
}

/* Control tokens by name where the template writes them, never where a message does.  Where no
 * message tries to, the tokenizer does it all.  To be freed. */
static int32_t *encode_text(const talker *c, const chat_text *text, int *n) {
    size_t capacity = tokenizer_encode_bound(c->tokenizer, text->size) + 2 * text->size + 2;
    int32_t *tokens = (int32_t *)allocate(capacity, sizeof *tokens);
    size_t from = 0, at = 0, size = 0, count = 0;
    if (!is_hostile(c, text)) {
        *n = (int)encode_part(c, text, 0, text->size, TOKENIZER_SPECIAL, tokens, capacity);
        return tokens;
    }
    while (at < text->size) {
        int token = control_token(c, text, at, 0, &size);
        if (token < 0) {
            at++;
            continue;
        }
        count += encode_part(c, text, from, at, 0, tokens + count, capacity - count);
        tokens[count++] = token;
        from = at += size;
    }
    count += encode_part(c, text, from, at, 0, tokens + count, capacity - count);
    *n = (int)count;
    return tokens;
}

/* Which tokens are control tokens, for control_token. */
static void find_control_tokens(talker *c) {
    for (int i = 0; i < tokenizer_vocab_size(c->tokenizer); i++) {
        int size = 0;
        const char *piece = tokenizer_piece(c->tokenizer, i, &size);
        if (tokenizer_type(c->tokenizer, i) != TOKENIZER_CONTROL || piece == NULL || size < 1)
            continue;
        c->begins[(unsigned char)piece[0]] = 1;
        if ((size_t)size > c->longest) c->longest = (size_t)size;
    }
}

/* The conversation as text: 0, or -1 if the template refuses it. */
static int render(const talker *c, const chat_message *messages, int n, int open, chat_text *text,
                  chat_error *error) {
    chat_conversation talk;
    time_t now = time(NULL);
    memset(&talk, 0, sizeof talk);
    talk.messages = messages;
    talk.n_messages = n;
    talk.add_generation_prompt = open;
    talk.variables = c->arguments->variables;
    talk.n_variables = c->arguments->n_variables;
    talk.now = localtime(&now);
    return chat_template_render(c->format, &talk, text, error);
}

/* The first control token that the template writes behind an answer, or -1. */
static int find_end_of_turn(const talker *c) {
    const chat_message messages[] = {{"user", "x"}, {"assistant", "y"}};
    chat_text text;
    chat_error error;
    int end = -1;
    size_t size, at;
    if (render(c, messages, 2, 0, &text, &error) != 0) return -1;
    for (at = text.size; at > 0 && !text.quoted[at - 1];) at--;
    for (; end < 0 && at < text.size; at++) end = control_token(c, &text, at, 0, &size);
    chat_text_free(&text);
    return end;
}

/* ---- the model ---- */

/* Rewinds to what the tokens have in common with the cache, then evaluates the rest.  0 if Ctrl-C
 * came in between. */
static int evaluate(talker *c, const int32_t *tokens, int n) {
    int kept = 0, position = transformer_state_position(c->state);
    if (c->arguments->fresh) position = 0;
    check_tokens(c->tokenizer, transformer_model_config(c->model)->vocab_size, tokens, n);
    while (kept < position && kept < n - 1 && c->cached[kept] == tokens[kept]) kept++;
    if (transformer_state_rewind(c->state, kept) != TRANSFORMER_OK) { /* sliding windows */
        kept = 0;
        transformer_state_rewind(c->state, 0);
    }
    for (int at = kept; at < n; at += PIECE) {
        int piece = n - at < PIECE ? n - at : PIECE;
        if (interrupted) return 0;
        int status = (int)transformer_forward(c->model, c->work, c->state, tokens + at, piece,
                                              at + piece == n ? c->logits : NULL);
        if (status != TRANSFORMER_OK) die("forward: %s", transformer_status_text(status));
        memcpy(c->cached + at, tokens + at, (size_t)piece * sizeof *tokens);
    }
    return 1;
}

static void print_bytes(const char *text, size_t size) {
    if (size > 0 && (fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0))
        die("cannot write: %s", strerror(errno));
}

/* Text that grows. */
typedef struct buffer {
    char *text;
    size_t size, capacity;
} buffer;

static void append(buffer *b, const char *text, size_t size) {
    if (b->size + size > b->capacity) {
        size_t capacity = 2 * (b->size + size);
        char *larger = (char *)allocate(capacity, 1);
        if (b->size) memcpy(larger, b->text, b->size);
        free(b->text);
        b->text = larger;
        b->capacity = capacity;
    }
    if (size) memcpy(b->text + b->size, text, size);
    b->size += size;
}

/* Samples until the turn ends; prints the text and leaves it in *answer. */
static void generate(talker *c, buffer *answer) {
    int context = transformer_state_context(c->state);
    int vocab_size = transformer_model_config(c->model)->vocab_size;
    tokenizer_stream stream;
    memset(&stream, 0, sizeof stream);
    if (tokenizer_vocab_size(c->tokenizer) < vocab_size)
        vocab_size = tokenizer_vocab_size(c->tokenizer);
    if (c->constraint.grammar) constraint_start(&c->constraint);
    for (int count = 0; !interrupted && (c->arguments->n == 0 || count < c->arguments->n);
         count++) {
        int position = transformer_state_position(c->state);
        constraint_mask(&c->constraint, c->logits);
        int32_t token = choose_token(&c->sampler, &c->arguments->sampling, c->logits, vocab_size,
                                     c->cached, position, c->scratch);
        if (token == c->end_of_turn || token == tokenizer_bos(c->tokenizer) ||
            tokenizer_is_end(c->tokenizer, token))
            break;
        int size = tokenizer_decode(c->tokenizer, &stream, token, c->piece);
        if (size > 0) print_bytes(c->piece, (size_t)size), append(answer, c->piece, (size_t)size);
        if (constraint_follow(&c->constraint, token)) break;
        if (position == context) {
            fprintf(stderr, "\n[the context of %d tokens is full]", context);
            break;
        }
        int status = (int)transformer_forward(c->model, c->work, c->state, &token, 1, c->logits);
        if (status != TRANSFORMER_OK) die("forward: %s", transformer_status_text(status));
        c->cached[position] = token;
    }
    int size = tokenizer_decode_end(&stream, c->piece);
    if (size > 0) print_bytes(c->piece, (size_t)size), append(answer, c->piece, (size_t)size);
    print_bytes("\n", 1);
    if (interrupted) fprintf(stderr, "[stopped]\n");
    else if (constraint_is_cut(&c->constraint))
        fprintf(stderr, "[the answer ends before the grammar does]\n");
}

/* ---- turns ---- */

/* The tokens of the conversation, once the oldest turns are dropped that leave no room for an
 * answer; NULL if the last message alone does not fit or the template refuses. */
static int32_t *fit(talker *c, int *n) {
    int context = transformer_state_context(c->state), dropped = 0;
    int has_system = c->n_messages > 0 && strcmp(c->messages[0].role, "system") == 0;
    for (;;) {
        chat_text text;
        chat_error error;
        if (render(c, c->messages, c->n_messages, 1, &text, &error) != 0) {
            fprintf(stderr, "[%s]\n", error.text);
            return NULL;
        }
        int32_t *tokens = encode_text(c, &text, n);
        chat_text_free(&text);
        int alone = c->n_messages - has_system < 3, room = alone ? 1 : context / 8 + 1;
        if (*n > 0 && *n <= context - room) {
            if (dropped) fprintf(stderr, "[the oldest %d messages are forgotten]\n", dropped);
            return tokens;
        }
        free(tokens);
        if (alone) {
            fprintf(stderr, "[the message makes %d tokens, the context has only %d]\n", *n,
                    context);
            return NULL;
        }
        remove_messages(c, has_system, 2);
        dropped += 2;
    }
}

static void take_turn(talker *c, const char *line, size_t size) {
    buffer answer;
    int n;
    memset(&answer, 0, sizeof answer);
    add_message(c, "user", line, size);
    interrupted = 0;
    int32_t *tokens = fit(c, &n);
    if (tokens == NULL || !evaluate(c, tokens, n)) {
        remove_messages(c, c->n_messages - 1, 1);
        fprintf(stderr, "[not answered]\n");
    } else {
        generate(c, &answer);
        add_message(c, "assistant", answer.text ? answer.text : "", answer.size);
    }
    free(tokens);
    free(answer.text);
}

/* One line of stdin without its end; 0 at the end of the input. */
static int read_line(buffer *line) {
    int c;
    line->size = 0;
    while ((c = getchar()) != EOF && c != '\n') {
        char byte = (char)c;
        if (c != '\0') append(line, &byte, 1);
    }
    if (line->size > 0 && line->text[line->size - 1] == '\r') line->size--;
    return c != EOF || line->size > 0;
}

/* ---- set-up ---- */

/* The text of a token in a string to be freed, or NULL if there is no such token. */
static char *token_text(const tokenizer *t, int token) {
    int size = 0;
    const char *piece = token < 0 ? NULL : tokenizer_piece(t, token, &size);
    if (piece == NULL) return NULL;
    char *text = (char *)allocate((size_t)size, 1);
    memcpy(text, piece, (size_t)size);
    text[size] = '\0';
    return text;
}

static chat_template *load_template(const arguments *a, const tokenizer *t) {
    chat_error error;
    chat_template *format = a->template_name ? chat_template_named(a->template_name, &error)
                                             : chat_template_load(a->model, &error);
    if (format == NULL) {
        fprintf(stderr, "templates for --template:");
        for (int i = 0; chat_template_name(i); i++) fprintf(stderr, " %s", chat_template_name(i));
        fprintf(stderr, "\n");
        die("%s", error.text);
    }
    if (a->template_name) { /* with the tokens as this tokenizer spells them */
        char *bos = token_text(t, tokenizer_bos(t)), *eos = token_text(t, tokenizer_eos(t));
        if (chat_template_set_tokens(format, bos, eos) != 0) die("out of memory");
        free(bos);
        free(eos);
    }
    return format;
}

static void set_up(talker *c, const arguments *a) {
    tokenizer_error error;
    memset(c, 0, sizeof *c);
    c->arguments = a;
    c->model = load_model(a->model, &a->options, &c->file);
    const transformer_config *config = transformer_model_config(c->model);
    const char *name = a->tokenizer ? a->tokenizer : a->model;
    c->tokenizer = tokenizer_open(name, config->vocab_size, &error);
    if (c->tokenizer == NULL) die("tokenizer %s: %s", name, error.text);
    c->format = load_template(a, c->tokenizer);
    c->state = new_state(c->model, &a->options);
    c->work = new_workspace(c->model, &a->options);
    size_t vocab_size = (size_t)config->vocab_size;
    c->logits = (float *)allocate(vocab_size, sizeof *c->logits);
    c->scratch = (sampler_candidate *)allocate(vocab_size, sizeof *c->scratch);
    c->piece = (char *)allocate(tokenizer_decode_bound(c->tokenizer), 1);
    c->cached = (int32_t *)allocate((size_t)transformer_state_context(c->state), sizeof *c->cached);
    find_control_tokens(c);
    c->end_of_turn = find_end_of_turn(c);
    if (a->grammar) {
        int n = tokenizer_vocab_size(c->tokenizer);
        n = n < config->vocab_size ? n : config->vocab_size;
        constraint_load(&c->constraint, a->grammar, c->tokenizer, n, c->end_of_turn);
    }
    if (sampler_init(&c->sampler, &a->sampling.options) != 0) die("impossible sampling options");
    if (a->system) add_message(c, "system", a->system, strlen(a->system));
}

static void tear_down(talker *c) {
    remove_messages(c, 0, c->n_messages);
    constraint_free(&c->constraint);
    free(c->messages);
    free(c->cached);
    free(c->piece);
    free(c->scratch);
    free(c->logits);
    transformer_free(c->work);
    transformer_free(c->state);
    transformer_free(c->model);
    chat_template_close(c->format);
    tokenizer_close(c->tokenizer);
    model_file_close(c->file);
}

int main(int argc, char **argv) {
    arguments a;
    talker c;
    buffer line;
    offer_help(argc, argv, usage);
    memset(&a, 0, sizeof a);
    memset(&line, 0, sizeof line);
    sampling_defaults(&a.sampling);
    parse_arguments(argc, argv, &a);
    if (a.model == NULL) {
        fputs(usage, stderr);
        return 1;
    }
    set_up(&c, &a);
    signal(SIGINT, on_interrupt);
    while (fputs("> ", stderr), read_line(&line))
        if (line.size > 0) take_turn(&c, line.text, line.size);
    fputc('\n', stderr);
    free(line.text);
    tear_down(&c);
    return 0;
}

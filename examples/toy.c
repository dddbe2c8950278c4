/* toy.c - a transformer built by hand: two attention heads that continue any repeated pattern.
 *
 *     cc -O2 examples/toy.c -o build/toy -lm && build/toy
 *
 * Language models grow "induction heads" while they are trained: circuits that look for an earlier
 * occurrence of the present symbol and predict what came after it (Elhage et al. 2021, "A
 * Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, "In-context Learning and
 * Induction Heads").  Here nobody trains anything.  We write the weights, all of them 0 or 1, and
 * run them with the same transformer.h that runs trained models.
 *
 * Two layers of attention only (no MLP, no norm), one head each.  The RESIDUAL STREAM of each
 * position is a vector that every part reads and adds to.  Ours has four subspaces side by side,
 * and in each a symbol or a position is one-hot, a single 1 among zeros:
 *
 *            +----------------+----------------+----------------+--------------------------+
 *            | CURRENT    [V] | PREVIOUS   [V] | NEXT       [V] | POSITION             [C] |
 *            +----------------+----------------+----------------+--------------------------+
 *  written   | embedding      | layer 0        | layer 1        | position embedding       |
 *  read by   | both layers    | layer 1        | the head       | layer 0                  |
 *            +----------------+----------------+----------------+--------------------------+
 *
 * Layer 0, the PREVIOUS-TOKEN HEAD: position i attends to position i - 1 and copies its symbol.
 *         query: POSITION, shifted by one (i asks for i - 1)     key: POSITION
 *         value: CURRENT                                          output: into PREVIOUS
 * Layer 1, the INDUCTION HEAD: attends to where PREVIOUS is what is CURRENT here, and copies.
 *         query: CURRENT                                          key: PREVIOUS
 *         value: CURRENT                                          output: into NEXT
 *
 *      position     0     1     2     3     4
 *      CURRENT      |     c     a     t     c        At position 4 the induction head asks: where
 *      PREVIOUS     |     |     c     a     t        is PREVIOUS = c?  At position 2.  What is
 *      NEXT         .     .     .     .     a        CURRENT there?  An a.  So a comes next.
 *
 * The score of a match is 1 times SHARPNESS, of anything else 0, so that the softmax gives all its
 * weight to the matches.
 */
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char alphabet[] = "|abcdefghijklmnopqrstuvwxyz"; /* '|' begins every text */

enum {
    V = sizeof alphabet - 1, /* symbols */
    C = 64,                  /* positions */

    /* where the subspaces begin */
    CURRENT = 0,
    PREVIOUS = CURRENT + V,
    NEXT = PREVIOUS + V,
    POSITION = NEXT + V,
    DIM = POSITION + C,

    HEAD_DIM = C, /* of queries and keys: room for a position or a symbol */
    SHARPNESS = 100
};

static void die(const char *text) {
    fprintf(stderr, "error: %s\n", text);
    exit(1);
}

/* ---- the model ---- */

static void describe(transformer_config *config) {
    transformer_config_defaults(config);
    config->dim = DIM;
    config->n_layers = 2;
    config->n_heads = 1;
    config->head_dim = HEAD_DIM;
    config->value_dim = V;
    config->vocab_size = V;
    config->context = C;
    config->norm_placement = 0;
    config->final_norm = 0;
    config->position = TRANSFORMER_POSITION_LEARNED;
    config->attn_scale = SHARPNESS;
    for (int i = 0; i < config->n_layers; i++) {
        config->layers[i].no_mlp = 1;
        config->layers[i].rope = -1;
    }
}

/* The weights are all zero but for diagonals of ones.  A matrix is [out, in]: a 1 at [row, column]
 * carries dimension `column` of its input to dimension `row` of its output, so that a diagonal
 * carries n dimensions over unchanged. */
static void wire(unsigned char *weights, const transformer_config *config, int role, int layer,
                 int row, int column, int n) {
    int rows = 0, cols = 0;
    size_t offset = 0;
    if (!transformer_tensor_shape(config, role, layer, &rows, &cols) ||
        !transformer_flat_offset(config, TRANSFORMER_F32, role, layer, &offset))
        die("the model has no such matrix");
    float *matrix = (float *)(void *)(weights + offset);
    for (int i = 0; i < n; i++) matrix[(size_t)(row + i) * (size_t)cols + (size_t)(column + i)] = 1;
}

static void build(unsigned char *weights, const transformer_config *config) {
    /* The embeddings are tables: row s is what symbol s (or position s) adds to the stream. */
    wire(weights, config, TRANSFORMER_EMBEDDING, 0, 0, CURRENT, V);
    wire(weights, config, TRANSFORMER_POSITION_EMBEDDING, 0, 0, POSITION, C);

    /* Layer 0.  The query of position i is one-hot at i - 1; that of position 0 is zero, but it has
     * only itself to attend to. */
    wire(weights, config, TRANSFORMER_Q, 0, 0, POSITION + 1, C - 1);
    wire(weights, config, TRANSFORMER_K, 0, 0, POSITION, C);
    wire(weights, config, TRANSFORMER_V, 0, 0, CURRENT, V);
    wire(weights, config, TRANSFORMER_ATTN_OUT, 0, PREVIOUS, 0, V);

    /* Layer 1 */
    wire(weights, config, TRANSFORMER_Q, 1, 0, CURRENT, V);
    wire(weights, config, TRANSFORMER_K, 1, 0, PREVIOUS, V);
    wire(weights, config, TRANSFORMER_V, 1, 0, CURRENT, V);
    wire(weights, config, TRANSFORMER_ATTN_OUT, 1, NEXT, 0, V);

    /* The head turns NEXT into logits. */
    wire(weights, config, TRANSFORMER_HEAD, 0, 0, NEXT, V);
}

/* ---- running it ---- */

typedef struct toy {
    transformer_model *model;
    transformer_state *state;
    transformer_workspace *work;
} toy;

/* Reads the prompt and writes n symbols that the model continues it with. */
static void continue_text(const toy *t, const char *prompt, char *out, int n) {
    int32_t tokens[C];
    float logits[V];
    int n_tokens = 0;
    for (; prompt[n_tokens]; n_tokens++)
        tokens[n_tokens] = (int32_t)(strchr(alphabet, prompt[n_tokens]) - alphabet);
    transformer_state_rewind(t->state, 0);
    for (int i = 0; i < n; i++) {
        if (transformer_forward(t->model, t->work, t->state, tokens, n_tokens, logits) !=
            TRANSFORMER_OK)
            die("the model did not run");
        int best = 0;
        for (int s = 1; s < V; s++)
            if (logits[s] > logits[best]) best = s;
        out[i] = alphabet[best];
        tokens[0] = best;
        n_tokens = 1;
    }
    out[n] = '\0';
}

/* The first n letters of a shuffled alphabet.  A letter may come only once: after the same symbol
 * the head always predicts the same. */
static void random_pattern(char *pattern, int n, unsigned *seed) {
    char letters[sizeof alphabet];
    memcpy(letters, alphabet + 1, V);
    for (int i = 0; i < n; i++) {
        *seed = *seed * 1664525u + 1013904223u; /* Numerical Recipes' quick generator */
        int pick = i + (int)((*seed >> 8) % (unsigned)(V - 1 - i));
        char letter = letters[pick];
        letters[pick] = letters[i];
        letters[i] = letter;
    }
    memcpy(pattern, letters, (size_t)n);
    pattern[n] = '\0';
}

/* Shows the model a pattern and its first letter again.  1 = it goes on as it should. */
static int test_pattern(const toy *t, const char *pattern, int show) {
    char prompt[C + 1], continuation[C + 1];
    int length = (int)strlen(pattern), n = 2 * length, good = 1;
    snprintf(prompt, sizeof prompt, "|%s%c", pattern, pattern[0]);
    continue_text(t, prompt, continuation, n);
    for (int i = 0; i < n; i++) good = good && continuation[i] == pattern[(i + 1) % length];
    if (show || !good)
        printf("%-14s -> %-26s %s\n", prompt, continuation, good ? "right" : "WRONG");
    return good;
}

int main(void) {
    transformer_options options = {0};
    transformer_error error;
    static transformer_config config;
    describe(&config);

    /* a flat buffer is to begin at a multiple of 64 bytes */
    size_t size = transformer_flat_size(&config, TRANSFORMER_F32);
    unsigned char *memory = (unsigned char *)calloc(1, size + 64);
    if (size == 0 || memory == NULL) die("no weights");
    unsigned char *weights = memory + (64 - (uintptr_t)memory % 64) % 64;
    build(weights, &config);

    toy t;
    t.model = transformer_model_new(&config, &options, &error);
    if (t.model == NULL ||
        transformer_bind_flat(t.model, weights, size, TRANSFORMER_F32, &error) != TRANSFORMER_OK)
        die(error.text);
    t.state = transformer_state_new(t.model, &options, &error);
    t.work = transformer_workspace_new(t.model, &options, &error);
    if (t.state == NULL || t.work == NULL) die(error.text);

    printf("prompt            continuation\n");
    int wrong = !test_pattern(&t, "cat", 1), tests = 1;
    unsigned seed = 1;
    for (; tests < 200; tests++) {
        char pattern[V];
        random_pattern(pattern, 1 + tests % 12, &seed);
        wrong += !test_pattern(&t, pattern, tests < 12);
    }
    printf("%d patterns, %d continued wrongly\n", tests, wrong);

    transformer_free(t.work);
    transformer_free(t.state);
    transformer_free(t.model);
    free(memory);
    return wrong > 0;
}

/* constrain.h - what generate and chat share: text that has to follow a grammar, tokens that have
 * to be the model's.  Licence: MIT.
 *
 * Include it after common.h; it includes the declarations of grammar.h and tokenizer.h.
 */
#ifndef EXAMPLES_CONSTRAIN_H
#define EXAMPLES_CONSTRAIN_H

#include "grammar.h"
#include "tokenizer.h"

/* A tokenizer may have more tokens than the model, as long as the text has none of them. */
static inline void check_tokens(const tokenizer *t, int vocab_size, const int32_t *tokens, int n) {
    for (int i = 0; i < n; i++)
        if (tokens[i] >= vocab_size)
            die("the tokenizer has %d tokens, the model %d: token %d of the text is %d",
                tokenizer_vocab_size(t), vocab_size, i, (int)tokens[i]);
}

/* What the text has to follow: grammar is NULL if nothing. */
typedef struct constraint {
    grammar *grammar;
    grammar_state *state;
    grammar_vocabulary *vocabulary;
    grammar_token *tokens;
    char *bytes;     /* of all tokens */
    void *memory[3]; /* that the first three are in */
} constraint;

static inline char *constraint_text(const char *path, size_t most, size_t *size) {
    char *text = (char *)allocate(most, 1);
    FILE *f = fopen(path, "rb");
    if (f == NULL) die("%s: %s", path, strerror(errno));
    *size = fread(text, 1, most, f);
    if (ferror(f) || *size == most) die("%s: cannot be read, or is too large", path);
    fclose(f);
    return text;
}

/* The bytes of the first n tokens, in order.  The text ends with `end` or what the tokenizer says. */
static inline void constraint_tokens(constraint *c, const tokenizer *t, int n, int end) {
    size_t used = 0, room = 1 << 16, bound = tokenizer_decode_bound(t);
    char *bytes = (char *)allocate(room, 1);
    c->tokens = (grammar_token *)allocate((size_t)n, sizeof *c->tokens);
    for (int i = 0; i < n; i++) {
        if (room - used < bound) {
            bytes = (char *)realloc(bytes, room = 2 * room + bound);
            if (bytes == NULL) die("out of memory");
        }
        c->tokens[i].size = tokenizer_bytes(t, i, bytes + used);
        c->tokens[i].is_end = i == end || tokenizer_is_end(t, i);
        used += (size_t)c->tokens[i].size;
    }
    c->bytes = bytes;
    for (int i = 0; i < n; bytes += c->tokens[i++].size) c->tokens[i].bytes = bytes;
}

/* A new text begins. */
static inline void constraint_start(constraint *c) {
    c->state = grammar_start(c->grammar, c->memory[1], grammar_state_size());
    if (c->state == NULL) die("--grammar: too ambiguous");
}

/* For grammars that name tokens. */
static inline int constraint_find(const void *t, const char *name, size_t size) {
    return tokenizer_find((const tokenizer *)t, name, size);
}

static inline void constraint_load(constraint *c, const char *path, const tokenizer *t, int n,
                                   int end) {
    grammar_error error;
    size_t size, bytes;
    char *text = constraint_text(path, GRAMMAR_MAX_TEXT + 1, &size);
    bytes = grammar_size(text, size, &error);
    if (bytes == 0) die("%s: %s", path, error.text);
    c->memory[0] = allocate(bytes, 1);
    c->grammar =
        grammar_compile_tokens(text, size, constraint_find, t, c->memory[0], bytes, &error);
    if (c->grammar == NULL) die("%s: %s", path, error.text);
    free(text);
    c->memory[1] = allocate(grammar_state_size(), 1);
    constraint_start(c);
    constraint_tokens(c, t, n, end);
    bytes = grammar_vocabulary_size(n);
    c->memory[2] = allocate(bytes, 1);
    c->vocabulary = grammar_vocabulary_new(c->tokens, n, c->memory[2], bytes);
}

static inline void constraint_free(constraint *c) {
    for (int i = 0; i < 3; i++) free(c->memory[i]);
    free(c->tokens);
    free(c->bytes);
}

/* Logits of tokens that the grammar does not allow become -infinity. */
static inline void constraint_mask(constraint *c, float *logits) {
    int allowed = 0;
    if (c->grammar == NULL) return;
    if (grammar_mask(c->grammar, c->state, c->vocabulary, logits, &allowed) != GRAMMAR_OK)
        die("--grammar: nested too deeply, or too ambiguous");
    if (allowed == 0) die("--grammar: no token of this model can come next");
}

/* The text goes on with this token.  1 = nothing may follow. */
static inline int constraint_follow(constraint *c, int token) {
    if (c->grammar == NULL) return 0;
    if (grammar_accept_token(c->grammar, c->state, c->vocabulary, token) != GRAMMAR_OK)
        die("--grammar: nested too deeply, or too ambiguous");
    return grammar_must_end(c->grammar, c->state);
}

/* Was the text cut before the grammar lets it end? */
static inline int constraint_is_cut(const constraint *c) {
    return c->grammar != NULL && !grammar_may_end(c->grammar, c->state);
}

#endif /* EXAMPLES_CONSTRAIN_H */

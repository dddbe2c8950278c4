/* libFuzzer target: a grammar, a zero byte, and a text that it reads, with a mask of a few tokens at each byte.
 * corpus: tests/grammars
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_grammar.c -lm -o build/fuzz
 *     build/fuzz build/found tests/grammars */
#define GRAMMAR_IMPLEMENTATION
#include "../examples/grammar.h"

#include <stdlib.h>
#include <string.h>

static const grammar_token tokens[] = {{"a", 1, 0},    {"ab", 2, 0}, {"abc", 3, 0},  {"{\"", 2, 0},
                                       {"\xC3", 1, 0}, {"", 0, 1},   {"\n\n", 2, 0}, {"1", 1, 0},
                                       {" ", 1, 0},    {"]", 1, 0}};
enum { N_TOKENS = (int)(sizeof tokens / sizeof *tokens) };

/* The mask says what asking for each token says. */
static void check_mask(const grammar *g, grammar_state *s, const grammar_vocabulary *v) {
    float logits[N_TOKENS] = {0};
    if (grammar_mask(g, s, v, logits, NULL) != GRAMMAR_OK) return; /* a limit */
    for (int i = 0; i < N_TOKENS; i++) {
        static grammar_state copy;
        memcpy(&copy, s, sizeof copy);
        grammar_status status = grammar_accept_token(g, &copy, v, i);
        int may = tokens[i].is_end ? grammar_may_end(g, s) : status == GRAMMAR_OK;
        if (may == (logits[i] < 0) && status != GRAMMAR_LIMIT) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static grammar_state memory;
    static char room[1024];
    grammar_error error;
    const char *text = (const char *)data;
    const char *zero = size ? (const char *)memchr(text, 0, size) : NULL;
    size_t n = zero ? (size_t)(zero - text) : size, bytes = grammar_size(text, n, &error);
    void *code = bytes ? malloc(bytes) : NULL;
    grammar *g = bytes ? grammar_compile(text, n, code, bytes, &error) : NULL;
    grammar_state *s = g ? grammar_start(g, &memory, sizeof memory) : NULL;
    grammar_vocabulary *v = grammar_vocabulary_new(tokens, N_TOKENS, room, sizeof room);
    if (!g && !error.text[0]) abort();
    for (size_t i = n + 1; s && i < size && i < n + 200; i++) {
        grammar_status may = grammar_allows(g, s, text + i, 1);
        check_mask(g, s, v);
        if (grammar_accept(g, s, text + i, 1) != may) abort();
        if (may != GRAMMAR_OK) break;
    }
    free(code);
    return 0;
}

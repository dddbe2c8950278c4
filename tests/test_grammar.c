/* examples/grammar.h: all short texts against plain C predicates, masks against one token at a time, generated JSON
 * against a parser, hostile grammars, limits. */
#define GRAMMAR_IMPLEMENTATION
#include "../examples/grammar.h"
#include "json.h"
#include "test.h"

#include <time.h>

static grammar_error error;

static void check(int ok, const char *what, const char *more) {
    char text[700];
    snprintf(text, sizeof text, "%s: %s", what, more ? more : "");
    test_check(ok, "test_grammar.c", 0, text);
}

static grammar *compile(const char *text, size_t size) {
    size_t bytes = grammar_size(text, size, &error);
    void *memory = bytes ? malloc(bytes) : NULL; /* exactly, so that overruns are seen */
    grammar *g = bytes ? grammar_compile(text, size, memory, bytes, &error) : NULL;
    if (!g) free(memory);
    return g;
}

static grammar_state *start(const grammar *g) {
    void *memory = malloc(grammar_state_size());
    grammar_state *s = grammar_start(g, memory, grammar_state_size());
    if (!s) free(memory);
    return s;
}

static grammar *must_compile(const char *text) {
    grammar *g = compile(text, strlen(text));
    check(g != NULL, text, error.text);
    if (!g) exit(test_finish());
    return g;
}

/* 2 = the text may end here, 1 = more may follow, 0 = refused.  Byte by byte and at once are the same. */
static int reads(const grammar *g, const char *text, size_t n) {
    static grammar_state memory[2];
    grammar_state *bytes = grammar_start(g, &memory[0], sizeof *memory);
    grammar_state *once = grammar_start(g, &memory[1], sizeof *memory);
    size_t i;
    for (i = 0; i < n; i++) {
        grammar_status may = grammar_allows(g, bytes, text + i, 1);
        CHECK(may == grammar_accept(g, bytes, text + i, 1));
        if (may != GRAMMAR_OK) break;
    }
    CHECK((grammar_allows(g, once, text, n) == GRAMMAR_OK) == (i == n));
    CHECK((grammar_accept(g, once, text, n) == GRAMMAR_OK) == (i == n));
    CHECK(i < n || grammar_may_end(g, once) == grammar_may_end(g, bytes));
    int result = i < n ? 0 : 1 + grammar_may_end(g, bytes);
    return result;
}

/* ---- all texts up to a length, against a predicate ---- */

static int is_nested(const char *s, int n) { /* brackets, balanced */
    int depth = 0;
    for (int i = 0; i < n && depth >= 0; i++) depth += s[i] == 'a' ? 1 : s[i] == 'b' ? -1 : -99;
    return depth == 0;
}

static int is_equal(const char *s, int n) { /* a^k b^k c */
    int k = (n - 1) / 2;
    if (n % 2 == 0 || n < 1 || s[n - 1] != 'c') return 0;
    for (int i = 0; i < 2 * k; i++)
        if (s[i] != (i < k ? 'a' : 'b')) return 0;
    return 1;
}

static int is_palindrome(const char *s, int n) {
    for (int i = 0; i < n; i++)
        if (s[i] != s[n - 1 - i] || s[i] == 'c') return 0;
    return 1;
}

static int is_list(const char *s, int n) { /* of a or b, between c */
    for (int i = 0; i < n; i++)
        if ((s[i] == 'c') != (i % 2 == 1)) return 0;
    return n % 2 == 1;
}

static int is_counted(const char *s,
                      int n) { /* a 2 to 4 times, then b at most twice, or 3 or more c */
    int a = 0, b = 0, c = 0;
    while (a < n && s[a] == 'a') a++;
    while (a + b < n && s[a + b] == 'b') b++;
    while (c < n && s[c] == 'c') c++;
    return (a + b == n && a >= 2 && a <= 4 && b <= 2) || (c == n && c >= 3);
}

static int is_anything(const char *s, int n) { return (void)s, n >= 0; }
static int is_no_c(const char *s, int n) { return memchr(s, 'c', (size_t)n) == NULL; }
static int is_ambiguous(const char *s, int n) { /* any number of a, n >= 1 */
    for (int i = 0; i < n; i++)
        if (s[i] != 'a') return 0;
    return n > 0;
}

static const struct {
    const char *text;
    int (*is)(const char *s, int n);
    int may_grow; /* every text that is a beginning grows to a text within so many more characters */
} languages[] = {
    {"root ::= (\"a\" root \"b\")*", is_nested, 7},
    {"root ::= ab \"c\"\nab ::= (\"a\" ab \"b\")?", is_equal, 8},
    {"root ::= | \"a\" | \"b\" | \"a\" root \"a\" | \"b\" root \"b\"", is_palindrome, 7},
    {"root ::= item more\nmore ::= | \"c\" item more # on the right\nitem ::= [ab]", is_list, 1},
    {"root ::= item (\"c\" item)*\n\n item\t::= \"a\"\n | \"b\"", is_list, 1},
    {"root ::= \"a\"{2,4} \"b\" {0,2} | \"c\"{3,}", is_counted, 3},
    {"root ::= \"aa\" (\"a\" (\"a\")?)? (\"b\" \"b\"?)? |\n\"c\"{2} \"c\"+", is_counted, 3},
    {"root ::= .*", is_anything, 0},
    {"root ::= ((((([a-c])*)*)?)*)* ((\"\"){7})*", is_anything, 0},
    {"root ::= [^c\\n]*", is_no_c, 0},
    {"root ::= [\\x61-b]* nothing nothing\nnothing ::= \"\" | nothing2\nnothing2 ::= ", is_no_c, 0},
    {"root ::= as as* | as root\nas ::= \"a\" | \"a\" as | (\"a\" \"a\")+", is_ambiguous, 1},
};

enum { LENGTH = 8, GROW = 8 };

/* Does some text of the language begin so? */
static int begins(size_t l, char *text, int n, int more) {
    if (languages[l].is(text, n)) return 1;
    for (int c = 'a'; more > 0 && c <= 'c'; c++) {
        text[n] = (char)c;
        if (begins(l, text, n + 1, more - 1)) return 1;
    }
    return 0;
}

static void test_languages(void) {
    for (size_t l = 0; l < sizeof languages / sizeof *languages; l++) {
        grammar *g = must_compile(languages[l].text);
        int texts = 0, wrong = 0, length = languages[l].may_grow > 3 ? 6 : LENGTH;
        for (int n = 0, count = 1; n <= length; n++, count *= 3)
            for (int k = 0; k < count; k++, texts++) {
                char text[LENGTH + GROW + 1];
                for (int i = 0, rest = k; i < n; i++, rest /= 3) text[i] = (char)('a' + rest % 3);
                int is = languages[l].is(text, n);
                int may = is || begins(l, text, n, languages[l].may_grow);
                wrong += reads(g, text, (size_t)n) != (is ? 2 : may);
            }
        check(wrong == 0, languages[l].text, "against the predicate");
        free(g);
    }
    GROUP("every text up to %d characters", LENGTH);
}

/* ---- characters ---- */

static void test_characters(void) {
    static const struct {
        const char *text;
        uint32_t lo, hi; /* those that are in it, among all of Unicode; up to two ranges */
        uint32_t lo2, hi2;
    } classes[] = {{"root ::= .", 0, 0x10ffff, 1, 0},
                   {"root ::= [\\u00e9-\\U0001F600]", 0xe9, 0x1f600, 1, 0},
                   {"root ::= [^\\u0800-\\uFFFF]", 0, 0x7ff, 0x10000, 0x10ffff},
                   {"root ::= [\xC3\xA9\xE6\x97\xA5]", 0xe9, 0xe9, 0x65e5, 0x65e5},
                   {"root ::= [\\x7f-\\u0080]", 0x7f, 0x80, 1, 0},
                   {"root ::= [b-da-ec]", 'a', 'e', 1, 0},
                   {"root ::= [^\\x00-\\U0010FFFE]", 0x10ffff, 0x10ffff, 1, 0},
                   {"root ::= \"\\u65E5\"", 0x65e5, 0x65e5, 1, 0},
                   {"root ::= [a-]", 'a', 'a', '-', '-'},
                   {"root ::= [\\]\\\\]", '\\', ']', 1, 0}};
    for (size_t k = 0; k < sizeof classes / sizeof *classes; k++) {
        grammar *g = must_compile(classes[k].text);
        grammar_state *s = start(g);
        int wrong = 0;
        for (uint32_t c = 0; c <= 0x10ffff; c++) {
            uint8_t bytes[4];
            int n = gri_utf8(c, bytes), surrogate = c >= 0xd800 && c < 0xe000;
            int in = !surrogate && ((c >= classes[k].lo && c <= classes[k].hi) ||
                                    (c >= classes[k].lo2 && c <= classes[k].hi2));
            wrong += (grammar_allows(g, s, (char *)bytes, (size_t)n) == GRAMMAR_OK) != in;
        }
        check(wrong == 0, classes[k].text, "all of Unicode");
        static const char *const bad[] = {"\xC0\x80", "\xE0\x80\x80", "\xF4\x90\x80\x80",
                                          "\xFF",     "\x80",         "\xF0\x80\x80\x80"};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            CHECK(grammar_allows(g, s, bad[i], strlen(bad[i])) == GRAMMAR_REFUSED);
        free(s), free(g);
    }
    GROUP("classes of characters, over all of Unicode");
}

/* ---- tokens ---- */

enum { N_TOKENS = 700, N_BYTES = 12 };

typedef struct vocabulary {
    char bytes[N_TOKENS][N_BYTES];
    grammar_token tokens[N_TOKENS];
    grammar_vocabulary *sorted;
} vocabulary;

static uint32_t seed = 1;
static uint32_t any(uint32_t n) { return (seed = test_hash(seed + 0x9e3779b9u)) % n; }

/* Every byte, then pieces of JSON-like text, some of them twice; an end, and one without bytes. */
static vocabulary *make_vocabulary(void) {
    static const char *const parts[] = {
        "{",    "}", "[", "]", "\"", ":", ",",   " ",  "\n", "true",     "false",
        "null", "1", "0", "-", ".",  "e", "\\u", "\\", "a",  "\xC3\xA9", "\xF0\x9F\x98"};
    vocabulary *v = (vocabulary *)calloc(1, sizeof *v);
    for (int i = 0; i < N_TOKENS; i++) {
        grammar_token *t = &v->tokens[i];
        t->bytes = v->bytes[i];
        t->size = i < 256;
        v->bytes[i][0] = (char)i;
        for (int k = 0; i >= 258 && k < 1 + (int)any(4); k++) {
            const char *part = parts[any(22)];
            if (t->size + (int)strlen(part) > N_BYTES) break;
            memcpy(v->bytes[i] + t->size, part, strlen(part));
            t->size += (int)strlen(part);
        }
    }
    v->tokens[256].is_end = 1;
    memcpy(v->bytes[256], "</s>", 4);
    v->tokens[256].size = 4;
    size_t bytes = grammar_vocabulary_size(N_TOKENS);
    v->sorted = grammar_vocabulary_new(v->tokens, N_TOKENS, malloc(bytes), bytes);
    CHECK(v->sorted != NULL);
    return v;
}

/* The mask says the same of every token as asking for it alone; and changes nothing. */
static int check_mask(const grammar *g, grammar_state *s, const vocabulary *v, float *logits) {
    static int32_t slots[GRI_SLOTS];
    int allowed = -1, count = 0, wrong = 0, n_nodes = s->n_nodes, n_threads = s->n_threads;
    memcpy(slots, s->slots, sizeof slots);
    for (int i = 0; i < N_TOKENS; i++) logits[i] = (float)i;
    CHECK(grammar_mask(g, s, v->sorted, logits, &allowed) == GRAMMAR_OK);
    CHECK(n_nodes == s->n_nodes && n_threads == s->n_threads);
    CHECK(memcmp(slots, s->slots, sizeof slots) == 0);
    for (int i = 0; i < N_TOKENS; i++) {
        const grammar_token *t = &v->tokens[i];
        int ok = t->is_end
                     ? grammar_may_end(g, s)
                     : t->size > 0 && grammar_allows(g, s, t->bytes, (size_t)t->size) == GRAMMAR_OK;
        wrong += ok ? logits[i] != (float)i : !(logits[i] < -1e30f);
        count += ok;
    }
    CHECK(wrong == 0 && count == allowed);
    return allowed;
}

static void test_tokens(void) {
    static float logits[N_TOKENS];
    static char text[4000];
    size_t size = 0;
    char *json = test_read_file("examples/json.gbnf", &size);
    CHECK(json != NULL);
    grammar *g = json ? compile(json, size) : NULL;
    check(g != NULL, "examples/json.gbnf", error.text);
    if (!g) return;
    vocabulary *v = make_vocabulary();
    int finished = 0;
    size_t longest = 0;
    for (int round = 0; round < 60; round++) {
        grammar_state *s = start(g);
        size_t n = 0;
        int over = 0;
        for (int step = 0; step < 150 && !over && n < sizeof text - N_BYTES; step++) {
            int token, allowed = check_mask(g, s, v, logits);
            CHECK(allowed > 0);
            if (logits[256] > 0) break; /* it may end */
            do token = (int)any(N_TOKENS);
            while (!(logits[token] >= 0));
            /* now and then closing what is open, or it would never end */
            for (const char *c = "\"]}"; step > 20 && *c; c++)
                if (logits[(unsigned char)*c] > 0) token = (unsigned char)*c;
            CHECK(grammar_accept(g, s, v->tokens[token].bytes, (size_t)v->tokens[token].size) ==
                  GRAMMAR_OK);
            memcpy(text + n, v->tokens[token].bytes, (size_t)v->tokens[token].size);
            n += (size_t)v->tokens[token].size;
            over = grammar_must_end(g, s);
        }
        text[n] = 0;
        if (grammar_may_end(g, s)) {
            const char *end = json_value(text, 0);
            check(end && *json_blank(end) == 0, "JSON", text);
            CHECK(reads(g, text, n) == 2);
            finished++;
            longest = n > longest ? n : longest;
        }
        free(s);
    }
    CHECK(finished > 30 && longest > 30);
    free(v->sorted), free(v), free(g), free(json);
    GROUP("%d texts of JSON, masks at each step; the longest has %d bytes", finished, (int)longest);
}

/* ---- tokens as a whole ---- */

enum { A, B, THINK, END_THINK, AB, END, X, PAD, N_WHOLE };
static const grammar_token whole[N_WHOLE] = {{"a", 1, 0},   {"b", 1, 0},  {"", 0, 0},
                                             {"", 0, 0},    {"ab", 2, 0}, {"end", 3, 1},
                                             {"<x>", 3, 0}, {"", 0, 0}};

static int find_whole(const void *context, const char *name, size_t size) {
    static const char *const names[N_WHOLE] = {"a",  "b",   "<think>", "</think>",
                                               "ab", "end", "<x>",     "<pad )\"\\>"};
    CHECK(context == whole);
    for (int i = 0; i < N_WHOLE; i++)
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0) return i;
    return -1;
}

static int has_text(int t) { return t == A || t == B || t == AB || t == X; }

/* The text that the tokens make. */
static const char *joined(const int *t, int n) {
    static char text[64];
    text[0] = 0;
    for (int i = 0; i < n; i++) strncat(text, whole[t[i]].bytes, (size_t)whole[t[i]].size);
    return text;
}

static int is_thought(const int *t, int n) {
    int at = 1;
    if (n < 2 || t[0] != THINK) return 0;
    while (at < n && has_text(t[at])) at++;
    if (at == n || t[at++] != END_THINK) return 0;
    while (at < n && has_text(t[at])) at++;
    return at == n;
}

static int is_both(const int *t, int n) {
    for (int i = 0; i < n; i++)
        if (!has_text(t[i])) return 0;
    return (n == 1 && t[0] == A) || (n == 2 && t[0] == A && t[1] == AB) ||
           strcmp(joined(t, n), "aabb") == 0;
}

static int is_pairs(const int *t, int n) {
    for (int i = 0; i < n; i++)
        if (i % 2 ? t[i] != B : !has_text(t[i]) || t[i] == B) return 0;
    return n % 2 == 0;
}

static int is_pads(const int *t, int n) {
    for (int i = 0; i < n; i++)
        if (t[i] != (i ? PAD : X)) return 0;
    return n >= 2 && n <= 3;
}

static const struct {
    const char *text;
    int (*is)(const int *t, int n);
} whole_languages[] = {
    {"root ::= <think> thinking </think> .* # <x> \nthinking ::= !</think>*", is_thought},
    {"root ::= \"a\" <[4]> | \"a\" \"ab\" \"b\" | <[0]>", is_both},
    {"root ::= (!<[1]> \"b\")*", is_pairs},
    {"root ::= ( (<x>) (<pad )\"\\>) {1,2} )", is_pads},
};

static int whole_begins(size_t l, int *t, int n, int more) {
    if (whole_languages[l].is(t, n)) return 1;
    for (t[n] = 0; more > 0 && t[n] < N_WHOLE; t[n]++)
        if (whole_begins(l, t, n + 1, more - 1)) return 1;
    return 0;
}

/* As `reads`, by tokens; the mask says of every token what asking for it says. */
static int reads_whole(const grammar *g, const grammar_vocabulary *v, const int *t, int n) {
    static grammar_state memory[2];
    grammar_state *s = grammar_start(g, &memory[0], sizeof *memory);
    int i = 0, allowed = 0, count = 0;
    while (i < n && grammar_accept_token(g, s, v, t[i]) == GRAMMAR_OK) i++;
    for (int k = 0; n <= 2 && k < N_WHOLE; k++) {
        float logits[N_WHOLE] = {0};
        CHECK(grammar_mask(g, s, v, logits, &allowed) == GRAMMAR_OK);
        memcpy(&memory[1], s, sizeof *memory);
        int ok = k == END ? grammar_may_end(g, s)
                          : grammar_accept_token(g, &memory[1], v, k) == GRAMMAR_OK;
        CHECK(ok == (logits[k] >= 0));
        count += ok;
    }
    CHECK(n > 2 || count == allowed);
    return i < n ? 0 : 1 + grammar_may_end(g, s);
}

static void test_whole_tokens(void) {
    static char memory[1 << 10];
    grammar_vocabulary *v = grammar_vocabulary_new(whole, N_WHOLE, memory, sizeof memory);
    for (size_t l = 0; l < sizeof whole_languages / sizeof *whole_languages; l++) {
        const char *text = whole_languages[l].text;
        size_t size = grammar_size(text, strlen(text), &error);
        grammar *g = grammar_compile_tokens(text, strlen(text), find_whole, whole, malloc(size),
                                            size, &error);
        int wrong = 0;
        check(g != NULL, text, error.text);
        if (!g) continue;
        for (int n = 0, count = 1; n <= 4; n++, count *= N_WHOLE)
            for (int k = 0; k < count; k++) {
                int t[8];
                for (int i = 0, rest = k; i < n; i++, rest /= N_WHOLE) t[i] = rest % N_WHOLE;
                int is = whole_languages[l].is(t, n), may = is || whole_begins(l, t, n, 3);
                wrong += reads_whole(g, v, t, n) != (is ? 2 : may);
            }
        check(wrong == 0, text, "against the predicate");
        free(g);
    }
    grammar *g = must_compile("root ::= \"a\" <[1]> \"c\"");
    grammar_state *s = start(g);
    CHECK(grammar_accept(g, s, "a", 1) == GRAMMAR_OK);
    CHECK(grammar_allows(g, s, "b", 1) == GRAMMAR_REFUSED); /* bytes are no token */
    CHECK(grammar_accept_token(g, s, v, N_WHOLE) == GRAMMAR_ARGUMENT &&
          grammar_accept_token(g, s, v, -1) == GRAMMAR_ARGUMENT &&
          grammar_accept_token(g, s, NULL, 1) == GRAMMAR_ARGUMENT);
    CHECK(grammar_accept_token(g, s, v, AB) == GRAMMAR_REFUSED);
    CHECK(grammar_accept_token(g, s, v, B) == GRAMMAR_OK && !grammar_may_end(g, s));
    CHECK(grammar_accept(g, s, "c", 1) == GRAMMAR_OK && grammar_must_end(g, s));
    CHECK(!grammar_compile_tokens("root ::= <y>", 12, find_whole, whole, memory, sizeof memory,
                                  &error) &&
          strcmp(error.text, "line 1: there is no token '<y>'") == 0);
    free(s), free(g);
    GROUP("tokens as a whole: every row of up to 4");
}

/* ---- what is refused ---- */

static void test_refused(void) {
    static const struct {
        const char *text, *why;
    } cases[] = {{"", "there is no rule 'root'"},
                 {"a ::= \"x\"", "there is no rule 'root'"},
                 {"root ::= b", "line 1: there is no rule 'b'"},
                 {"root ::= \"a\"\nroot ::= \"b\"", "line 2: rule 'root' is there twice"},
                 {"root ::= root \"a\" | \"b\"", "rule 'root' begins with itself"},
                 {"root ::= a\na ::= b? c\nb ::= \"b\"\nc ::= a | \"c\"", "begins with itself"},
                 {"root ::= (\"\" | \"x\"{0,3}) root", "rule 'root' begins with itself"},
                 {"root ::= e* root\ne ::= \"\"", "rule 'root' begins with itself"},
                 {"root ::= \"a", "'\"' is missing"},
                 {"root ::= [a", "']' is missing"},
                 {"root ::= [a\n]", "']' is missing"},
                 {"root ::= (\"a\"", "')' is missing"},
                 {"root ::= \"a\")", "')' is not expected"},
                 {"root ::= *", "'*' is not expected"},
                 {"root ::= []", "no character"},
                 {"root ::= [^\\x00-\\U0010FFFF]", "no character"},
                 {"root ::= [b-a]", "upside down"},
                 {"root ::= \"a\"{3,2}", "upside down"},
                 {"root ::= \"a\"{", "a number is expected"},
                 {"root ::= \"a\"{1", "'}' is missing"},
                 {"root ::= \"a\"{99999999999999999999}", "too large"},
                 {"root ::= \"\\q\"", "escape"},
                 {"root ::= \"\\x1\"", "hexadecimal"},
                 {"root ::= \"\\uD800\"", "not a character"},
                 {"root ::= \"\\U00110000\"", "not a character"},
                 {"root ::= \"\xC3\"", "UTF-8"},
                 {"root := \"a\"", "'::=' is expected"},
                 {"root ::= \"a\"\n\n\"b\"", "line 3: the name of a rule is expected"},
                 {"root ::= \"a\"\n| <token>", "line 2: token '<token>': only numbers here"},
                 {"root ::= <[]>", "a number is expected"},
                 {"root ::= <[1>", "']>' is missing"},
                 {"root ::= <[1]", "'>' is missing"},
                 {"root ::= (<a\n>)", "'>' is missing"},
                 {"root ::= !\"a\"", "'!' is not expected"},
                 {"root ::= <[2147483648]>", "the number of a token is too large"},
                 {"root ::= !<[1]>? root", "rule 'root' begins with itself"},
                 {"root ::= \x1b[2J", "'?' is not expected"},
                 {"root ::= ((((\"abc\"{99}){99}){99}){99})", "the grammar is too large"},
                 {"root ::= ((((\"\"{9999}){9999}){9999}){9999})", "the grammar is too large"},
                 {"root ::= ((((\"a\"?){9999})?){9999})*", "the grammar is too large"}};
    char small[8];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        grammar *g = compile(cases[i].text, strlen(cases[i].text));
        check(!g && strstr(error.text, cases[i].why), cases[i].text,
              g ? "was compiled" : error.text);
        free(g);
        CHECK(!compile(cases[i].text, strlen(cases[i].text)));
    }
    CHECK(!compile(NULL, 0) && !grammar_compile("root ::= \"a\"", 12, NULL, 0, &error));
    CHECK(!grammar_size("x", 1, NULL) && !grammar_compile("x", 1, small, sizeof small, NULL));
    CHECK(!grammar_compile("root ::= \"a\"", 12, small, sizeof small, &error) &&
          strstr(error.text, "bytes of memory"));
    GROUP("what is refused");
}

/* Texts that would take hours, or all memory, if they were believed. */
static void test_hostile(void) {
    static char text[GRAMMAR_MAX_TEXT + 2];
    clock_t begin = clock();
    memset(text, '(', sizeof text);
    memcpy(text, "root ::= ", 9);
    CHECK(!compile(text, 100) && strstr(error.text, "is missing"));
    memset(text + 9 + 70, ')', 70);
    memcpy(text + 9 + 70 - 3, "\"a\"", 3);
    CHECK(!compile(text, 9 + 70 + 67) && strstr(error.text, "nested too deeply"));
    CHECK(!compile(text, sizeof text) && strstr(error.text, "larger than"));
    CHECK(!compile(text, GRAMMAR_MAX_TEXT));
    /* a long comment in what is repeated: reading it again and again would take hours */
    size_t n = (size_t)sprintf(text, "root ::= (\"\" #");
    memset(text + n, 'x', 1000000);
    n += 1000000;
    n += (size_t)sprintf(text + n, "\n){100000}");
    CHECK(!compile(text, n) && strstr(error.text, "too large"));
    for (n = 0; n < 9 * 3000; n += 9)
        sprintf(text + n, "r%04d ::=\n", (int)n / 9 % 10000), text[n + 8] = '\n';
    CHECK(!compile(text, n));
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    check(seconds < 20, "hostile grammars", "take long");
    GROUP("hostile grammars, in %.1f s", seconds);
}

static void test_limits(void) {
    grammar *g = must_compile("root ::= \"(\" root \")\" | \"x\"");
    grammar_state *s = start(g), *copy = (grammar_state *)malloc(grammar_state_size());
    grammar_status status = GRAMMAR_OK;
    long n = 0;
    while ((status = grammar_accept(g, s, "(", 1)) == GRAMMAR_OK && n < 100000) n++;
    CHECK(status == GRAMMAR_LIMIT && n > 8000 && n <= GRAMMAR_MAX_NODES);
    CHECK(grammar_accept(g, s, "(", 1) == GRAMMAR_LIMIT); /* the state is as it was */
    CHECK(grammar_accept(g, s, ")", 1) == GRAMMAR_REFUSED &&
          grammar_accept(g, s, "x", 1) == GRAMMAR_OK);
    memcpy(copy, s, grammar_state_size()); /* a fork */
    while (n > 0 && grammar_accept(g, copy, ")", 1) == GRAMMAR_OK) n--;
    CHECK(n == 0 && grammar_must_end(g, copy) && !grammar_may_end(g, s));
    CHECK(grammar_accept(g, copy, ")", 1) == GRAMMAR_REFUSED &&
          grammar_accept(g, copy, "", 0) == GRAMMAR_OK);
    s = grammar_start(g, s, grammar_state_size());
    CHECK(grammar_allows(g, s, "(((((((x))))", 12) == GRAMMAR_OK && s->n_nodes == 1);
    CHECK(grammar_allows(g, s, "((x)))", 6) == GRAMMAR_REFUSED && s->n_nodes == 1);
    free(g);
    g = must_compile("root ::= \"x\" root | \"y\""); /* a list on the right does not nest */
    s = grammar_start(g, s, grammar_state_size());
    for (n = 0; n < 50000; n++)
        if (grammar_accept(g, s, "x", 1) != GRAMMAR_OK) break;
    CHECK(n == 50000 && s->n_nodes == 1);
    CHECK(grammar_accept(NULL, s, "x", 1) == GRAMMAR_ARGUMENT &&
          grammar_accept(g, s, NULL, 1) == GRAMMAR_ARGUMENT);
    CHECK(grammar_allows(g, NULL, "x", 1) == GRAMMAR_ARGUMENT && !grammar_may_end(g, NULL));
    CHECK(grammar_mask(g, s, NULL, NULL, NULL) == GRAMMAR_ARGUMENT);
    CHECK(!grammar_start(g, s, 8) && !grammar_start(NULL, s, grammar_state_size()) &&
          !grammar_start(g, NULL, 0));
    CHECK(!grammar_vocabulary_new(NULL, 0, s, 100) && grammar_vocabulary_size(-1) == 0);
    free(g), free(s), free(copy);
    GROUP("limits: %d open brackets", 8000);
}

/* Tokens that lead to more sets of threads than fit: forgotten and made again; too long ones never come. */
static void test_many_sets(void) {
    enum { N = 40, LONG = 900 };
    static char bytes[N + 2][2 * GRAMMAR_MAX_TOKEN];
    static grammar_token tokens[N + 2];
    float logits[N + 2];
    grammar *g = must_compile("root ::= \"a\" [ab]{5000} | \"b\" [ab]{4000}");
    grammar_state *s = start(g);
    int allowed = 0;
    for (int i = 0; i < N + 2; i++) {
        memset(bytes[i], 'a', sizeof bytes[i]);
        for (int k = 0; k < 6; k++) bytes[i][k] = i >> k & 1 ? 'b' : 'a';
        tokens[i].bytes = bytes[i];
        tokens[i].size = i == N ? GRAMMAR_MAX_TOKEN : i == N + 1 ? GRAMMAR_MAX_TOKEN + 1 : LONG;
        if (i % 4 == 3) bytes[i][LONG - 1 - i] = 'c';
    }
    size_t size = grammar_vocabulary_size(N + 2);
    grammar_vocabulary *v = grammar_vocabulary_new(tokens, N + 2, malloc(size), size);
    for (int round = 0; round < 4; round++) {
        memset(logits, 0, sizeof logits);
        CHECK(grammar_mask(g, s, v, logits, &allowed) == GRAMMAR_OK && allowed == N * 3 / 4 + 1);
        for (int i = 0; i < N + 2; i++) CHECK((logits[i] < 0) == (i % 4 == 3 || i == N + 1));
        CHECK(grammar_accept(g, s, bytes[round], LONG) ==
              (round == 3 ? GRAMMAR_REFUSED : GRAMMAR_OK));
    }
    free(v), free(s), free(g);
    GROUP("long tokens");
}

/* Any bytes: a grammar that works, or one line of why not. */
static void test_random(void) {
    static const char *const parts[] = {
        "root",  " ::= ", "\n",     "|",        "(",      ")", "*", "+",  "?", "{2}",
        "{0,3}", "\"a\"", "[^a-z]", ".",        " ",      "#", "b", "\"", "]", "[",
        "\\",    "{",     "}",      "\xC3\xA9", "<[98]>", "!", "<", ">"};
    char text[400];
    int compiled = 0;
    for (int round = 0; round < 20000; round++) {
        size_t n = 0;
        int k = (int)any(30);
        n += (size_t)sprintf(text, "%s", round & 1 ? "b ::= \"b\"? [x-z] | \"\"\nroot ::= " : "");
        while (k-- > 0) n += (size_t)sprintf(text + n, "%s", parts[any(round % 4 ? 17 : 28)]);
        grammar *g = compile(text, n);
        if (!g) check(error.text[0] && !strchr(error.text, '\n'), text, "no reason");
        else {
            static grammar_state memory;
            grammar_state *s = grammar_start(g, &memory, sizeof memory);
            for (int i = 0; s && i < 30; i++) {
                char c = "abxyz\n\xC3\xA9"[any(8)];
                grammar_status may = grammar_allows(g, s, &c, 1);
                CHECK(grammar_accept(g, s, &c, 1) == may);
            }
            compiled++;
            free(g);
        }
    }
    CHECK(compiled > 500);
    GROUP("random grammars: %d of 20000 are correct", compiled);
}

int main(void) {
    test_languages();
    test_characters();
    test_tokens();
    test_whole_tokens();
    test_refused();
    test_hostile();
    test_limits();
    test_many_sets();
    test_random();
    return test_finish();
}

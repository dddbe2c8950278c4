/* chat.h - conversations to the text a chat model was trained on, by the template that its file
 * carries.  Licence: MIT.
 *
 *     #define CHAT_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "chat.h"
 *     ...
 *     chat_template *t = chat_template_load("model.gguf", &error);   (or a directory; of a split
 *                                                                     file any part)
 *     chat_message messages[] = {{"system", "Be brief."}, {"user", "Hello!"}};
 *     chat_conversation talk = {0};
 *     talk.messages = messages, talk.n_messages = 2, talk.add_generation_prompt = 1;
 *     chat_text text;
 *     if (chat_template_render(t, &talk, &text, &error) == 0)
 *         ... text.text [text.size], text.quoted [text.size]; chat_text_free(&text);
 *     chat_template_close(t);
 *
 * C99 or C++11, libc only.  Nothing here prints or exits.  An open template is read-only: any
 * number of threads may render with it at once.
 *
 * THE TEMPLATE LANGUAGE is the part of Jinja (version 3.1, as Hugging Face transformers sets it up:
 * trim_blocks, lstrip_blocks, break and continue, generation blocks) that chat templates use:
 *   statements   for (else, if, unpacking), if elif else, set (also of a block, of an attribute
 *                of a namespace), macro, call, filter, break, continue, generation
 *   expressions  everything but the percent formatting of strings; integers have 64 bits
 *   filters, tests, methods, functions   those in the tables at chi_filters, chi_tests,
 *                chi_methods, chi_functions
 * Other statements are refused by chat_template_open; other names, and what this cannot do just as
 * Jinja does it, by chat_template_render when it gets there, with the line.  Templates see:
 * messages, tools = none, documents = none, add_generation_prompt, bos_token, eos_token and the
 * caller's variables.  raise_exception makes rendering fail with its message.
 *
 * SAFETY  Templates and conversations may be hostile.  Rendering is bounded in memory (CHAT_MEMORY_LIMIT)
 * and in steps, parsing and calls in depth.  Every byte of the result knows where it is from:
 * quoted[i] is 1 if it is a message's text and 0 if the template's.  Special tokens must be looked
 * for only where it is 0, or a user could end their own turn and speak as the system.
 */
#ifndef CHAT_H
#define CHAT_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct chat_template chat_template;

typedef struct chat_error {
    char text[248]; /* one line: what is wrong, and where */
} chat_error;

typedef struct chat_message {
    const char *role;    /* "system", "user", "assistant" or what else the template knows */
    const char *content; /* UTF-8 */
} chat_message;

/* One more variable for the template, such as enable_thinking. */
typedef struct chat_variable {
    const char *name;
    const char *text; /* NULL: the variable is true or false */
    int truth;
} chat_variable;

/* All zero but for the messages = the common case. */
typedef struct chat_conversation {
    const chat_message *messages;
    int n_messages;
    int add_generation_prompt; /* end with the opening of the assistant's turn */
    const chat_variable *variables;
    int n_variables;
    const struct tm *now; /* for strftime_now; NULL = the template has no such function */
} chat_conversation;

typedef struct chat_text {
    char *text;            /* [size], and a zero byte */
    unsigned char *quoted; /* [size] 1 where text is a message's own */
    size_t size;
} chat_text;

/* What one rendering may use: bytes, and steps (about a byte or a node of the template each). */
enum { CHAT_MEMORY_LIMIT = 1 << 26, CHAT_STEP_LIMIT = 1 << 26 };

/* Parse a template; the text is copied.  NULL: *error (or NULL) says what and where. */
chat_template *chat_template_open(const char *text, size_t size, chat_error *error);

/* The template of a model, with its bos_token and eos_token: of a GGUF file, of a Hugging Face
 * directory (chat_template.jinja or tokenizer_config.json) or of a tokenizer_config.json. */
chat_template *chat_template_load(const char *path, chat_error *error);

/* A template of ours for a known format: "chatml", "llama2", "llama3", "mistral", "gemma", "phi3",
 * "zephyr", "command-r", "deepseek", "deepseek3", "qwen", "smollm", "olmo", "granite".  For models
 * whose file has none. */
chat_template *chat_template_named(const char *name, chat_error *error);
const char *chat_template_name(int i); /* of the i-th of these, NULL past the last */

void chat_template_close(chat_template *t); /* NULL is ignored */

/* Text of bos_token (or eos_token) for templates that use it; NULL = not defined.  0, or -1 if
 * memory runs out.  A template that was loaded or is one of ours has them already. */
int chat_template_set_tokens(chat_template *t, const char *bos, const char *eos);

/* 0, or -1 with the reason. */
int chat_template_render(const chat_template *t, const chat_conversation *conversation,
                         chat_text *out, chat_error *error);
void chat_text_free(chat_text *text);

#ifdef __cplusplus
}
#endif
#endif /* CHAT_H */

#ifdef CHAT_IMPLEMENTATION
#ifndef CHAT_IMPLEMENTED
#define CHAT_IMPLEMENTED

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

static void chi_error(chat_error *error, const char *format, ...) {
    va_list args;
    if (error == NULL) return;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
}

/* ---- memory: blocks that go all at once ---- */

typedef struct chi_block {
    struct chi_block *next;
    size_t used, size;
} chi_block;

typedef struct chi_arena {
    chi_block *blocks;
    size_t left; /* bytes that may still be asked for */
} chi_arena;

/* Zeroed memory, or NULL. */
static void *chi_take(chi_arena *a, size_t size) {
    if (size > a->left) return NULL;
    size = (size + 15) / 16 * 16;
    chi_block *block = a->blocks;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > 8192 ? size : 8192;
        block = (chi_block *)calloc(1, sizeof(chi_block) + 16 + room);
        if (block == NULL) return NULL;
        block->size = room;
        block->next = a->blocks;
        a->blocks = block;
    }
    char *memory = (char *)(block + 1);
    memory += (16 - ((uintptr_t)memory & 15)) & 15;
    memory += block->used;
    block->used += size;
    a->left -= size < a->left ? size : a->left;
    return memory;
}

static void chi_free(chi_arena *a) {
    while (a->blocks) {
        chi_block *next = a->blocks->next;
        free(a->blocks);
        a->blocks = next;
    }
}

/* ---- text ---- */

typedef struct chi_slice {
    const char *text;
    size_t size;
} chi_slice;

static int chi_is(chi_slice s, const char *word) {
    return s.size == strlen(word) && memcmp(s.text, word, s.size) == 0;
}

static chi_slice chi_slice_of_text(const char *text) {
    chi_slice s = {text, strlen(text)};
    return s;
}

static int chi_same(chi_slice a, chi_slice b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.text, b.text, a.size) == 0);
}

/* Bytes of the character that s [n >= 1] begins with: up to the next byte that begins one. */
static size_t chi_char_size(const char *s, size_t n) {
    size_t i = 1;
    while (i < n && ((unsigned char)s[i] & 0xC0) == 0x80) i++;
    return i;
}

/* Is the character s [size] white space as Python's str.isspace has it? */
static int chi_is_space(const char *s, size_t size) {
    static const char *const spaces[] = {"\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80",
                                         "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF",
                                         "\xE2\x81\x9F", "\xE3\x80\x80"};
    unsigned char c = (unsigned char)s[0];
    if (size == 1) return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
    if (size == 3 && memcmp(s, "\xE2\x80", 2) == 0 && (unsigned char)s[2] <= 0x8A) return 1;
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        if (size == strlen(spaces[i]) && memcmp(s, spaces[i], size) == 0) return 1;
    return 0;
}

static size_t chi_last_char_size(const char *s, size_t n) {
    size_t i = 1;
    while (i < n && ((unsigned char)s[n - i] & 0xC0) == 0x80) i++;
    return i;
}

/* Is the character s [size] one of those in set?  An empty set is white space. */
static int chi_in_set(const char *s, size_t size, chi_slice set) {
    if (set.text == NULL) return chi_is_space(s, size);
    for (size_t i = 0, n; i < set.size; i += n) {
        n = chi_char_size(set.text + i, set.size - i);
        if (n == size && memcmp(set.text + i, s, n) == 0) return 1;
    }
    return 0;
}

/* How many bytes at the left (right) of s are characters of the set. */
static size_t chi_span(chi_slice s, chi_slice set, int right) {
    size_t at = 0, n;
    while (at < s.size) {
        n = right ? chi_last_char_size(s.text, s.size - at)
                  : chi_char_size(s.text + at, s.size - at);
        if (!chi_in_set(right ? s.text + s.size - at - n : s.text + at, n, set)) break;
        at += n;
    }
    return at;
}

/* Bytes of the code point, written to out [4]. */
static int chi_utf8(unsigned long c, char *out) {
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(n == 1 ? c : n == 2 ? 0xC0 | c : n == 3 ? 0xE0 | c : 0xF0 | (c & 7));
    return n;
}

static int chi_hex(const char *s, const char *end, int digits, unsigned long *value) {
    *value = 0;
    if (end - s < digits) return -1;
    for (int i = 0; i < digits; i++) {
        int c = (unsigned char)s[i];
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0) return -1;
        *value = *value * 16 + (unsigned long)v;
    }
    return 0;
}

/* ---- the syntax tree ---- */

enum chi_kind {
    /* statements */
    CHI_TEXT,     /* text */
    CHI_PRINT,    /* a */
    CHI_IF,       /* a condition, b body, c what else */
    CHI_FOR,      /* a targets, b iterable, c body, d else, e condition */
    CHI_SET,      /* a target, b value */
    CHI_MACRO,    /* text name, a parameters, b body; integer: 1 if it calls its caller */
    CHI_BREAK,    /**/
    CHI_CONTINUE, /**/
    CHI_SCOPE,    /* b body */
    /* expressions */
    CHI_NAME,      /* text */
    CHI_STRING,    /* text */
    CHI_INTEGER,   /* integer */
    CHI_NUMBER,    /* number */
    CHI_CONSTANT,  /* integer: 0 false, 1 true, 2 none */
    CHI_LIST,      /* a items; integer: 1 if a tuple */
    CHI_DICT,      /* a keys and values in turn */
    CHI_ATTRIBUTE, /* a object, text name */
    CHI_INDEX,     /* a object, b key */
    CHI_SLICE,     /* a object, b first, c end, d step; each may be NULL */
    CHI_CALL,      /* a callee, b arguments */
    CHI_FILTER,    /* text name, a value, b arguments */
    CHI_TEST,      /* text name, a value, b arguments */
    CHI_KEYWORD,   /* text name, a value: an argument, or a parameter with a default */
    CHI_STAR,      /* a list: arguments one by one */
    CHI_WRITTEN,   /* b body: what it writes */
    CHI_CALLER,    /* as CHI_MACRO, without a name: the body of a call block */
    CHI_NOT,       /* a */
    CHI_NEGATE,    /* a */
    CHI_PLUS,      /* a */
    CHI_AND,       /* a, b */
    CHI_OR,        /* a, b */
    CHI_BINARY,    /* a, b; text operator */
    CHI_CHOICE     /* a condition, b, c */
};

typedef struct chi_node {
    int kind, line;
    chi_slice text;
    int64_t integer;
    double number;
    struct chi_node *a, *b, *c, *d, *e;
    struct chi_node *next; /* in a list */
} chi_node;

struct chat_template {
    chi_arena arena;
    chi_node *body;
    char *bos, *eos; /* NULL = not defined */
};

/* ---- the lexer: text and tags in turn; inside a tag, tokens ---- */

enum chi_token { CHI_T_END, CHI_T_NAME, CHI_T_STRING, CHI_T_INTEGER, CHI_T_NUMBER, CHI_T_OPERATOR };

enum { CHI_MAX_DEPTH = 200, CHI_MAX_EVALUATION = 400 };

typedef struct chi_parser {
    chi_arena *arena;
    chat_error *error;
    int failed;
    const char *at, *end;
    int line, line_starts; /* the text comes right after a newline that a tag took with it */
    int tag;               /* the character that opened the present tag: % or { */
    int brackets;          /* open ones, inside the tag */
    int depth;
    int calls_caller; /* the macro at hand does */
    int token;
    chi_slice text; /* of the token; of strings what they stand for */
} chi_parser;

static void chi_syntax(chi_parser *p, const char *format, ...) {
    char text[160];
    va_list args;
    if (p->failed) return;
    p->failed = 1;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    chi_error(p->error, "chat template, line %d: %s", p->line, text);
}

static void *chi_parser_take(chi_parser *p, size_t size) {
    void *memory = chi_take(p->arena, size);
    if (memory == NULL) chi_syntax(p, "out of memory");
    return memory;
}

static void chi_skip(chi_parser *p, size_t n) {
    for (size_t i = 0; i < n; i++) p->line += p->at[i] == '\n';
    p->at += n;
}

static void chi_skip_space(chi_parser *p) {
    static const chi_slice space = {NULL, 0};
    chi_slice rest = {p->at, (size_t)(p->end - p->at)};
    chi_skip(p, chi_span(rest, space, 0));
}

static int chi_ahead(const chi_parser *p, const char *word) {
    size_t n = strlen(word);
    return (size_t)(p->end - p->at) >= n && memcmp(p->at, word, n) == 0;
}

/* Leaves a tag or comment that closes with the two characters in close. */
static int chi_close(chi_parser *p, const char *close) {
    int sign = p->at < p->end && (*p->at == '-' || *p->at == '+') ? *p->at : 0;
    if (p->end - p->at < (sign ? 3 : 2) || memcmp(p->at + (sign != 0), close, 2) != 0) return 0;
    p->at += sign ? 3 : 2;
    p->line_starts = 0;
    if (sign == '-') {
        const char *from = p->at;
        chi_skip_space(p);
        p->line_starts = p->at > from && p->at[-1] == '\n';
    } else if (close[0] != '}' && sign != '+' && p->at < p->end && *p->at == '\n') {
        chi_skip(p, 1);
        p->line_starts = 1;
    }
    return 1;
}

static int chi_octal(const char **s, const char *end, unsigned long *value) {
    *value = 0;
    for (int i = 0; i < 3 && *s < end && **s >= '0' && **s <= '7'; i++, ++*s)
        *value = *value * 8 + (unsigned long)(**s - '0');
    return 0;
}

/* The character that the escape behind a backslash stands for; *s moves behind it.  -1: none. */
static int chi_escape(const char **s, const char *end, unsigned long *value) {
    static const char names[] = "ntr\\'\"abfv", values[] = "\n\t\r\\'\"\a\b\f\v";
    const char *name = (const char *)memchr(names, **s, sizeof names - 1);
    int digits = **s == 'x' ? 2 : **s == 'u' ? 4 : **s == 'U' ? 8 : 0;
    if (**s >= '0' && **s <= '7') return chi_octal(s, end, value);
    if (name) {
        *value = (unsigned char)values[name - names];
        ++*s;
        return 0;
    }
    if (digits == 0 || chi_hex(*s + 1, end, digits, value) != 0 || *value > 0x10FFFF) return -1;
    *s += 1 + digits;
    return 0;
}

static void chi_lex_string(chi_parser *p) {
    char quote = *p->at;
    const char *s = p->at + 1, *close = s;
    while (close < p->end && *close != quote) close += *close == '\\' ? 2 : 1;
    if (close >= p->end) {
        chi_syntax(p, "a string without an end");
        return;
    }
    char *out = (char *)chi_parser_take(p, (size_t)(close - s) + 4);
    p->token = CHI_T_STRING;
    p->text.text = out;
    p->text.size = 0;
    chi_skip(p, (size_t)(close + 1 - p->at));
    while (!p->failed && s < close) {
        unsigned long value;
        if (*s != '\\') {
            out[p->text.size++] = *s++;
        } else if (++s, *s == '\n') {
            s++;
        } else if (chi_escape(&s, close, &value) == 0) {
            p->text.size += (size_t)chi_utf8(value, out + p->text.size);
        } else {
            out[p->text.size++] = '\\';
        }
    }
}

static int chi_is_digit(int c) { return c >= '0' && c <= '9'; }

static int chi_is_word(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void chi_lex_number(chi_parser *p) {
    const char *s = p->at;
    p->token = CHI_T_INTEGER;
    while (s < p->end && ((*s >= '0' && *s <= '9') || *s == '_')) s++;
    if (s + 1 < p->end && *s == '.' && s[1] >= '0' && s[1] <= '9') {
        p->token = CHI_T_NUMBER;
        for (s++; s < p->end && *s >= '0' && *s <= '9';) s++;
    }
    p->text.text = p->at;
    p->text.size = (size_t)(s - p->at);
    if (memchr(p->at, '_', p->text.size) || (s < p->end && chi_is_word((unsigned char)*s)))
        chi_syntax(p, "a number of a form that is not supported");
    p->at = s;
}

/* The next token of the tag. */
static void chi_next(chi_parser *p) {
    static const char *const twos[] = {"==", "!=", "<=", ">=", "//", "**"};
    p->token = CHI_T_END;
    p->text.text = "the end of the tag";
    p->text.size = 18;
    chi_skip_space(p);
    if (p->failed || (p->brackets == 0 && chi_close(p, p->tag == '%' ? "%}" : "}}"))) return;
    if (p->at == p->end) {
        chi_syntax(p, "a tag without an end");
        return;
    }
    unsigned char c = (unsigned char)*p->at;
    if (c == '"' || c == '\'') {
        chi_lex_string(p);
    } else if (c >= '0' && c <= '9') {
        chi_lex_number(p);
    } else if (chi_is_word(c)) {
        const char *s = p->at;
        while (s < p->end && chi_is_word((unsigned char)*s)) s++;
        p->token = CHI_T_NAME;
        p->text.text = p->at;
        p->text.size = (size_t)(s - p->at);
        p->at = s;
    } else if (c < 0x20 || c > 0x7E || strchr("+-*/%~()[]{}<>=!.,:|;", c) == NULL) {
        chi_syntax(p, "unexpected byte 0x%02x in a tag", c);
    } else {
        p->token = CHI_T_OPERATOR;
        p->text.text = p->at;
        p->text.size = 1;
        for (int i = 0; i < 6; i++)
            if (chi_ahead(p, twos[i])) p->text.size = 2;
        p->brackets += strchr("([{", c) != NULL ? 1 : strchr(")]}", c) != NULL ? -1 : 0;
        p->at += p->text.size;
        if (p->brackets < 0) chi_syntax(p, "a closing bracket that was not opened");
    }
}

/* ---- expressions, loosest first, as in Jinja's grammar ---- */

static chi_node *chi_new(chi_parser *p, int kind) {
    chi_node *node = (chi_node *)chi_parser_take(p, sizeof *node);
    if (node == NULL) return NULL;
    node->kind = kind;
    node->line = p->line;
    node->text = p->text;
    return node;
}

static chi_node *chi_node2(chi_parser *p, int kind, chi_node *a, chi_node *b) {
    chi_node *node = chi_new(p, kind);
    if (node) node->a = a, node->b = b;
    return node;
}

static int chi_at_operator(const chi_parser *p, const char *text) {
    return p->token == CHI_T_OPERATOR && chi_is(p->text, text);
}

static int chi_at_name(const chi_parser *p, const char *text) {
    return p->token == CHI_T_NAME && chi_is(p->text, text);
}

static int chi_accept(chi_parser *p, const char *text) {
    if (!chi_at_operator(p, text) && !chi_at_name(p, text)) return 0;
    chi_next(p);
    return !p->failed;
}

static void chi_expect(chi_parser *p, const char *text) {
    if (!p->failed && !chi_accept(p, text) && !p->failed)
        chi_syntax(p, "'%s' is missing before '%.*s'", text,
                   (int)(p->text.size < 40 ? p->text.size : 40), p->text.text);
}

static chi_slice chi_expect_name(chi_parser *p) {
    chi_slice name = p->text;
    if (p->token != CHI_T_NAME) chi_syntax(p, "a name is missing");
    chi_next(p);
    return name;
}

static chi_node *chi_expression(chi_parser *p);
static chi_node *chi_unary(chi_parser *p, int with_filters);

/* Items up to the closing bracket, separated by commas; if keywords are allowed, name=value and
 * *list are items too. */
static chi_node *chi_items(chi_parser *p, const char *close, int keywords, int *trailing) {
    chi_node *first = NULL, **last = &first;
    *trailing = 0;
    while (!p->failed && !chi_at_operator(p, close)) {
        int star = keywords && chi_accept(p, "*");
        chi_node *item = chi_expression(p);
        if (star) {
            item = chi_node2(p, CHI_STAR, item, NULL);
        } else if (keywords && !p->failed && item->kind == CHI_NAME && chi_at_operator(p, "=")) {
            chi_next(p);
            item->kind = CHI_KEYWORD;
            item->a = chi_expression(p);
        }
        if (p->failed) break;
        *last = item;
        last = &item->next;
        *trailing = chi_accept(p, ",");
        if (!*trailing) break;
    }
    chi_expect(p, close);
    return first;
}

static chi_node *chi_dict(chi_parser *p) {
    chi_node *dict = chi_new(p, CHI_DICT), **last = dict ? &dict->a : NULL;
    while (!p->failed && !chi_at_operator(p, "}")) {
        for (int part = 0; part < 2 && !p->failed; part++) {
            if (part) chi_expect(p, ":");
            chi_node *item = chi_expression(p);
            if (p->failed || !last) break;
            *last = item;
            last = &item->next;
        }
        if (!chi_accept(p, ",")) break;
    }
    chi_expect(p, "}");
    return dict;
}

static int64_t chi_parse_integer(chi_parser *p, chi_slice text) {
    int64_t value = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (value > (INT64_MAX - 9) / 10) {
            chi_syntax(p, "a number too large");
            return 0;
        }
        value = value * 10 + (text.text[i] - '0');
    }
    return value;
}

static double chi_parse_number(chi_slice text) {
    char copy[64];
    size_t n = text.size < sizeof copy - 1 ? text.size : sizeof copy - 1;
    memcpy(copy, text.text, n);
    copy[n] = 0;
    return strtod(copy, NULL);
}

/* Strings that follow one another are one. */
static chi_node *chi_strings(chi_parser *p) {
    chi_node *node = chi_new(p, CHI_STRING);
    chi_next(p);
    while (!p->failed && p->token == CHI_T_STRING) {
        char *joined = (char *)chi_parser_take(p, node->text.size + p->text.size + 1);
        if (joined == NULL) break;
        memcpy(joined, node->text.text, node->text.size);
        memcpy(joined + node->text.size, p->text.text, p->text.size);
        node->text.text = joined;
        node->text.size += p->text.size;
        chi_next(p);
    }
    return node;
}

static chi_node *chi_name_or_constant(chi_parser *p) {
    static const struct {
        const char *name;
        int value;
    } constants[] = {{"false", 0}, {"False", 0}, {"true", 1},
                     {"True", 1},  {"none", 2},  {"None", 2}};
    chi_node *node = chi_new(p, CHI_NAME);
    for (size_t i = 0; node && i < sizeof constants / sizeof constants[0]; i++)
        if (chi_is(p->text, constants[i].name)) {
            node->kind = CHI_CONSTANT;
            node->integer = constants[i].value;
        }
    p->calls_caller |= chi_is(p->text, "caller");
    chi_next(p);
    return node;
}

static chi_node *chi_brackets(chi_parser *p) {
    int tuple = chi_at_operator(p, "("), trailing;
    chi_node *node = chi_new(p, CHI_LIST);
    chi_next(p);
    chi_node *items = chi_items(p, tuple ? ")" : "]", 0, &trailing);
    if (p->failed) return node;
    if (tuple && items && !items->next && !trailing) return items;
    node->integer = tuple;
    node->a = items;
    return node;
}

static chi_node *chi_primary(chi_parser *p) {
    chi_node *node = NULL;
    if (p->failed) return NULL;
    if (p->token == CHI_T_NAME) return chi_name_or_constant(p);
    if (p->token == CHI_T_STRING) return chi_strings(p);
    if (p->token == CHI_T_INTEGER || p->token == CHI_T_NUMBER) {
        node = chi_new(p, p->token == CHI_T_INTEGER ? CHI_INTEGER : CHI_NUMBER);
        if (node && node->kind == CHI_INTEGER) node->integer = chi_parse_integer(p, p->text);
        else if (node) node->number = chi_parse_number(p->text);
        chi_next(p);
        return node;
    }
    if (chi_at_operator(p, "(") || chi_at_operator(p, "[")) return chi_brackets(p);
    if (chi_accept(p, "{")) return chi_dict(p);
    chi_syntax(p, "unexpected '%.*s'", (int)(p->text.size < 40 ? p->text.size : 40), p->text.text);
    return NULL;
}

/* object[key] or object[first:end:step], behind the bracket. */
static chi_node *chi_subscript(chi_parser *p, chi_node *object) {
    chi_node *parts[3] = {NULL, NULL, NULL};
    int n = 0;
    while (!p->failed && n < 3) {
        if (!chi_at_operator(p, ":") && !chi_at_operator(p, "]")) parts[n] = chi_expression(p);
        n++;
        if (!chi_accept(p, ":")) break;
    }
    chi_expect(p, "]");
    if (!p->failed && n == 1 && parts[0] == NULL) chi_syntax(p, "an empty subscript");
    chi_node *node = chi_node2(p, n == 1 ? CHI_INDEX : CHI_SLICE, object, parts[0]);
    if (node) node->c = parts[1], node->d = parts[2];
    return node;
}

static chi_node *chi_call(chi_parser *p, int kind, chi_node *callee, chi_slice name) {
    int trailing;
    chi_node *node = chi_node2(p, kind, callee, NULL);
    if (node) node->text = name;
    if (chi_accept(p, "(")) {
        chi_node *arguments = chi_items(p, ")", 1, &trailing);
        if (node) node->b = arguments;
    }
    return node;
}

static chi_node *chi_postfix(chi_parser *p, chi_node *node) {
    while (!p->failed) {
        if (chi_accept(p, ".")) {
            chi_node *attribute;
            if (p->token == CHI_T_INTEGER) {
                attribute = chi_node2(p, CHI_INDEX, node, chi_primary(p));
            } else {
                attribute = chi_node2(p, CHI_ATTRIBUTE, node, NULL);
                chi_expect_name(p);
            }
            node = attribute;
        } else if (chi_accept(p, "[")) {
            node = chi_subscript(p, node);
        } else if (chi_at_operator(p, "(")) {
            node = chi_call(p, CHI_CALL, node, p->text);
        } else {
            break;
        }
    }
    return node;
}

/* Does the argument of a test begin here?  Words that Jinja would take for one are refused. */
static int chi_at_test_argument(chi_parser *p) {
    static const char *const refused[] = {"is", "if", "not", "in"};
    if (p->failed || chi_at_name(p, "else") || chi_at_name(p, "or") || chi_at_name(p, "and"))
        return 0;
    for (int i = 0; i < 4; i++)
        if (chi_at_name(p, refused[i])) chi_syntax(p, "'%s' right after a test", refused[i]);
    return p->token == CHI_T_NAME || p->token == CHI_T_STRING || p->token == CHI_T_INTEGER ||
           p->token == CHI_T_NUMBER || chi_at_operator(p, "[") || chi_at_operator(p, "{");
}

/* value is [not] name, name(arguments) or name argument. */
static chi_node *chi_test(chi_parser *p, chi_node *value) {
    int negated = chi_accept(p, "not");
    chi_slice name = chi_expect_name(p);
    int brackets = chi_at_operator(p, "(");
    chi_node *test = chi_call(p, CHI_TEST, value, name);
    if (!brackets && chi_at_test_argument(p) && !p->failed)
        test->b = chi_postfix(p, chi_primary(p));
    return negated ? chi_node2(p, CHI_NOT, test, NULL) : test;
}

static chi_node *chi_filters_of(chi_parser *p, chi_node *node) {
    while (!p->failed) {
        if (chi_accept(p, "|")) {
            chi_slice name = chi_expect_name(p);
            node = chi_call(p, CHI_FILTER, node, name);
        } else if (chi_accept(p, "is")) {
            node = chi_test(p, node);
        } else if (chi_at_operator(p, "(")) {
            node = chi_call(p, CHI_CALL, node, p->text);
        } else {
            break;
        }
    }
    return node;
}

static chi_node *chi_unary(chi_parser *p, int with_filters) {
    chi_node *node;
    if (++p->depth > CHI_MAX_DEPTH) chi_syntax(p, "nested too deeply");
    if (p->failed) return NULL;
    if (chi_accept(p, "-")) node = chi_node2(p, CHI_NEGATE, chi_unary(p, 0), NULL);
    else if (chi_accept(p, "+")) node = chi_node2(p, CHI_PLUS, chi_unary(p, 0), NULL);
    else node = chi_postfix(p, chi_primary(p));
    p->depth--;
    return with_filters ? chi_filters_of(p, node) : node;
}

/* The operators of each level, loosest first; below them is unary. */
static const char *const chi_levels[4][5] = {
    {"+", "-", NULL}, {"~", NULL}, {"*", "/", "//", "%", NULL}, {"**", NULL}};

static chi_node *chi_binary(chi_parser *p, int level) {
    chi_node *left = level == 3 ? chi_unary(p, 1) : chi_binary(p, level + 1);
    for (int i = 0; !p->failed && chi_levels[level][i] != NULL; i++) {
        if (!chi_at_operator(p, chi_levels[level][i])) continue;
        chi_node *node = chi_node2(p, CHI_BINARY, left, NULL);
        chi_next(p);
        chi_node *right = level == 3 ? chi_unary(p, 1) : chi_binary(p, level + 1);
        if (p->failed) return NULL;
        node->b = right;
        left = node;
        i = -1; /* the same level again */
    }
    return left;
}

/* The comparison operator at hand, or one of no size; passed over. */
static chi_slice chi_comparison(chi_parser *p) {
    static const char *const operators[] = {"==", "!=", "<", ">", "<=", ">=", "in"};
    chi_slice found = {"", 0}, not_in = {"not in", 6};
    for (int i = 0; i < 7; i++)
        if (chi_at_operator(p, operators[i]) || chi_at_name(p, operators[i])) found = p->text;
    if (found.size > 0) {
        chi_next(p);
    } else if (chi_at_name(p, "not")) { /* an infix not can only be that of not in */
        chi_next(p);
        chi_expect(p, "in");
        found = not_in;
    }
    return found;
}

static chi_node *chi_compare(chi_parser *p) {
    chi_node *left = chi_binary(p, 0), *result = NULL;
    while (!p->failed) {
        chi_slice operation = chi_comparison(p);
        if (operation.size == 0) break;
        chi_node *right = chi_binary(p, 0);
        chi_node *node = chi_node2(p, CHI_BINARY, left, right);
        if (p->failed) break;
        node->text = operation;
        result = result ? chi_node2(p, CHI_AND, result, node) : node; /* a < b < c */
        left = right;
    }
    return result ? result : left;
}

static chi_node *chi_not(chi_parser *p) {
    int n = 0;
    while (chi_accept(p, "not")) n++;
    chi_node *node = chi_compare(p);
    if (n % 2) return chi_node2(p, CHI_NOT, node, NULL);
    return n ? chi_node2(p, CHI_NOT, chi_node2(p, CHI_NOT, node, NULL), NULL) : node;
}

static chi_node *chi_and(chi_parser *p) {
    chi_node *left = chi_not(p);
    while (!p->failed && chi_accept(p, "and")) left = chi_node2(p, CHI_AND, left, chi_not(p));
    return left;
}

static chi_node *chi_or(chi_parser *p) {
    chi_node *left = chi_and(p);
    while (!p->failed && chi_accept(p, "or")) left = chi_node2(p, CHI_OR, left, chi_and(p));
    return left;
}

static chi_node *chi_expression(chi_parser *p) {
    if (++p->depth > CHI_MAX_DEPTH) chi_syntax(p, "nested too deeply");
    if (p->failed) return NULL;
    chi_node *value = chi_or(p);
    while (!p->failed && chi_accept(p, "if")) {
        chi_node *node = chi_node2(p, CHI_CHOICE, chi_or(p), value);
        if (!p->failed && chi_accept(p, "else")) node->c = chi_expression(p);
        value = node;
    }
    p->depth--;
    return value;
}

/* An expression, or several with commas between, which are a tuple. */
static chi_node *chi_tuple(chi_parser *p) {
    chi_node *first = chi_expression(p);
    if (p->failed || !chi_at_operator(p, ",")) return first;
    chi_node *tuple = chi_node2(p, CHI_LIST, first, NULL), *last = first;
    if (tuple) tuple->integer = 1;
    while (!p->failed && chi_accept(p, ",") && p->token != CHI_T_END) {
        last->next = chi_expression(p);
        last = last->next;
    }
    return tuple;
}

/* ---- statements ---- */

static chi_node *chi_statements(chi_parser *p, const char *const *ends);

static void chi_end_of_tag(chi_parser *p) {
    if (!p->failed && p->token != CHI_T_END)
        chi_syntax(p, "'%.*s' was not expected", (int)(p->text.size < 40 ? p->text.size : 40),
                   p->text.text);
}

/* The statements up to one of the words in ends, which is then the present token. */
static chi_node *chi_body(chi_parser *p, const char *const *ends) {
    chi_end_of_tag(p);
    return chi_statements(p, ends);
}

static void chi_end(chi_parser *p, const char *word) {
    chi_expect(p, word);
    if (!p->failed && p->token == CHI_T_NAME) chi_next(p); /* endmacro NAME */
    chi_end_of_tag(p);
}

static chi_node *chi_if(chi_parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif",
                                                                                        NULL};
    chi_node *node = chi_new(p, CHI_IF);
    chi_node *condition = chi_tuple(p), *body = chi_body(p, ends), *otherwise = NULL;
    if (p->failed) return NULL;
    if (++p->depth > CHI_MAX_DEPTH) chi_syntax(p, "nested too deeply");
    if (chi_accept(p, "elif")) {
        otherwise = chi_if(p); /* takes the endif */
    } else {
        if (chi_accept(p, "else")) otherwise = chi_body(p, last);
        chi_end(p, "endif");
    }
    p->depth--;
    node->a = condition, node->b = body, node->c = otherwise;
    return node;
}

/* A name, several, or (where it may be) an attribute of a name. */
static chi_node *chi_target(chi_parser *p, int attribute) {
    chi_node *first = NULL, **last = &first;
    int n = 0, bracket = chi_accept(p, "(");
    do {
        chi_node *name = chi_new(p, CHI_NAME);
        chi_expect_name(p);
        if (attribute && n == 0 && chi_accept(p, ".")) {
            name = chi_node2(p, CHI_ATTRIBUTE, name, NULL);
            chi_expect_name(p);
        }
        if (p->failed) return NULL;
        *last = name;
        last = &name->next;
        n++;
    } while (chi_accept(p, ","));
    if (bracket) chi_expect(p, ")");
    return first;
}

static chi_node *chi_for(chi_parser *p) {
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    chi_node *node = chi_new(p, CHI_FOR);
    chi_node *targets = chi_target(p, 0), *condition = NULL, *otherwise = NULL;
    chi_expect(p, "in");
    chi_node *iterable = chi_or(p); /* an if here filters, it does not choose */
    if (!p->failed && chi_accept(p, "if")) condition = chi_expression(p);
    chi_node *body = chi_body(p, ends);
    if (!p->failed && chi_accept(p, "else")) otherwise = chi_body(p, last);
    chi_end(p, "endfor");
    if (p->failed) return NULL;
    node->a = targets, node->b = iterable, node->c = body, node->d = otherwise, node->e = condition;
    return node;
}

/* name | name(arguments) | ... of value. */
static chi_node *chi_named_filters(chi_parser *p, chi_node *value) {
    do {
        chi_slice name = chi_expect_name(p);
        value = chi_call(p, CHI_FILTER, value, name);
    } while (!p->failed && chi_accept(p, "|"));
    return value;
}

static chi_node *chi_filter(chi_parser *p) {
    static const char *const ends[] = {"endfilter", NULL};
    chi_node *written = chi_new(p, CHI_WRITTEN);
    chi_node *node = chi_node2(p, CHI_PRINT, chi_named_filters(p, written), NULL);
    chi_node *body = chi_body(p, ends);
    chi_end(p, "endfilter");
    if (written) written->b = body;
    return node;
}

static chi_node *chi_set(chi_parser *p) {
    static const char *const ends[] = {"endset", NULL};
    chi_node *node = chi_new(p, CHI_SET), *target = chi_target(p, 1), *value;
    if (!p->failed && chi_accept(p, "=")) {
        value = chi_tuple(p);
        chi_end_of_tag(p);
    } else {
        chi_node *written = chi_new(p, CHI_WRITTEN);
        value = chi_accept(p, "|") ? chi_named_filters(p, written) : written;
        chi_node *body = chi_body(p, ends);
        chi_end(p, "endset");
        if (written) written->b = body;
    }
    if (p->failed) return NULL;
    node->a = target, node->b = value;
    return node;
}

/* (parameters), the end of the tag and the body up to `end`, for the macro in node. */
static void chi_macro_body(chi_parser *p, chi_node *node, const char *end) {
    const char *ends[2] = {NULL, NULL};
    int trailing, outer = p->calls_caller;
    chi_node *parameters = node->a, *body;
    ends[0] = end;
    p->calls_caller = 0;
    if (node->kind == CHI_MACRO) chi_expect(p, "(");
    if (node->kind == CHI_MACRO) parameters = chi_items(p, ")", 1, &trailing);
    for (chi_node *x = parameters; x && !p->failed; x = x->next)
        if (x->kind != CHI_NAME && x->kind != CHI_KEYWORD) chi_syntax(p, "a parameter is no name");
    body = chi_body(p, ends);
    chi_end(p, end);
    if (p->failed) return;
    node->a = parameters, node->b = body, node->integer = p->calls_caller;
    p->calls_caller |= outer;
}

static chi_node *chi_macro(chi_parser *p) {
    chi_node *node = chi_new(p, CHI_MACRO);
    chi_expect_name(p);
    if (!p->failed) chi_macro_body(p, node, "endmacro");
    return node;
}

/* call(parameters) macro(arguments): the body goes to the macro as an argument named caller. */
static chi_node *chi_call_block(chi_parser *p) {
    int trailing;
    chi_node *caller = chi_new(p, CHI_CALLER), *argument = chi_node2(p, CHI_KEYWORD, caller, NULL);
    if (chi_accept(p, "(") && caller) caller->a = chi_items(p, ")", 1, &trailing);
    chi_node *call = chi_expression(p), **last;
    if (p->failed) return NULL;
    if (call->kind != CHI_CALL) {
        chi_syntax(p, "a call block needs a call");
        return NULL;
    }
    argument->text = chi_slice_of_text("caller");
    for (last = &call->b; *last; last = &(*last)->next) continue;
    *last = argument;
    chi_macro_body(p, caller, "endcall");
    return chi_node2(p, CHI_PRINT, call, NULL);
}

static chi_node *chi_flow(chi_parser *p, int kind) {
    chi_node *node = chi_new(p, kind);
    chi_end_of_tag(p);
    return node;
}

static chi_node *chi_break(chi_parser *p) { return chi_flow(p, CHI_BREAK); }
static chi_node *chi_continue(chi_parser *p) { return chi_flow(p, CHI_CONTINUE); }

static chi_node *chi_generation(chi_parser *p) {
    static const char *const ends[] = {"endgeneration", NULL};
    chi_node *node = chi_new(p, CHI_SCOPE), *body = chi_body(p, ends);
    chi_end(p, "endgeneration");
    if (node) node->b = body;
    return node;
}

static const struct {
    const char *name;
    chi_node *(*parse)(chi_parser *);
} chi_keywords[] = {
    {"if", chi_if},       {"for", chi_for},           {"set", chi_set},
    {"macro", chi_macro}, {"call", chi_call_block},   {"filter", chi_filter},
    {"break", chi_break}, {"continue", chi_continue}, {"generation", chi_generation}};

static chi_node *chi_statement(chi_parser *p) {
    for (size_t i = 0; i < sizeof chi_keywords / sizeof chi_keywords[0]; i++)
        if (chi_at_name(p, chi_keywords[i].name)) {
            chi_next(p);
            return p->failed ? NULL : chi_keywords[i].parse(p);
        }
    chi_syntax(p, "the statement '%.*s' is not supported here",
               (int)(p->text.size < 40 ? p->text.size : 40), p->text.text);
    return NULL;
}

/* The text up to the next tag, shortened as the tag asks; NULL if nothing is left of it.  p->tag
 * becomes the character of the tag, 0 at the end of the template. */
static chi_node *chi_lex_text(chi_parser *p) {
    static const chi_slice space = {NULL, 0};
    const char *from = p->at, *s = from;
    while (s < p->end && !(*s == '{' && s + 1 < p->end && strchr("{%#", s[1]) && s[1])) s++;
    chi_slice text = {from, (size_t)(s - from)};
    chi_node *node = NULL;
    chi_skip(p, text.size);
    p->tag = 0;
    if (s < p->end) {
        int sign = s + 2 < p->end && (s[2] == '-' || s[2] == '+') ? s[2] : 0;
        p->tag = s[1];
        p->at += sign ? 3 : 2;
        if (sign == '-') text.size -= chi_span(text, space, 1);
        else if (sign == 0 && p->tag != '{') { /* lstrip_blocks */ size_t line = text.size;
            while (line > 0 && text.text[line - 1] != '\n') line--;
            chi_slice rest = {text.text + line, text.size - line};
            if ((line > 0 || p->line_starts) && chi_span(rest, space, 0) == rest.size)
                text.size = line;
        }
    }
    if (text.size > 0) node = chi_new(p, CHI_TEXT);
    if (node) node->text = text;
    return node;
}

static void chi_comment(chi_parser *p) {
    while (!p->failed && !chi_close(p, "#}")) {
        if (p->at == p->end) chi_syntax(p, "a comment without an end");
        else chi_skip(p, 1);
    }
}

static chi_node *chi_print(chi_parser *p) {
    chi_next(p);
    chi_node *node = chi_new(p, CHI_PRINT), *value = chi_tuple(p);
    chi_end_of_tag(p);
    if (node) node->a = value;
    return node;
}

/* Up to the end of the template (ends NULL) or a tag that begins with one of ends. */
static chi_node *chi_statements(chi_parser *p, const char *const *ends) {
    chi_node *first = NULL, **last = &first;
    if (++p->depth > CHI_MAX_DEPTH) chi_syntax(p, "nested too deeply");
    while (!p->failed) {
        chi_node *text = chi_lex_text(p), *node = NULL;
        if (text) *last = text, last = &text->next;
        if (p->tag == 0) {
            if (ends) chi_syntax(p, "the template ends before {%% %s %%}", ends[0]);
            break;
        }
        if (p->tag == '#') {
            chi_comment(p);
            continue;
        }
        if (p->tag == '%') {
            chi_next(p);
            for (int i = 0; ends && ends[i]; i++)
                if (chi_at_name(p, ends[i])) {
                    p->depth--;
                    return first;
                }
            node = chi_statement(p);
        } else {
            node = chi_print(p);
        }
        if (p->failed) break;
        *last = node;
        last = &node->next;
    }
    p->depth--;
    return first;
}

/* ---- values ---- */

enum chi_type {
    CHI_UNDEFINED,
    CHI_NONE,
    CHI_BOOL,
    CHI_INT,
    CHI_FLOAT,
    CHI_STR,
    CHI_SEQUENCE,
    CHI_MAPPING,
    CHI_NAMESPACE,
    CHI_LOOP,
    CHI_FUNCTION, /* number: of chi_functions */
    CHI_CALLABLE  /* a macro */
};

/* What a sequence is in Python. */
enum chi_shape {
    CHI_PLAIN, /* a list */
    CHI_TUPLE,
    CHI_RANGE, /* cannot be written as JSON, nor added to */
    CHI_VIEW,  /* keys, values or items of a mapping: has no item number i either */
    CHI_ONCE   /* a generator: has no length either, and is empty once it was walked over */
};

struct chi_sequence;
struct chi_closure;

typedef struct chi_value {
    int type;
    int safe;                    /* a string marked so: what is added to it, Jinja escapes */
    chi_slice text;              /* of a string; of something undefined its name */
    const unsigned char *quoted; /* [text.size], NULL = all from the template */
    int64_t integer;             /* bool, int, function */
    double number;
    struct chi_sequence *items; /* of a mapping: keys and values in turn */
    struct chi_closure *macro;
} chi_value;

typedef struct chi_sequence {
    chi_value *values;
    size_t n, capacity;
    int shape;
} chi_sequence;

typedef struct chi_variable {
    chi_slice name;
    chi_value value;
    struct chi_variable *next;
} chi_variable;

typedef struct chi_scope {
    chi_variable *variables;
    struct chi_scope *parent;
    int ended; /* its statements were executed */
} chi_scope;

/* A macro with the variables around it. */
typedef struct chi_closure {
    const chi_node *node;
    chi_scope *scope;
} chi_closure;

typedef struct chi_output {
    char *text;
    unsigned char *quoted;
    size_t size, capacity;
} chi_output;

typedef struct chi_run {
    chi_arena arena;
    chat_error *error;
    int failed, line, depth;
    int flow; /* CHI_BREAK or CHI_CONTINUE on its way to the loop */
    long steps;
    chi_scope *scope, *globals;
    chi_output *out;
    const struct tm *now;
} chi_run;

typedef struct chi_arguments {
    chi_sequence *positional; /* of a filter, a test or a method: the object first */
    chi_sequence *keywords;   /* names and values in turn */
} chi_arguments;

static chi_value chi_fail(chi_run *r, const char *format, ...) {
    chi_value undefined;
    char text[200];
    va_list args;
    memset(&undefined, 0, sizeof undefined);
    if (r->failed) return undefined;
    r->failed = 1;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    chi_error(r->error, "chat template, line %d: %s", r->line, text);
    return undefined;
}

/* Something that costs n steps; 0 if there are no more. */
static int chi_step(chi_run *r, size_t n) {
    if (r->failed) return 0;
    if (n > (size_t)r->steps) {
        r->steps = 0;
        chi_fail(r, "more than %d steps", (int)CHAT_STEP_LIMIT);
        return 0;
    }
    r->steps -= (long)n;
    return 1;
}

static void *chi_alloc(chi_run *r, size_t size) {
    void *memory = r->failed || !chi_step(r, size / 16 + 1) ? NULL : chi_take(&r->arena, size);
    if (memory == NULL)
        chi_fail(r, "out of memory (the limit is %d bytes)", (int)CHAT_MEMORY_LIMIT);
    return memory;
}

static chi_value chi_of_type(int type) {
    chi_value v;
    memset(&v, 0, sizeof v);
    v.type = type;
    return v;
}

static chi_value chi_bool(int truth) {
    chi_value v = chi_of_type(CHI_BOOL);
    v.integer = truth != 0;
    return v;
}

static chi_value chi_int(int64_t integer) {
    chi_value v = chi_of_type(CHI_INT);
    v.integer = integer;
    return v;
}

static chi_value chi_float(double number) {
    chi_value v = chi_of_type(CHI_FLOAT);
    v.number = number;
    return v;
}

static chi_value chi_string(const char *text, size_t size) {
    chi_value v = chi_of_type(CHI_STR);
    v.text.text = text;
    v.text.size = size;
    return v;
}

static chi_value chi_word(const char *text) { return chi_string(text, strlen(text)); }

/* size bytes of string s from byte `from` on. */
static chi_value chi_part(const chi_value *s, size_t from, size_t size) {
    chi_value v = *s;
    v.text.text += from;
    v.text.size = size;
    if (v.quoted) v.quoted += from;
    return v;
}

/* A copy of text that counts as quoted all over. */
static chi_value chi_quote(chi_run *r, const char *text, int quoted) {
    size_t n = strlen(text);
    chi_value v = chi_string(text, n);
    unsigned char *marks = quoted ? (unsigned char *)chi_alloc(r, n + 1) : NULL;
    if (marks) memset(marks, 1, n);
    v.quoted = marks;
    return v;
}

static chi_value chi_new_sequence(chi_run *r, int type) {
    chi_value v = chi_of_type(type);
    v.items = (chi_sequence *)chi_alloc(r, sizeof *v.items);
    return v;
}

static chi_value chi_new_shape(chi_run *r, int shape) {
    chi_value v = chi_new_sequence(r, CHI_SEQUENCE);
    if (v.items) v.items->shape = shape;
    return v;
}

static int chi_has_shape(const chi_value *v, int shape) {
    return v->type == CHI_SEQUENCE && v->items->shape == shape;
}

static void chi_append(chi_run *r, chi_sequence *list, chi_value value) {
    if (r->failed || list == NULL) return;
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 4;
        chi_value *values = (chi_value *)chi_alloc(r, capacity * sizeof *values);
        if (values == NULL) return;
        if (list->n) memcpy(values, list->values, list->n * sizeof *values);
        list->values = values;
        list->capacity = capacity;
    }
    list->values[list->n++] = value;
}

static int chi_is_number(const chi_value *v) {
    return v->type == CHI_BOOL || v->type == CHI_INT || v->type == CHI_FLOAT;
}

static double chi_number(const chi_value *v) {
    return v->type == CHI_FLOAT ? v->number : (double)v->integer;
}

static int chi_truth(const chi_value *v) {
    if (v->type == CHI_FLOAT) return v->number < 0 || v->number > 0;
    if (v->type == CHI_BOOL || v->type == CHI_INT) return v->integer != 0;
    if (v->type == CHI_STR) return v->text.size > 0;
    if (chi_has_shape(v, CHI_ONCE)) return 1;
    if (v->type == CHI_SEQUENCE || v->type == CHI_MAPPING) return v->items->n > 0;
    return v->type != CHI_UNDEFINED && v->type != CHI_NONE;
}

static chi_value *chi_lookup(chi_run *r, chi_sequence *mapping, const chi_value *key);
static int chi_equal_items(chi_run *r, const chi_value *a, const chi_value *b);

static int chi_equal(chi_run *r, const chi_value *a, const chi_value *b) {
    if (!chi_step(r, 1)) return 0;
    if (chi_is_number(a) && chi_is_number(b)) {
        if (a->type != CHI_FLOAT && b->type != CHI_FLOAT) return a->integer == b->integer;
        return !(chi_number(a) < chi_number(b)) && !(chi_number(a) > chi_number(b));
    }
    if (a->type != b->type) return 0;
    if (a->type == CHI_STR) return chi_step(r, a->text.size / 16) && chi_same(a->text, b->text);
    if (a->type == CHI_UNDEFINED || a->type == CHI_NONE) return 1;
    if (a->type == CHI_MAPPING || chi_has_shape(a, CHI_PLAIN) || chi_has_shape(a, CHI_TUPLE) ||
        chi_has_shape(a, CHI_RANGE))
        return chi_equal_items(r, a, b);
    if (chi_has_shape(a, CHI_VIEW)) chi_fail(r, "a comparison of views of mappings");
    return a->items == b->items && a->macro == b->macro && a->integer == b->integer;
}

static int chi_equal_items(chi_run *r, const chi_value *a, const chi_value *b) {
    int equal = a->items->n == b->items->n && a->items->shape == b->items->shape;
    size_t step = a->type == CHI_MAPPING ? 2 : 1;
    if (++r->depth > CHI_MAX_EVALUATION) chi_fail(r, "nested too deeply");
    for (size_t i = 0; equal && !r->failed && i < a->items->n; i += step) {
        const chi_value *x = &a->items->values[i], *y = &b->items->values[i];
        if (step == 2) y = chi_lookup(r, b->items, x++);
        equal = y != NULL && chi_equal(r, x, y);
    }
    r->depth--;
    return equal;
}

/* The value of a key, or NULL. */
static chi_value *chi_lookup(chi_run *r, chi_sequence *mapping, const chi_value *key) {
    for (size_t i = 0; i + 1 < mapping->n; i += 2)
        if (chi_equal(r, &mapping->values[i], key)) return &mapping->values[i + 1];
    return NULL;
}

static void chi_put(chi_run *r, chi_sequence *mapping, chi_value key, chi_value value) {
    chi_value *place = mapping ? chi_lookup(r, mapping, &key) : NULL;
    if (place) {
        *place = value;
        return;
    }
    chi_append(r, mapping, key);
    chi_append(r, mapping, value);
}

/* ---- output ---- */

static void chi_write(chi_run *r, chi_output *o, const chi_value *s) {
    size_t n = s->text.size;
    if (r->failed || n == 0) return;
    if (n > o->capacity - o->size) {
        size_t capacity = o->capacity < 256 ? 256 : o->capacity;
        while (capacity - o->size < n && capacity < CHAT_MEMORY_LIMIT) capacity *= 2;
        char *text = (char *)chi_alloc(r, 2 * capacity);
        if (text == NULL) return;
        unsigned char *quoted = (unsigned char *)text + capacity;
        if (o->size) memcpy(text, o->text, o->size), memcpy(quoted, o->quoted, o->size);
        o->text = text, o->quoted = quoted, o->capacity = capacity;
    }
    if (n > o->capacity - o->size || !chi_step(r, n / 16)) {
        chi_fail(r, "out of memory (the limit is %d bytes)", (int)CHAT_MEMORY_LIMIT);
        return;
    }
    memcpy(o->text + o->size, s->text.text, n);
    if (s->quoted) memcpy(o->quoted + o->size, s->quoted, n);
    else memset(o->quoted + o->size, 0, n);
    o->size += n;
}

static void chi_write_bytes(chi_run *r, chi_output *o, const char *text, size_t size, int quoted) {
    static const unsigned char ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    chi_value v = chi_string(text, size);
    if (quoted && size <= 8) v.quoted = ones;
    chi_write(r, o, &v);
}

static chi_value chi_written(const chi_output *o) {
    chi_value v = chi_string(o->text ? o->text : "", o->size);
    v.quoted = o->quoted;
    return v;
}

/* The shortest decimal that reads back as x, as Python writes it where it has no exponent. */
static void chi_format_float(double x, char *out, size_t size) {
    int digits = 0, exponent;
    do snprintf(out, size, "%.*e", digits, x);
    while ((strtod(out, NULL) < x || strtod(out, NULL) > x) && ++digits < 17);
    exponent = (int)strtol(strchr(out, 'e') + 1, NULL, 10);
    snprintf(out, size, "%.*f", digits > exponent + 1 ? digits - exponent : 1, x);
}

/* What printing a value writes; only of what chat templates print. */
static chi_value chi_to_string(chi_run *r, const chi_value *v) {
    if (v->type == CHI_STR) return *v;
    if (v->type == CHI_UNDEFINED) return chi_word("");
    if (v->type == CHI_NONE) return chi_word("None");
    if (v->type == CHI_BOOL) return chi_word(v->integer ? "True" : "False");
    if (v->type == CHI_INT || v->type == CHI_FLOAT) {
        char *text = (char *)chi_alloc(r, 40);
        if (text == NULL) return chi_word("");
        if (v->type == CHI_INT) snprintf(text, 40, "%lld", (long long)v->integer);
        else if (fabs(v->number) < 1e16 && (fabs(v->number) >= 1e-4 || !chi_truth(v)))
            chi_format_float(v->number, text, 40);
        else return chi_fail(r, "a number of this size cannot be printed");
        return chi_word(text);
    }
    return chi_fail(r, "a list, a mapping or a function cannot be printed");
}

static chi_value chi_concatenate(chi_run *r, const chi_value *a, const chi_value *b) {
    size_t n = a->text.size + b->text.size;
    if (a->text.size == 0) return *b;
    if (b->text.size == 0) return *a;
    chi_output o;
    memset(&o, 0, sizeof o);
    int plain = a->quoted == NULL && b->quoted == NULL;
    o.capacity = n;
    o.text = (char *)chi_alloc(r, plain ? n : 2 * n);
    if (o.text == NULL) return chi_word("");
    memcpy(o.text, a->text.text, a->text.size);
    memcpy(o.text + a->text.size, b->text.text, b->text.size);
    if (!plain) { /* the memory is zero */
        o.quoted = (unsigned char *)o.text + n;
        if (a->quoted) memcpy(o.quoted, a->quoted, a->text.size);
        if (b->quoted) memcpy(o.quoted + a->text.size, b->quoted, b->text.size);
    }
    o.size = n;
    return chi_written(&o);
}

/* ---- JSON, as Python's json.dumps writes it with ensure_ascii=False ---- */

static void chi_json_string(chi_run *r, chi_output *o, const chi_value *s) {
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    chi_write_bytes(r, o, "\"", 1, 0);
    for (size_t i = 0; i < s->text.size && chi_step(r, 1); i++) {
        unsigned char c = (unsigned char)s->text.text[i];
        const char *special = c ? strchr(from, c) : NULL;
        char escape[8];
        if (special) snprintf(escape, sizeof escape, "\\%c", to[special - from]);
        else if (c < 0x20) snprintf(escape, sizeof escape, "\\u%04x", c);
        else escape[0] = (char)c, escape[1] = 0;
        chi_write_bytes(r, o, escape, strlen(escape), s->quoted ? s->quoted[i] : 0);
    }
    chi_write_bytes(r, o, "\"", 1, 0);
}

static void chi_json_newline(chi_run *r, chi_output *o, int indent, int level) {
    if (indent < 0) return;
    chi_write_bytes(r, o, "\n", 1, 0);
    for (int i = 0; i < indent * level; i++) chi_write_bytes(r, o, " ", 1, 0);
}

static void chi_json(chi_run *r, chi_output *o, const chi_value *v, int indent, int level) {
    int mapping = v->type == CHI_MAPPING;
    if (v->type == CHI_STR) {
        chi_json_string(r, o, v);
        return;
    }
    if (v->type == CHI_NONE || v->type == CHI_BOOL) {
        const char *word = v->type == CHI_NONE ? "null" : v->integer ? "true" : "false";
        chi_write_bytes(r, o, word, strlen(word), 0);
        return;
    }
    if (chi_is_number(v)) {
        chi_value text = chi_to_string(r, v);
        chi_write(r, o, &text);
        return;
    }
    if (!mapping && !chi_has_shape(v, CHI_PLAIN) && !chi_has_shape(v, CHI_TUPLE)) {
        chi_fail(r, "tojson of something that is not data");
        return;
    }
    if (++r->depth > CHI_MAX_EVALUATION) chi_fail(r, "nested too deeply");
    chi_write_bytes(r, o, mapping ? "{" : "[", 1, 0);
    for (size_t i = 0; !r->failed && i < v->items->n; i++) {
        if (mapping && v->items->values[i].type != CHI_STR)
            chi_fail(r, "tojson: a key is no string");
        if (i > 0) chi_write_bytes(r, o, indent < 0 ? ", " : ",", indent < 0 ? 2 : 1, 0);
        chi_json_newline(r, o, indent, level + 1);
        chi_json(r, o, &v->items->values[i], indent, level + 1);
        if (!mapping) continue;
        chi_write_bytes(r, o, ": ", 2, 0);
        chi_json(r, o, &v->items->values[++i], indent, level + 1);
    }
    if (v->items->n) chi_json_newline(r, o, indent, level);
    chi_write_bytes(r, o, mapping ? "}" : "]", 1, 0);
    r->depth--;
}

/* ---- arguments ---- */

/* Argument i, or the one with that name; NULL if not given. */
static const chi_value *chi_argument(const chi_arguments *a, size_t i, const char *name) {
    if (i < a->positional->n) return &a->positional->values[i];
    for (size_t k = 0; name && k + 1 < a->keywords->n; k += 2)
        if (chi_is(a->keywords->values[k].text, name)) return &a->keywords->values[k + 1];
    return NULL;
}

/* The string argument i.  If it is not given, an empty one; if it is something else, failure. */
static chi_value chi_string_argument(chi_run *r, const chi_arguments *a, size_t i,
                                     const char *name) {
    const chi_value *v = chi_argument(a, i, name);
    if (v && v->type != CHI_STR && v->type != CHI_NONE)
        return chi_fail(r, "a string is expected here");
    return v && v->type == CHI_STR ? *v : chi_string(NULL, 0);
}

static int64_t chi_int_argument(chi_run *r, const chi_arguments *a, size_t i, const char *name,
                                int64_t otherwise) {
    const chi_value *v = chi_argument(a, i, name);
    if (v == NULL || v->type == CHI_NONE) return otherwise;
    if (v->type != CHI_INT && v->type != CHI_BOOL) chi_fail(r, "a whole number is expected here");
    return v->integer;
}

/* ---- strings: the methods of Python's str ---- */

static chi_value chi_list_of(chi_run *r, const chi_value *v);

/* Where b is in a from byte `from` on; a.size + 1 if nowhere. */
static size_t chi_find(chi_run *r, chi_slice a, chi_slice b, size_t from) {
    for (size_t i = from; i <= a.size && b.size <= a.size - i && chi_step(r, 1); i++) {
        size_t same = 0;
        while (same < b.size && a.text[i + same] == b.text[same]) same++;
        if (same == b.size) return i;
        if (!chi_step(r, same)) break;
    }
    return a.size + 1;
}

static size_t chi_count_characters(chi_run *r, chi_slice s) {
    size_t n = 0;
    for (size_t i = 0; i < s.size; i += chi_char_size(s.text + i, s.size - i)) n++;
    chi_step(r, s.size / 4);
    return n;
}

/* The byte where character number n (0 .. count) begins. */
static size_t chi_character_at(chi_slice s, size_t n) {
    size_t i = 0;
    for (; n > 0 && i < s.size; n--) i += chi_char_size(s.text + i, s.size - i);
    return i;
}

static int chi_upper_char(int c) { return c >= 'a' && c <= 'z' ? c - 32 : c; }
static int chi_lower_char(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

/* Words: as the filter title has them, not the method. */
enum { CHI_UPPER, CHI_LOWER, CHI_TITLE, CHI_TITLE_WORDS, CHI_CAPITALIZE };

static chi_value chi_change_case(chi_run *r, const chi_value *s, int how) {
    chi_value v = *s;
    char *text = (char *)chi_alloc(r, s->text.size + 1);
    int word_before = 0; /* the character before belongs to the same word */
    for (size_t i = 0; text && i < s->text.size; i++) {
        int c = (unsigned char)s->text.text[i];
        int title = how == CHI_TITLE || how == CHI_TITLE_WORDS;
        int upper =
            how == CHI_UPPER || (title && !word_before) || (how == CHI_CAPITALIZE && i == 0);
        if (c >= 0x80) return chi_fail(r, "the case of letters beyond ASCII is not known here");
        text[i] = (char)(upper ? chi_upper_char(c) : chi_lower_char(c));
        if (how == CHI_TITLE_WORDS)
            word_before =
                strchr("-({[<", c) == NULL && !chi_is_space((const char *)&s->text.text[i], 1);
        else word_before = chi_upper_char(c) >= 'A' && chi_upper_char(c) <= 'Z';
    }
    if (text) v.text.text = text;
    return v;
}

/* sides: 1 left, 2 right. */
static chi_value chi_strip(chi_run *r, const chi_arguments *a, int sides) {
    chi_value s = a->positional->values[0], set = chi_string_argument(r, a, 1, "chars");
    chi_step(r, s.text.size / 4 + 1);
    if (r->failed) return s;
    if (set.text.text != NULL && set.text.size == 0) return s;
    if (sides & 1) {
        size_t n = chi_span(s.text, set.text, 0);
        s = chi_part(&s, n, s.text.size - n);
    }
    if (sides & 2) s = chi_part(&s, 0, s.text.size - chi_span(s.text, set.text, 1));
    return s;
}

/* At white space. */
static chi_value chi_split_words(chi_run *r, const chi_value *s, int64_t most) {
    static const chi_slice space = {NULL, 0};
    chi_value list = chi_new_sequence(r, CHI_SEQUENCE), rest = *s;
    while (!r->failed) {
        size_t n = chi_span(rest.text, space, 0), end;
        rest = chi_part(&rest, n, rest.text.size - n);
        if (rest.text.size == 0 || !chi_step(r, n + 1)) break;
        for (end = 0; end < rest.text.size;) {
            n = chi_char_size(rest.text.text + end, rest.text.size - end);
            if (chi_is_space(rest.text.text + end, n)) break;
            end += n;
        }
        if (most-- == 0) end = rest.text.size - chi_span(rest.text, space, 1);
        chi_append(r, list.items, chi_part(&rest, 0, end));
        chi_step(r, end);
        rest = chi_part(&rest, end, rest.text.size - end);
    }
    return list;
}

static chi_value chi_split(chi_run *r, const chi_arguments *a) {
    chi_value s = a->positional->values[0], separator = chi_string_argument(r, a, 1, "sep");
    int64_t most = chi_int_argument(r, a, 2, "maxsplit", -1);
    if (r->failed) return s;
    if (separator.text.text == NULL) return chi_split_words(r, &s, most);
    if (separator.text.size == 0) return chi_fail(r, "split: the separator is empty");
    chi_value list = chi_new_sequence(r, CHI_SEQUENCE);
    size_t from = 0, at;
    while (most-- != 0 && !r->failed &&
           (at = chi_find(r, s.text, separator.text, from)) <= s.text.size) {
        chi_append(r, list.items, chi_part(&s, from, at - from));
        from = at + separator.text.size;
    }
    chi_append(r, list.items, chi_part(&s, from, s.text.size - from));
    return list;
}

static chi_value chi_rsplit(chi_run *r, const chi_arguments *a) {
    chi_value s = a->positional->values[0], separator = chi_string_argument(r, a, 1, "sep");
    chi_value list = chi_new_sequence(r, CHI_SEQUENCE);
    if (r->failed) return s;
    if (separator.text.size == 0 || chi_int_argument(r, a, 2, "maxsplit", -1) != 1)
        return chi_fail(r, "rsplit is supported only with a separator and maxsplit = 1");
    size_t at = s.text.size + 1, next;
    for (size_t from = 0; (next = chi_find(r, s.text, separator.text, from)) <= s.text.size;
         from = next + 1)
        at = next;
    if (at <= s.text.size) {
        chi_append(r, list.items, chi_part(&s, 0, at));
        at += separator.text.size;
    } else {
        at = 0;
    }
    chi_append(r, list.items, chi_part(&s, at, s.text.size - at));
    return list;
}

/* At \n only; texts with the rarer line ends of Python are refused. */
static chi_value chi_splitlines(chi_run *r, const chi_arguments *a) {
    chi_value s = a->positional->values[0], list = chi_new_sequence(r, CHI_SEQUENCE);
    size_t from = 0;
    for (size_t i = 0; i < s.text.size && chi_step(r, 1); i++) {
        unsigned char c = (unsigned char)s.text.text[i];
        if (c == '\n') chi_append(r, list.items, chi_part(&s, from, i - from)), from = i + 1;
        else if (c == '\r' || c == '\v' || c == '\f' || (c >= 0x1C && c <= 0x1E) || c >= 0x80)
            return chi_fail(r, "splitlines is supported only for ASCII with \\n");
    }
    if (from < s.text.size) chi_append(r, list.items, chi_part(&s, from, s.text.size - from));
    return list;
}

static chi_value chi_affix(chi_run *r, const chi_arguments *a, int at_end) {
    chi_slice s = a->positional->values[0].text;
    const chi_value *affixes = chi_argument(a, 1, NULL);
    if (affixes == NULL) return chi_fail(r, "startswith and endswith need an argument");
    int tuple = chi_has_shape(affixes, CHI_TUPLE);
    size_t n = tuple ? affixes->items->n : 1;
    for (size_t i = 0; i < n; i++) {
        const chi_value *x = tuple ? &affixes->items->values[i] : affixes;
        if (x->type != CHI_STR) return chi_fail(r, "startswith and endswith need strings");
        if (!chi_step(r, x->text.size / 16 + 1) || x->text.size > s.size) continue;
        chi_slice part = {s.text + (at_end ? s.size - x->text.size : 0), x->text.size};
        if (chi_same(part, x->text)) return chi_bool(1);
    }
    return chi_bool(0);
}

static chi_value chi_replace(chi_run *r, const chi_arguments *a) {
    chi_value s = a->positional->values[0], from = chi_string_argument(r, a, 1, "old");
    chi_value to = chi_string_argument(r, a, 2, "new");
    int64_t most = chi_int_argument(r, a, 3, "count", -1);
    chi_output o;
    memset(&o, 0, sizeof o);
    if (r->failed) return s;
    if (from.text.size == 0 || to.text.text == NULL)
        return chi_fail(r, "replace needs two strings, the first one not empty");
    size_t done = 0, at;
    while (most-- != 0 && (at = chi_find(r, s.text, from.text, done)) <= s.text.size) {
        chi_value before = chi_part(&s, done, at - done);
        chi_write(r, &o, &before);
        chi_write(r, &o, &to);
        done = at + from.text.size;
    }
    chi_value rest = chi_part(&s, done, s.text.size - done);
    chi_write(r, &o, &rest);
    return chi_written(&o);
}

static chi_value chi_join(chi_run *r, const chi_value *separator, const chi_value *list,
                          int as_method) {
    chi_output o;
    memset(&o, 0, sizeof o);
    for (size_t i = 0; !r->failed && i < list->items->n; i++) {
        const chi_value *item = &list->items->values[i];
        if (as_method && item->type != CHI_STR) return chi_fail(r, "join: an item is no string");
        chi_value text = chi_to_string(r, item);
        if (i > 0) chi_write(r, &o, separator);
        chi_write(r, &o, &text);
        if (!chi_step(r, 1)) break;
    }
    return chi_written(&o);
}

static chi_value chi_count(chi_run *r, const chi_arguments *a) {
    chi_slice s = a->positional->values[0].text;
    chi_value what = chi_string_argument(r, a, 1, NULL);
    int64_t n = 0;
    if (what.text.size == 0) return chi_fail(r, "count needs a string that is not empty");
    for (size_t at = 0; (at = chi_find(r, s, what.text, at)) <= s.size; at += what.text.size) n++;
    return chi_int(n);
}

static chi_value chi_find_method(chi_run *r, const chi_arguments *a, int last) {
    chi_slice s = a->positional->values[0].text;
    chi_value what = chi_string_argument(r, a, 1, NULL);
    size_t found = s.size + 1, at = 0;
    if (what.text.size == 0) return chi_fail(r, "find needs a string that is not empty");
    while ((at = chi_find(r, s, what.text, at)) <= s.size) {
        found = at++;
        if (!last) break;
    }
    if (found > s.size) return chi_int(-1);
    chi_slice before = {s.text, found};
    return chi_int((int64_t)chi_count_characters(r, before));
}

static chi_value chi_is_digits(chi_run *r, const chi_arguments *a) {
    chi_slice s = a->positional->values[0].text;
    int all = s.size > 0;
    for (size_t i = 0; i < s.size && chi_step(r, 1); i++) {
        if ((unsigned char)s.text[i] >= 0x80) return chi_fail(r, "isdigit: only for ASCII");
        all = all && s.text[i] >= '0' && s.text[i] <= '9';
    }
    return chi_bool(all);
}

static chi_value chi_m_strip(chi_run *r, const chi_arguments *a) { return chi_strip(r, a, 3); }
static chi_value chi_m_lstrip(chi_run *r, const chi_arguments *a) { return chi_strip(r, a, 1); }
static chi_value chi_m_rstrip(chi_run *r, const chi_arguments *a) { return chi_strip(r, a, 2); }
static chi_value chi_m_startswith(chi_run *r, const chi_arguments *a) { return chi_affix(r, a, 0); }
static chi_value chi_m_endswith(chi_run *r, const chi_arguments *a) { return chi_affix(r, a, 1); }
static chi_value chi_m_find(chi_run *r, const chi_arguments *a) { return chi_find_method(r, a, 0); }
static chi_value chi_m_rfind(chi_run *r, const chi_arguments *a) {
    return chi_find_method(r, a, 1);
}
static chi_value chi_m_upper(chi_run *r, const chi_arguments *a) {
    return chi_change_case(r, a->positional->values, CHI_UPPER);
}
static chi_value chi_m_lower(chi_run *r, const chi_arguments *a) {
    return chi_change_case(r, a->positional->values, CHI_LOWER);
}
static chi_value chi_m_title(chi_run *r, const chi_arguments *a) {
    return chi_change_case(r, a->positional->values, CHI_TITLE);
}
static chi_value chi_m_capitalize(chi_run *r, const chi_arguments *a) {
    return chi_change_case(r, a->positional->values, CHI_CAPITALIZE);
}
static chi_value chi_m_join(chi_run *r, const chi_arguments *a) {
    const chi_value *given = chi_argument(a, 1, NULL);
    if (given == NULL || given->type != CHI_SEQUENCE) return chi_fail(r, "join needs a list");
    chi_value list = chi_list_of(r, given);
    return r->failed ? list : chi_join(r, a->positional->values, &list, 1);
}

/* '{}'.format(...) with plain fields only. */
static chi_value chi_m_format(chi_run *r, const chi_arguments *a) {
    const chi_value *s = a->positional->values;
    size_t argument = 1, done = 0;
    chi_output o;
    memset(&o, 0, sizeof o);
    for (size_t i = 0; i < s->text.size && chi_step(r, 1); i++) {
        char c = s->text.text[i], next = i + 1 < s->text.size ? s->text.text[i + 1] : 0;
        if (c != '{' && c != '}') continue;
        int field = c == '{' && next == '}';
        if (!field && next != c) return chi_fail(r, "format: only {} is supported");
        if (field && argument >= a->positional->n) return chi_fail(r, "format: too few arguments");
        chi_value before = chi_part(s, done, i + !field - done);
        chi_write(r, &o, &before);
        if (field) {
            chi_value text = chi_to_string(r, &a->positional->values[argument++]);
            if (!r->failed) chi_write(r, &o, &text);
        }
        done = ++i + 1;
    }
    chi_value rest = chi_part(s, done, s->text.size - done);
    chi_write(r, &o, &rest);
    return chi_written(&o);
}

/* ---- mappings ---- */

/* which: 1 keys, 2 values, 3 pairs. */
static chi_value chi_pick(chi_run *r, const chi_value *mapping, int which) {
    chi_value list = chi_new_shape(r, CHI_VIEW);
    for (size_t i = 0; !r->failed && i + 1 < mapping->items->n; i += 2) {
        const chi_value *pair = &mapping->items->values[i];
        if (which != 3) {
            chi_append(r, list.items, pair[which - 1]);
            continue;
        }
        chi_value both = chi_new_sequence(r, CHI_SEQUENCE);
        if (r->failed) break;
        both.items->shape = CHI_TUPLE;
        chi_append(r, both.items, pair[0]);
        chi_append(r, both.items, pair[1]);
        chi_append(r, list.items, both);
    }
    return list;
}

static chi_value chi_m_keys(chi_run *r, const chi_arguments *a) {
    return chi_pick(r, a->positional->values, 1);
}
static chi_value chi_m_values(chi_run *r, const chi_arguments *a) {
    return chi_pick(r, a->positional->values, 2);
}
static chi_value chi_m_items(chi_run *r, const chi_arguments *a) {
    return chi_pick(r, a->positional->values, 3);
}
static chi_value chi_m_get(chi_run *r, const chi_arguments *a) {
    const chi_value *key = chi_argument(a, 1, NULL), *otherwise = chi_argument(a, 2, NULL);
    if (key == NULL) return chi_fail(r, "get needs a key");
    const chi_value *value = chi_lookup(r, a->positional->values[0].items, key);
    return value ? *value : otherwise ? *otherwise : chi_of_type(CHI_NONE);
}

typedef struct chi_named {
    const char *name;
    chi_value (*call)(chi_run *, const chi_arguments *);
    int type; /* of the object, for methods */
} chi_named;

static const chi_named chi_methods[] = {
    {"strip", chi_m_strip, CHI_STR},
    {"lstrip", chi_m_lstrip, CHI_STR},
    {"rstrip", chi_m_rstrip, CHI_STR},
    {"split", chi_split, CHI_STR},
    {"rsplit", chi_rsplit, CHI_STR},
    {"splitlines", chi_splitlines, CHI_STR},
    {"startswith", chi_m_startswith, CHI_STR},
    {"endswith", chi_m_endswith, CHI_STR},
    {"upper", chi_m_upper, CHI_STR},
    {"lower", chi_m_lower, CHI_STR},
    {"title", chi_m_title, CHI_STR},
    {"capitalize", chi_m_capitalize, CHI_STR},
    {"replace", chi_replace, CHI_STR},
    {"join", chi_m_join, CHI_STR},
    {"count", chi_count, CHI_STR},
    {"find", chi_m_find, CHI_STR},
    {"rfind", chi_m_rfind, CHI_STR},
    {"isdigit", chi_is_digits, CHI_STR},
    {"format", chi_m_format, CHI_STR},
    {"keys", chi_m_keys, CHI_MAPPING},
    {"values", chi_m_values, CHI_MAPPING},
    {"items", chi_m_items, CHI_MAPPING},
    {"get", chi_m_get, CHI_MAPPING},
};

static const chi_named *chi_named_in(const chi_named *table, size_t n, chi_slice name, int type) {
    for (size_t i = 0; i < n; i++)
        if (table[i].type == type && chi_is(name, table[i].name)) return &table[i];
    return NULL;
}

/* ---- what loops and filters walk over ---- */

/* The items of v as a list: of a mapping its keys, of a string its characters.  A generator is
 * empty then. */
static chi_value chi_list_of(chi_run *r, const chi_value *v) {
    chi_value list;
    if (v->type == CHI_SEQUENCE && v->items->shape != CHI_ONCE) return *v;
    if (v->type == CHI_MAPPING) return chi_pick(r, v, 1);
    list = chi_new_sequence(r, CHI_SEQUENCE);
    if (r->failed) return list;
    if (v->type == CHI_SEQUENCE) {
        *list.items = *v->items;
        list.items->shape = CHI_PLAIN;
        v->items->n = v->items->capacity = 0;
        return list;
    }
    if (v->type != CHI_STR && v->type != CHI_UNDEFINED)
        return chi_fail(r, "this cannot be walked over");
    for (size_t i = 0, n; v->type == CHI_STR && i < v->text.size && !r->failed; i += n) {
        n = chi_char_size(v->text.text + i, v->text.size - i);
        chi_append(r, list.items, chi_part(v, i, n));
    }
    return list;
}

static chi_value chi_length(chi_run *r, const chi_value *v) {
    if (v->type == CHI_STR) return chi_int((int64_t)chi_count_characters(r, v->text));
    if (v->type == CHI_SEQUENCE && v->items->shape != CHI_ONCE)
        return chi_int((int64_t)v->items->n);
    if (v->type == CHI_MAPPING) return chi_int((int64_t)v->items->n / 2);
    if (v->type == CHI_UNDEFINED) return chi_int(0);
    return chi_fail(r, "this has no length");
}

/* Names that Python knows for values of a type: those of methods that are not in our tables, too. */
static int chi_is_python_name(const chi_value *v, chi_slice name) {
    static const char mapping[] =
        " clear copy fromkeys get items keys pop popitem setdefault update "
        "values ",
                      list[] = " append clear copy count extend index insert pop remove reverse "
                               "sort start step stop ",
                      number[] = " as_integer_ratio bit_count bit_length conjugate denominator "
                                 "from_bytes fromhex hex imag is_integer numerator real to_bytes ",
                      text[] = " capitalize casefold center count encode endswith expandtabs find "
                               "format format_map index isalnum isalpha isascii isdecimal isdigit "
                               "isidentifier islower isnumeric isprintable isspace istitle isupper "
                               "join ljust lower lstrip maketrans partition removeprefix "
                               "removesuffix replace rfind rindex rjust rpartition rsplit rstrip "
                               "split splitlines startswith strip swapcase title translate upper "
                               "zfill ",
                      macro[] =
                          " arguments caller catch_kwargs catch_varargs explicit_caller name ",
                      loop[] = " changed cycle ";
    const char *names = v->type == CHI_MAPPING    ? mapping
                        : v->type == CHI_SEQUENCE ? list
                        : v->type == CHI_STR      ? text
                        : v->type == CHI_CALLABLE ? macro
                        : v->type == CHI_LOOP     ? loop
                        : chi_is_number(v)        ? number
                                                  : "";
    char word[24];
    if (name.size > sizeof word - 3) return 0;
    snprintf(word, sizeof word, " %.*s ", (int)name.size, name.size ? name.text : "");
    return name.size > 0 && strstr(names, word) != NULL;
}

/* object.name or object['name']. */
static chi_value chi_attribute(chi_run *r, const chi_value *object, chi_slice name) {
    chi_value key = chi_string(name.text, name.size), missing = chi_of_type(CHI_UNDEFINED);
    missing.text = name;
    if (object->type == CHI_UNDEFINED)
        return chi_fail(r, "'%.*s' is undefined, so it has no '%.*s'",
                        (int)(object->text.size < 60 ? object->text.size : 60),
                        object->text.size ? object->text.text : "",
                        (int)(name.size < 60 ? name.size : 60), name.text);
    const chi_value *value = NULL;
    if (object->type == CHI_MAPPING || object->type == CHI_NAMESPACE || object->type == CHI_LOOP)
        value = chi_lookup(r, object->items, &key);
    if (value == NULL && chi_is_python_name(object, name))
        return chi_fail(r, "'%.*s' of this is not supported here", (int)name.size, name.text);
    return value ? *value : missing;
}

/* Item number i of n, counted from the end if negative; -1 if there is none. */
static int64_t chi_position(int64_t i, size_t n) {
    if (i < 0) i += (int64_t)n;
    return i >= 0 && i < (int64_t)n ? i : -1;
}

static chi_value chi_index(chi_run *r, const chi_value *object, const chi_value *key) {
    chi_value missing = chi_of_type(CHI_UNDEFINED);
    if (key->type == CHI_STR) return chi_attribute(r, object, key->text);
    if (object->type == CHI_UNDEFINED) return chi_attribute(r, object, chi_word("item").text);
    if (object->type == CHI_MAPPING) {
        const chi_value *value = chi_lookup(r, object->items, key);
        return value ? *value : missing;
    }
    if (key->type != CHI_INT && key->type != CHI_BOOL) return missing;
    if (object->type == CHI_STR) {
        int64_t at = chi_position(key->integer, chi_count_characters(r, object->text));
        if (at < 0) return missing;
        size_t from = chi_character_at(object->text, (size_t)at);
        return chi_part(object, from,
                        chi_char_size(object->text.text + from, object->text.size - from));
    }
    if (object->type != CHI_SEQUENCE || object->items->shape >= CHI_VIEW) return missing;
    int64_t at = chi_position(key->integer, object->items->n);
    return at < 0 ? missing : object->items->values[at];
}

/* The bound of a slice with Python's rules, in low .. high. */
static int64_t chi_bound(chi_run *r, const chi_value *v, int64_t n, int64_t low, int64_t high,
                         int64_t otherwise) {
    if (v->type == CHI_NONE) return otherwise;
    if (v->type != CHI_INT && v->type != CHI_BOOL) chi_fail(r, "a slice needs whole numbers");
    int64_t i = v->integer;
    if (i < 0) i = i < -n ? low : i + n;
    return i < low ? low : i > high ? high : i;
}

static chi_value chi_slice_of(chi_run *r, const chi_value *object, const chi_value *first,
                              const chi_value *end, const chi_value *by) {
    int64_t step = by->type == CHI_NONE ? 1 : by->integer;
    if (object->type == CHI_UNDEFINED) return chi_attribute(r, object, chi_word("slice").text);
    if (object->type != CHI_STR &&
        (object->type != CHI_SEQUENCE || object->items->shape >= CHI_VIEW))
        return chi_fail(r, "this cannot be sliced");
    if ((by->type != CHI_NONE && by->type != CHI_INT) || step == 0)
        return chi_fail(r, "a slice needs a step that is a whole number other than 0");
    int plain = object->type == CHI_STR && step == 1; /* no need to list the characters */
    chi_value list = plain ? *object : chi_list_of(r, object);
    chi_value result = plain ? *object : chi_new_sequence(r, CHI_SEQUENCE);
    if (r->failed) return result;
    int64_t n = (int64_t)(plain ? chi_count_characters(r, object->text) : list.items->n),
            last = step > 0 ? n : n - 1, low = step > 0 ? 0 : -1;
    int64_t at = chi_bound(r, first, n, low, last, step > 0 ? 0 : n - 1);
    int64_t stop = chi_bound(r, end, n, low, last, step > 0 ? n : -1);
    if (plain) {
        size_t from = chi_character_at(object->text, (size_t)at);
        size_t to = at < stop ? chi_character_at(object->text, (size_t)stop) : from;
        return chi_part(object, from, to - from);
    }
    while (!r->failed && (step > 0 ? at < stop : at > stop)) {
        chi_append(r, result.items, list.items->values[at]);
        if (step > n || step < -n) break;
        at += step;
    }
    if (object->type == CHI_STR) {
        chi_value nothing = chi_word("");
        return r->failed ? nothing : chi_join(r, &nothing, &result, 1);
    }
    if (!r->failed) result.items->shape = object->items->shape;
    return result;
}

/* ---- operators ---- */

static int chi_contains(chi_run *r, const chi_value *whole, const chi_value *part) {
    if (whole->type == CHI_STR && part->type == CHI_STR)
        return chi_find(r, whole->text, part->text, 0) <= whole->text.size;
    if (whole->type == CHI_MAPPING) return chi_lookup(r, whole->items, part) != NULL;
    if (whole->type == CHI_SEQUENCE) {
        chi_sequence *list = whole->items;
        int found = 0, once = list->shape == CHI_ONCE;
        for (size_t i = 0; i < list->n && !r->failed && !found; i += !once) {
            found = chi_equal(r, &list->values[i], part);
            if (once) list->values++, list->n--, list->capacity--;
        }
        return found;
    }
    if (whole->type != CHI_UNDEFINED) chi_fail(r, "'in' needs a string, a list or a mapping");
    return 0;
}

/* -1, 0, 1. */
static int chi_order(chi_run *r, const chi_value *a, const chi_value *b) {
    if (chi_is_number(a) && chi_is_number(b)) {
        if (a->type != CHI_FLOAT && b->type != CHI_FLOAT)
            return (a->integer > b->integer) - (a->integer < b->integer);
        return (chi_number(a) > chi_number(b)) - (chi_number(a) < chi_number(b));
    }
    if (a->type != CHI_STR || b->type != CHI_STR) {
        chi_fail(r, "these two cannot be compared");
        return 0;
    }
    size_t n = a->text.size < b->text.size ? a->text.size : b->text.size;
    chi_step(r, n / 16);
    int order = n ? memcmp(a->text.text, b->text.text, n) : 0;
    if (order == 0) order = (a->text.size > b->text.size) - (a->text.size < b->text.size);
    return order < 0 ? -1 : order > 0;
}

/* Whole numbers; what does not fit in 64 bits is refused. */
static chi_value chi_int_arithmetic(chi_run *r, chi_slice operation, int64_t a, int64_t b) {
    const int64_t most = INT64_C(1) << 31;
    char c = operation.text[0];
    if (a > most || a < -most || b > most || b < -most)
        return chi_fail(r, "a number too large to calculate with");
    if (operation.size == 1 && c == '+') return chi_int(a + b);
    if (operation.size == 1 && c == '-') return chi_int(a - b);
    if (operation.size == 1 && c == '*') return chi_int(a * b);
    if (c == '*') {
        int64_t power = 1;
        if (b < 0 || b > 62) return chi_fail(r, "this power is not supported");
        for (; b > 0; b--) {
            if (power > most || power < -most) return chi_fail(r, "a number too large");
            power *= a;
        }
        return chi_int(power);
    }
    if (b == 0) return chi_fail(r, "division by zero");
    if (operation.size == 1 && c == '/') return chi_float((double)a / (double)b);
    int64_t rest = a % b; /* Python's has the sign of b */
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
    return chi_int(c == '%' ? rest : (a - rest) / b);
}

static chi_value chi_float_arithmetic(chi_run *r, chi_slice operation, double a, double b) {
    if (chi_is(operation, "+")) return chi_float(a + b);
    if (chi_is(operation, "-")) return chi_float(a - b);
    if (chi_is(operation, "*")) return chi_float(a * b);
    if (chi_is(operation, "/") && (b < 0 || b > 0)) return chi_float(a / b);
    return chi_fail(r, "'%.*s' of these numbers is not supported", (int)operation.size,
                    operation.text);
}

static chi_value chi_repeat(chi_run *r, const chi_value *s, int64_t n) {
    chi_output o;
    memset(&o, 0, sizeof o);
    for (; n > 0 && chi_step(r, 1); n--) chi_write(r, &o, s);
    return chi_written(&o);
}

static chi_value chi_extend(chi_run *r, const chi_value *a, const chi_value *b) {
    chi_value list = chi_new_sequence(r, CHI_SEQUENCE);
    if (r->failed) return list;
    list.items->shape = a->items->shape == CHI_TUPLE ? CHI_TUPLE : CHI_PLAIN;
    for (int part = 0; part < 2; part++) {
        const chi_sequence *items = part ? b->items : a->items;
        for (size_t i = 0; i < items->n && !r->failed; i++)
            chi_append(r, list.items, items->values[i]);
    }
    return list;
}

static chi_value chi_operate(chi_run *r, chi_slice operation, const chi_value *a,
                             const chi_value *b) {
    char c = operation.text[0];
    if (chi_is(operation, "==")) return chi_bool(chi_equal(r, a, b));
    if (chi_is(operation, "!=")) return chi_bool(!chi_equal(r, a, b));
    if (chi_is(operation, "in")) return chi_bool(chi_contains(r, b, a));
    if (chi_is(operation, "not in")) return chi_bool(!chi_contains(r, b, a));
    if (c == '<' || c == '>') {
        int order = chi_order(r, a, b);
        return chi_bool((operation.size == 2 && order == 0) || (c == '<' ? order < 0 : order > 0));
    }
    if (c == '~') {
        chi_value left = chi_to_string(r, a), right = chi_to_string(r, b);
        left.safe = right.safe = 0;
        return chi_concatenate(r, &left, &right);
    }
    if (chi_is_number(a) && chi_is_number(b)) {
        if (a->type != CHI_FLOAT && b->type != CHI_FLOAT)
            return chi_int_arithmetic(r, operation, a->integer, b->integer);
        return chi_float_arithmetic(r, operation, chi_number(a), chi_number(b));
    }
    if (c == '+' && (a->safe || b->safe))
        return chi_fail(r, "'+' of a text marked safe is not supported here");
    if (c == '+' && a->type == CHI_STR && b->type == CHI_STR) return chi_concatenate(r, a, b);
    if (c == '+' && ((chi_has_shape(a, CHI_PLAIN) && chi_has_shape(b, CHI_PLAIN)) ||
                     (chi_has_shape(a, CHI_TUPLE) && chi_has_shape(b, CHI_TUPLE))))
        return chi_extend(r, a, b);
    if (chi_is(operation, "*") && a->type == CHI_STR && (b->type == CHI_INT || b->type == CHI_BOOL))
        return chi_repeat(r, a, b->integer);
    if (a->type == CHI_UNDEFINED || b->type == CHI_UNDEFINED) {
        chi_slice name = a->type == CHI_UNDEFINED ? a->text : b->text;
        return chi_fail(r, "'%.*s' is undefined, but '%.*s' needs it",
                        (int)(name.size < 60 ? name.size : 60), name.size ? name.text : "",
                        (int)operation.size, operation.text);
    }
    return chi_fail(r, "'%.*s' is not defined for these two", (int)operation.size, operation.text);
}

/* ---- tests ---- */

static int chi_test_type(const chi_value *v, chi_slice name) {
    int number = chi_is_number(v);
    if (chi_is(name, "defined")) return v->type != CHI_UNDEFINED;
    if (chi_is(name, "undefined")) return v->type == CHI_UNDEFINED;
    if (chi_is(name, "none")) return v->type == CHI_NONE;
    if (chi_is(name, "string")) return v->type == CHI_STR;
    if (chi_is(name, "number")) return number;
    if (chi_is(name, "integer")) return v->type == CHI_INT;
    if (chi_is(name, "float")) return v->type == CHI_FLOAT;
    if (chi_is(name, "boolean")) return v->type == CHI_BOOL;
    if (chi_is(name, "true")) return v->type == CHI_BOOL && v->integer;
    if (chi_is(name, "false")) return v->type == CHI_BOOL && !v->integer;
    if (chi_is(name, "mapping")) return v->type == CHI_MAPPING;
    if (chi_is(name, "callable"))
        return v->type == CHI_FUNCTION || v->type == CHI_CALLABLE || v->type == CHI_LOOP ||
               v->type == CHI_UNDEFINED;
    if (chi_is(name, "sequence") && v->type == CHI_SEQUENCE) return v->items->shape < CHI_VIEW;
    if (chi_is(name, "iterable") || chi_is(name, "sequence"))
        return v->type == CHI_STR || v->type == CHI_SEQUENCE || v->type == CHI_MAPPING ||
               v->type == CHI_UNDEFINED;
    return -1;
}

/* chi_tests: those above, and comparisons with an argument under these names. */
static const char *const chi_tests[][2] = {{"equalto", "=="}, {"eq", "=="}, {"==", "=="},
                                           {"ne", "!="},      {"in", "in"}, {"lt", "<"},
                                           {"lessthan", "<"}, {"gt", ">"},  {"le", "<="},
                                           {"ge", ">="},      {"!=", "!="}, {"greaterthan", ">"}};

static int chi_apply_test(chi_run *r, chi_slice name, const chi_value *v,
                          const chi_value *argument) {
    int result = chi_test_type(v, name);
    if (result >= 0) return result;
    for (size_t i = 0; argument && i < sizeof chi_tests / sizeof chi_tests[0]; i++)
        if (chi_is(name, chi_tests[i][0])) {
            chi_value truth = chi_operate(r, chi_word(chi_tests[i][1]).text, v, argument);
            return chi_truth(&truth);
        }
    int odd = chi_is(name, "odd"), divisible = chi_is(name, "divisibleby");
    if ((odd || divisible || chi_is(name, "even")) && v->type == CHI_INT) {
        int64_t by = divisible ? argument && argument->type == CHI_INT ? argument->integer : 0 : 2;
        if (by == 0) chi_fail(r, "divisibleby needs a number other than 0");
        return by != 0 && (v->integer % by != 0) == odd;
    }
    chi_fail(r, "the test '%.*s' is not supported here", (int)(name.size < 60 ? name.size : 60),
             name.text);
    return 0;
}

/* ---- filters ---- */

static chi_value chi_f_trim(chi_run *r, const chi_arguments *a) {
    chi_arguments copy = *a;
    chi_value list = chi_new_sequence(r, CHI_SEQUENCE);
    if (r->failed) return list;
    copy.positional = list.items;
    for (size_t i = 0; i < a->positional->n; i++)
        chi_append(r, list.items,
                   i ? a->positional->values[i] : chi_to_string(r, a->positional->values));
    return r->failed ? list : chi_strip(r, &copy, 3);
}

static chi_value chi_f_length(chi_run *r, const chi_arguments *a) {
    return chi_length(r, a->positional->values);
}

static chi_value chi_case_filter(chi_run *r, const chi_arguments *a, int how) {
    chi_value text = chi_to_string(r, a->positional->values);
    return r->failed ? text : chi_change_case(r, &text, how);
}
static chi_value chi_f_upper(chi_run *r, const chi_arguments *a) {
    return chi_case_filter(r, a, CHI_UPPER);
}
static chi_value chi_f_lower(chi_run *r, const chi_arguments *a) {
    return chi_case_filter(r, a, CHI_LOWER);
}
static chi_value chi_f_capitalize(chi_run *r, const chi_arguments *a) {
    return chi_case_filter(r, a, CHI_CAPITALIZE);
}
static chi_value chi_f_string(chi_run *r, const chi_arguments *a) {
    return chi_to_string(r, a->positional->values);
}

static chi_value chi_f_safe(chi_run *r, const chi_arguments *a) {
    chi_value text = chi_to_string(r, a->positional->values);
    text.safe = 1;
    return text;
}

static chi_value chi_f_int(chi_run *r, const chi_arguments *a) {
    const chi_value *v = a->positional->values;
    if (v->type == CHI_INT || v->type == CHI_BOOL) return chi_int(v->integer);
    if (v->type == CHI_FLOAT && fabs(v->number) < 1e15) return chi_int((int64_t)v->number);
    if (v->type != CHI_STR) return chi_fail(r, "int of this is not supported");
    chi_slice left = {v->text.text, v->text.size}, space = {NULL, 0};
    size_t n = chi_span(left, space, 0), digits = 0;
    int64_t value = 0;
    int sign = n < left.size && strchr("+-", left.text[n]) ? left.text[n++] : '+';
    for (; n + digits < left.size && chi_is_digit(left.text[n + digits]); digits++)
        value = digits < 18 ? value * 10 + (left.text[n + digits] - '0') : value;
    left.text += n + digits, left.size -= n + digits;
    if (digits < 1 || digits > 18 || chi_span(left, space, 0) != left.size)
        return chi_fail(r, "int is supported only for numbers and texts of decimal digits");
    return chi_int(sign == '-' ? -value : value);
}

static chi_value chi_f_default(chi_run *r, const chi_arguments *a) {
    const chi_value *v = a->positional->values, *otherwise = chi_argument(a, 1, "default_value");
    const chi_value *falsy = chi_argument(a, 2, "boolean");
    int use = v->type == CHI_UNDEFINED || (falsy && chi_truth(falsy) && !chi_truth(v));
    (void)r;
    return !use ? *v : otherwise ? *otherwise : chi_word("");
}

static chi_value chi_f_first(chi_run *r, const chi_arguments *a) {
    const chi_value *v = a->positional->values;
    chi_value list = chi_has_shape(v, CHI_ONCE) ? *v : chi_list_of(r, v);
    if (r->failed || list.items->n == 0) return chi_of_type(CHI_UNDEFINED);
    chi_value first = list.items->values[0];
    if (list.items->shape == CHI_ONCE)
        list.items->values++, list.items->n--, list.items->capacity--;
    return first;
}

static chi_value chi_f_last(chi_run *r, const chi_arguments *a) {
    if (chi_has_shape(a->positional->values, CHI_ONCE)) return chi_fail(r, "last of a generator");
    chi_value list = chi_list_of(r, a->positional->values);
    return r->failed || list.items->n == 0 ? chi_of_type(CHI_UNDEFINED)
                                           : list.items->values[list.items->n - 1];
}

static chi_value chi_f_list(chi_run *r, const chi_arguments *a) {
    chi_value list = chi_list_of(r, a->positional->values), empty;
    empty = chi_new_sequence(r, CHI_SEQUENCE);
    return r->failed ? list : chi_extend(r, &empty, &list);
}

static chi_value chi_f_reverse(chi_run *r, const chi_arguments *a) {
    const chi_value *v = a->positional->values;
    int shape = chi_has_shape(v, CHI_ONCE) ? CHI_PLAIN : CHI_ONCE;
    chi_value none = chi_of_type(CHI_NONE), back = chi_int(-1);
    if (v->type == CHI_STR) return chi_slice_of(r, v, &none, &none, &back);
    chi_value list = chi_list_of(r, v), result = chi_new_shape(r, shape);
    for (size_t i = r->failed ? 0 : list.items->n; i > 0; i--)
        chi_append(r, result.items, list.items->values[i - 1]);
    return result;
}

static chi_value chi_f_join(chi_run *r, const chi_arguments *a) {
    chi_value separator = chi_string_argument(r, a, 1, "d");
    chi_value list = chi_list_of(r, a->positional->values);
    if (chi_argument(a, 2, "attribute")) return chi_fail(r, "join with an attribute");
    return r->failed ? list : chi_join(r, &separator, &list, 0);
}

static chi_value chi_f_tojson(chi_run *r, const chi_arguments *a) {
    int64_t indent = chi_int_argument(r, a, 2, "indent", -1);
    chi_output o;
    memset(&o, 0, sizeof o);
    for (size_t i = 0; i + 1 < a->keywords->n; i += 2)
        if (!chi_is(a->keywords->values[i].text, "indent") &&
            !chi_is(a->keywords->values[i].text, "ensure_ascii"))
            return chi_fail(r, "this option of tojson is not supported here");
    const chi_value *ascii = chi_argument(a, 1, "ensure_ascii");
    if ((ascii && chi_truth(ascii)) || indent > 16 || indent < -1)
        return chi_fail(r, "this option of tojson is not supported here");
    chi_json(r, &o, a->positional->values, (int)indent, 0);
    return chi_written(&o);
}

static chi_value chi_f_replace(chi_run *r, const chi_arguments *a) {
    if (a->positional->values[0].type != CHI_STR) return chi_fail(r, "replace needs a string");
    return chi_replace(r, a);
}

static chi_value chi_f_items(chi_run *r, const chi_arguments *a) {
    const chi_value *v = a->positional->values;
    if (v->type == CHI_UNDEFINED) return chi_new_shape(r, CHI_ONCE);
    if (v->type != CHI_MAPPING) return chi_fail(r, "items of no mapping");
    chi_value pairs = chi_pick(r, v, 3);
    if (!r->failed) pairs.items->shape = CHI_ONCE;
    return pairs;
}

/* Walks the attributes a.b of v. */
static chi_value chi_path(chi_run *r, const chi_value *v, chi_slice path) {
    chi_value value = *v;
    while (!r->failed && path.size > 0) {
        const char *dot = (const char *)memchr(path.text, '.', path.size);
        chi_slice name = {path.text, dot ? (size_t)(dot - path.text) : path.size};
        value = chi_attribute(r, &value, name);
        path.text += name.size + (dot != NULL);
        path.size -= name.size + (dot != NULL);
    }
    return value;
}

/* As chi_list_of, but what counts as false is an empty list. */
static chi_value chi_list_or_nothing(chi_run *r, const chi_value *v) {
    return chi_truth(v) ? chi_list_of(r, v) : chi_new_sequence(r, CHI_SEQUENCE);
}

/* select, reject, selectattr, rejectattr: the items whose test (of an attribute) is `wanted`. */
static chi_value chi_choose(chi_run *r, const chi_arguments *a, int attribute, int wanted) {
    chi_value list = chi_list_or_nothing(r, a->positional->values);
    chi_value result = chi_new_shape(r, CHI_ONCE), path = chi_word("");
    if (attribute) path = chi_string_argument(r, a, 1, NULL);
    const chi_value *test = chi_argument(a, attribute ? 2 : 1, NULL);
    const chi_value *argument = chi_argument(a, attribute ? 3 : 2, NULL);
    if (test && test->type != CHI_STR) chi_fail(r, "the name of a test is no string");
    for (size_t i = 0; !r->failed && i < list.items->n; i++) {
        chi_value value = chi_path(r, &list.items->values[i], path.text);
        int truth = test ? chi_apply_test(r, test->text, &value, argument) : chi_truth(&value);
        if ((truth != 0) == wanted) chi_append(r, result.items, list.items->values[i]);
    }
    return result;
}

static chi_value chi_f_select(chi_run *r, const chi_arguments *a) { return chi_choose(r, a, 0, 1); }
static chi_value chi_f_reject(chi_run *r, const chi_arguments *a) { return chi_choose(r, a, 0, 0); }
static chi_value chi_f_selectattr(chi_run *r, const chi_arguments *a) {
    return chi_choose(r, a, 1, 1);
}
static chi_value chi_f_rejectattr(chi_run *r, const chi_arguments *a) {
    return chi_choose(r, a, 1, 0);
}

static chi_value chi_apply_filter(chi_run *r, chi_slice name, const chi_arguments *a);

static chi_value chi_f_map(chi_run *r, const chi_arguments *a) {
    chi_value list = chi_list_or_nothing(r, a->positional->values);
    chi_value result = chi_new_shape(r, CHI_ONCE);
    const chi_value *attribute = chi_argument(a, SIZE_MAX, "attribute");
    const chi_value *filter = chi_argument(a, 1, NULL);
    if (!attribute && (!filter || filter->type != CHI_STR || a->positional->n > 2))
        return chi_fail(r, "map needs an attribute or the name of a filter");
    for (size_t i = 0; !r->failed && i < list.items->n; i++) {
        chi_sequence one = {&list.items->values[i], 1, 1, 0}, none = {NULL, 0, 0, 0};
        chi_arguments arguments = {&one, &none};
        chi_append(r, result.items,
                   attribute ? chi_path(r, &list.items->values[i], attribute->text)
                             : chi_apply_filter(r, filter->text, &arguments));
    }
    return result;
}

static chi_value chi_f_indent(chi_run *r, const chi_arguments *a) {
    chi_value s = chi_to_string(r, a->positional->values), space = chi_word(" ");
    int64_t width = chi_int_argument(r, a, 1, "width", 4);
    const chi_value *first = chi_argument(a, 2, "first"), *blank = chi_argument(a, 3, "blank");
    if (a->positional->values->type == CHI_UNDEFINED) return chi_fail(r, "indent of nothing");
    if (r->failed || width < 0 || width > 1000) return chi_fail(r, "indent by this much");
    chi_output o;
    memset(&o, 0, sizeof o);
    chi_value margin = chi_repeat(r, &space, width);
    if (first && chi_truth(first)) chi_write(r, &o, &margin);
    for (size_t from = 0, end; from < s.text.size && !r->failed; from = end) {
        for (end = from; end < s.text.size && s.text.text[end] != '\n';) end++;
        int is_blank = end == from;
        end += end < s.text.size;
        chi_value line = chi_part(&s, from, end - from);
        if (from > 0 && (!is_blank || (blank && chi_truth(blank)))) chi_write(r, &o, &margin);
        chi_write(r, &o, &line);
        chi_step(r, end - from);
    }
    return chi_written(&o);
}

/* Pairs sorted by key; letters compare as lower case. */
static chi_value chi_f_dictsort(chi_run *r, const chi_arguments *a) {
    if (a->positional->values->type != CHI_MAPPING) return chi_fail(r, "dictsort of no mapping");
    chi_value pairs = chi_pick(r, a->positional->values, 3);
    if (!r->failed) pairs.items->shape = CHI_PLAIN;
    if (a->positional->n > 1 || a->keywords->n > 0)
        return chi_fail(r, "options of dictsort are not supported here");
    for (size_t i = 1; !r->failed && i < pairs.items->n; i++) {
        chi_value pair = pairs.items->values[i];
        size_t at = i;
        for (; at > 0; at--) {
            chi_value x = pairs.items->values[at - 1].items->values[0];
            chi_value y = pair.items->values[0];
            if (x.type == CHI_STR) x = chi_change_case(r, &x, CHI_LOWER);
            if (y.type == CHI_STR) y = chi_change_case(r, &y, CHI_LOWER);
            if (r->failed || chi_order(r, &x, &y) <= 0) break;
            pairs.items->values[at] = pairs.items->values[at - 1];
        }
        pairs.items->values[at] = pair;
    }
    return pairs;
}

static chi_value chi_f_title(chi_run *r, const chi_arguments *a) {
    chi_value text = chi_to_string(r, a->positional->values);
    return r->failed ? text : chi_change_case(r, &text, CHI_TITLE_WORDS);
}

static chi_value chi_f_abs(chi_run *r, const chi_arguments *a) {
    const chi_value *v = a->positional->values;
    if (v->type == CHI_FLOAT) return chi_float(fabs(v->number));
    if (v->type != CHI_INT && v->type != CHI_BOOL) return chi_fail(r, "abs of no number");
    return chi_int(v->integer < 0 ? -v->integer : v->integer);
}

/* What sort, unique, min and max compare: the attribute `path` of v, in lower case. */
static chi_value chi_key(chi_run *r, const chi_value *v, chi_slice path) {
    chi_value key = chi_path(r, v, path);
    return key.type == CHI_STR && !r->failed ? chi_change_case(r, &key, CHI_LOWER) : key;
}

/* The keyword attribute of such a filter, without which it may have no argument. */
static chi_slice chi_key_path(chi_run *r, const chi_arguments *a) {
    const chi_value *path = chi_argument(a, SIZE_MAX, "attribute");
    if (a->positional->n > 1 || a->keywords->n > (path ? 2 : 0) ||
        (path && (path->type != CHI_STR || memchr(path->text.text, ',', path->text.size))))
        chi_fail(r, "this option of the filter is not supported here");
    return path && !r->failed ? path->text : chi_slice_of_text("");
}

/* By insertion, which keeps the order of equals. */
static chi_value chi_f_sort(chi_run *r, const chi_arguments *a) {
    chi_slice path = chi_key_path(r, a);
    chi_value list = chi_f_list(r, a), keys = chi_new_sequence(r, CHI_SEQUENCE);
    for (size_t i = 0; !r->failed && i < list.items->n; i++) {
        chi_value item = list.items->values[i], key = chi_key(r, &item, path);
        size_t at = i;
        chi_append(r, keys.items, key);
        for (; at > 0 && chi_step(r, 1); at--) {
            if (chi_order(r, &keys.items->values[at - 1], &key) <= 0 || r->failed) break;
            keys.items->values[at] = keys.items->values[at - 1];
            list.items->values[at] = list.items->values[at - 1];
        }
        if (!r->failed) keys.items->values[at] = key, list.items->values[at] = item;
    }
    return list;
}

static chi_value chi_f_unique(chi_run *r, const chi_arguments *a) {
    chi_slice path = chi_key_path(r, a);
    chi_value list = chi_list_of(r, a->positional->values), seen = chi_new_shape(r, CHI_PLAIN);
    chi_value result = chi_new_shape(r, CHI_ONCE);
    for (size_t i = 0; !r->failed && i < list.items->n; i++) {
        chi_value key = chi_key(r, &list.items->values[i], path);
        if (key.type == CHI_SEQUENCE || key.type == CHI_MAPPING) chi_fail(r, "unique of lists");
        if (r->failed || chi_contains(r, &seen, &key)) continue;
        chi_append(r, seen.items, key);
        chi_append(r, result.items, list.items->values[i]);
    }
    return result;
}

/* The first item that is least (sign -1) or greatest (1). */
static chi_value chi_extreme(chi_run *r, const chi_arguments *a, int sign) {
    chi_slice path = chi_key_path(r, a);
    chi_value list = chi_list_of(r, a->positional->values), best = chi_of_type(CHI_UNDEFINED), key;
    key = best;
    for (size_t i = 0; !r->failed && i < list.items->n; i++) {
        chi_value item = list.items->values[i], k = chi_key(r, &item, path);
        if (r->failed || (i > 0 && chi_order(r, &k, &key) != sign)) continue;
        best = item, key = k;
    }
    return best;
}
static chi_value chi_f_min(chi_run *r, const chi_arguments *a) { return chi_extreme(r, a, -1); }
static chi_value chi_f_max(chi_run *r, const chi_arguments *a) { return chi_extreme(r, a, 1); }

static const chi_named chi_filters[] = {
    {"trim", chi_f_trim, 0},
    {"length", chi_f_length, 0},
    {"count", chi_f_length, 0},
    {"upper", chi_f_upper, 0},
    {"lower", chi_f_lower, 0},
    {"capitalize", chi_f_capitalize, 0},
    {"string", chi_f_string, 0},
    {"safe", chi_f_safe, 0},
    {"int", chi_f_int, 0},
    {"default", chi_f_default, 0},
    {"d", chi_f_default, 0},
    {"first", chi_f_first, 0},
    {"last", chi_f_last, 0},
    {"list", chi_f_list, 0},
    {"reverse", chi_f_reverse, 0},
    {"join", chi_f_join, 0},
    {"tojson", chi_f_tojson, 0},
    {"replace", chi_f_replace, 0},
    {"items", chi_f_items, 0},
    {"dictsort", chi_f_dictsort, 0},
    {"select", chi_f_select, 0},
    {"reject", chi_f_reject, 0},
    {"selectattr", chi_f_selectattr, 0},
    {"rejectattr", chi_f_rejectattr, 0},
    {"map", chi_f_map, 0},
    {"indent", chi_f_indent, 0},
    {"title", chi_f_title, 0},
    {"abs", chi_f_abs, 0},
    {"sort", chi_f_sort, 0},
    {"unique", chi_f_unique, 0},
    {"min", chi_f_min, 0},
    {"max", chi_f_max, 0},
};

static chi_value chi_apply_filter(chi_run *r, chi_slice name, const chi_arguments *a) {
    const chi_named *filter =
        chi_named_in(chi_filters, sizeof chi_filters / sizeof chi_filters[0], name, 0);
    if (filter == NULL)
        return chi_fail(r, "the filter '%.*s' is not supported here",
                        (int)(name.size < 60 ? name.size : 60), name.text);
    return filter->call(r, a);
}

/* ---- functions ---- */

static chi_value chi_range(chi_run *r, const chi_arguments *a) {
    int64_t first = chi_int_argument(r, a, 0, NULL, 0), end = first;
    int64_t step = chi_int_argument(r, a, 2, NULL, 1);
    chi_value list = chi_new_shape(r, CHI_RANGE);
    if (a->positional->n < 2) first = 0;
    else end = chi_int_argument(r, a, 1, NULL, 0);
    if (step == 0 || first > INT_MAX || first < INT_MIN || end > INT_MAX || end < INT_MIN ||
        step > INT_MAX || step < INT_MIN)
        return chi_fail(r, "range: too large, or a step of 0");
    for (; (step > 0 ? first < end : first > end) && !r->failed; first += step)
        chi_append(r, list.items, chi_int(first));
    return list;
}

static chi_value chi_keywords_as(chi_run *r, const chi_arguments *a, int type) {
    chi_value v = chi_new_sequence(r, type);
    if (a->positional->n > 0) return chi_fail(r, "only arguments with names are supported here");
    for (size_t i = 0; i + 1 < a->keywords->n; i += 2)
        chi_put(r, v.items, a->keywords->values[i], a->keywords->values[i + 1]);
    return v;
}

static chi_value chi_namespace(chi_run *r, const chi_arguments *a) {
    return chi_keywords_as(r, a, CHI_NAMESPACE);
}

static chi_value chi_dict_function(chi_run *r, const chi_arguments *a) {
    return chi_keywords_as(r, a, CHI_MAPPING);
}

static chi_value chi_raise(chi_run *r, const chi_arguments *a) {
    chi_value message = chi_string_argument(r, a, 0, "message");
    return chi_fail(r, "the template says: %.*s",
                    (int)(message.text.size < 160 ? message.text.size : 160),
                    message.text.size ? message.text.text : "");
}

static chi_value chi_strftime(chi_run *r, const chi_arguments *a) {
    chi_value format = chi_string_argument(r, a, 0, "format");
    char copy[128], *out = (char *)chi_alloc(r, 512);
    if (r->failed || format.text.size >= sizeof copy) return chi_fail(r, "strftime_now: too long");
    memcpy(copy, format.text.size ? format.text.text : "", format.text.size);
    copy[format.text.size] = 0;
    for (const char *s = copy; (s = strchr(s, '%')) != NULL; s += 2)
        if (s[1] == 0 || strchr("aAbBcdHIjmMpSUwWxXyYZ%", s[1]) == NULL)
            return chi_fail(r, "strftime_now: '%%%c' is not supported", s[1] ? s[1] : ' ');
    return chi_string(out, strftime(out, 512, copy, r->now));
}

static const chi_named chi_functions[] = {{"range", chi_range, 0},
                                          {"namespace", chi_namespace, 0},
                                          {"dict", chi_dict_function, 0},
                                          {"raise_exception", chi_raise, 0},
                                          {"strftime_now", chi_strftime, 0}};

/* ---- evaluation ---- */

static chi_value chi_evaluate(chi_run *r, const chi_node *node);
static void chi_execute(chi_run *r, const chi_node *node);

static chi_variable *chi_variable_in(chi_run *r, const chi_scope *scope, chi_slice name) {
    for (chi_variable *v = scope->variables; v && chi_step(r, 1); v = v->next)
        if (chi_same(v->name, name)) return v;
    return NULL;
}

static chi_scope *chi_new_scope(chi_run *r, chi_scope *parent) {
    chi_scope *scope = (chi_scope *)chi_alloc(r, sizeof *scope);
    if (scope) scope->parent = parent;
    return scope;
}

static chi_value chi_variable_value(chi_run *r, chi_slice name) {
    static const char *const unsupported[] = {"varargs", "kwargs", "self",
                                              "lipsum",  "joiner", "cycler"};
    chi_value missing = chi_of_type(CHI_UNDEFINED);
    missing.text = name;
    for (const chi_scope *scope = r->scope; scope && !r->failed; scope = scope->parent) {
        chi_variable *v = chi_variable_in(r, scope, name);
        if (v) return v->value;
    }
    for (int i = 0; i < 6; i++)
        if (chi_is(name, unsupported[i]))
            return chi_fail(r, "'%s' is not supported here", unsupported[i]);
    return missing;
}

static void chi_assign(chi_run *r, chi_scope *scope, chi_slice name, chi_value value) {
    chi_variable *v = chi_variable_in(r, scope, name);
    if (v == NULL) {
        v = (chi_variable *)chi_alloc(r, sizeof *v);
        if (v == NULL) return;
        v->name = name;
        v->next = scope->variables;
        scope->variables = v;
    }
    v->value = value;
}

static chi_arguments chi_evaluate_arguments(chi_run *r, const chi_node *node,
                                            const chi_value *object) {
    chi_arguments a;
    a.positional = chi_new_sequence(r, CHI_SEQUENCE).items;
    a.keywords = chi_new_sequence(r, CHI_SEQUENCE).items;
    if (object) chi_append(r, a.positional, *object);
    for (; node && !r->failed; node = node->next) {
        if (node->kind == CHI_KEYWORD) {
            chi_append(r, a.keywords, chi_string(node->text.text, node->text.size));
            chi_append(r, a.keywords, chi_evaluate(r, node->a));
        } else if (node->kind == CHI_STAR) {
            chi_value given = chi_evaluate(r, node->a);
            chi_value list = r->failed ? given : chi_list_of(r, &given);
            for (size_t i = 0; !r->failed && i < list.items->n; i++)
                chi_append(r, a.positional, list.items->values[i]);
        } else {
            chi_append(r, a.positional, chi_evaluate(r, node));
        }
    }
    return a;
}

/* Executes the statements in this scope, which may be NULL where memory ran out. */
static void chi_execute_in(chi_run *r, const chi_node *body, chi_scope *scope) {
    chi_scope *outer = r->scope;
    if (r->failed || scope == NULL) return;
    r->scope = scope;
    chi_execute(r, body);
    r->scope = outer;
    scope->ended = 1;
}

/* What that writes. */
static chi_value chi_capture(chi_run *r, const chi_node *body, chi_scope *scope) {
    chi_output out, *outer = r->out;
    memset(&out, 0, sizeof out);
    r->out = &out;
    chi_execute_in(r, body, scope);
    r->out = outer;
    return chi_written(&out);
}

static chi_value chi_new_macro(chi_run *r, const chi_node *node) {
    chi_value v = chi_of_type(CHI_CALLABLE);
    v.macro = (chi_closure *)chi_alloc(r, sizeof *v.macro);
    if (v.macro) v.macro->node = node, v.macro->scope = r->scope;
    return v;
}

static const chi_value *chi_keyword(const chi_arguments *a, chi_slice name) {
    for (size_t k = 0; k + 1 < a->keywords->n; k += 2)
        if (chi_same(a->keywords->values[k].text, name)) return &a->keywords->values[k + 1];
    return NULL;
}

/* Gives parameter number i its value in the scope at hand: the argument's, or its default, which
 * may use the parameters before it.  1 if it was an argument with a name. */
static int chi_bind(chi_run *r, const chi_node *parameter, size_t i, const chi_arguments *a) {
    const chi_value *keyword = chi_keyword(a, parameter->text), *given = keyword;
    chi_value value = chi_of_type(CHI_UNDEFINED);
    value.text = parameter->text;
    if (i < a->positional->n) given = &a->positional->values[i];
    if (given) value = *given;
    else if (parameter->kind == CHI_KEYWORD) value = chi_evaluate(r, parameter->a);
    if (!r->failed) chi_assign(r, r->scope, parameter->text, value);
    return keyword != NULL && given == keyword;
}

static chi_value chi_call_macro(chi_run *r, const chi_closure *macro, const chi_arguments *a) {
    const chi_slice caller = chi_slice_of_text("caller");
    chi_scope *outer = r->scope, *scope = chi_new_scope(r, macro->scope);
    const chi_value *body = chi_keyword(a, caller);
    chi_value none = chi_of_type(CHI_UNDEFINED);
    size_t i = 0, named = 0;
    if (scope == NULL) return none;
    if (macro->scope->ended) return chi_fail(r, "a macro is called outside of where it was made");
    r->scope = scope;
    for (const chi_node *x = macro->node->a; x && !r->failed; x = x->next, i++)
        named += (size_t)chi_bind(r, x, i, a);
    if (macro->node->integer && chi_variable_in(r, scope, caller) == NULL) {
        named += body != NULL;
        chi_assign(r, scope, caller, body ? *body : none);
    }
    r->scope = outer;
    if (a->positional->n > i) return chi_fail(r, "a macro got too many arguments");
    if (a->keywords->n != 2 * named) return chi_fail(r, "a macro got arguments it does not know");
    return chi_capture(r, macro->node->b, scope);
}

static chi_value chi_evaluate_call(chi_run *r, const chi_node *node) {
    const chi_node *callee = node->a;
    if (callee->kind == CHI_ATTRIBUTE) {
        chi_value object = chi_evaluate(r, callee->a);
        if (r->failed) return object;
        const chi_named *method = chi_named_in(
            chi_methods, sizeof chi_methods / sizeof chi_methods[0], callee->text, object.type);
        if (method && object.safe &&
            (chi_is(callee->text, "replace") || chi_is(callee->text, "join") ||
             chi_is(callee->text, "format")))
            return chi_fail(r, "this method of a text marked safe is not supported here");
        if (method) {
            chi_arguments a = chi_evaluate_arguments(r, node->b, &object);
            return r->failed ? object : method->call(r, &a);
        }
    }
    chi_value function = chi_evaluate(r, callee);
    if (r->failed) return function;
    if (function.type != CHI_FUNCTION && function.type != CHI_CALLABLE)
        return chi_fail(r, "'%.*s' cannot be called",
                        (int)(callee->text.size < 60 ? callee->text.size : 60), callee->text.text);
    chi_arguments a = chi_evaluate_arguments(r, node->b, NULL);
    if (r->failed) return function;
    return function.type == CHI_CALLABLE ? chi_call_macro(r, function.macro, &a)
                                         : chi_functions[function.integer].call(r, &a);
}

static chi_value chi_evaluate_items(chi_run *r, const chi_node *node) {
    chi_value v = chi_new_sequence(r, node->kind == CHI_DICT ? CHI_MAPPING : CHI_SEQUENCE);
    if (r->failed) return v;
    if (node->kind == CHI_LIST && node->integer) v.items->shape = CHI_TUPLE;
    for (const chi_node *x = node->a; x && !r->failed; x = x->next) {
        chi_value value = chi_evaluate(r, x);
        if (node->kind == CHI_LIST) {
            chi_append(r, v.items, value);
        } else {
            x = x->next;
            chi_put(r, v.items, value, chi_evaluate(r, x));
        }
    }
    return v;
}

static chi_value chi_evaluate_slice(chi_run *r, const chi_node *node) {
    const chi_node *parts[3];
    chi_value bounds[3], object = chi_evaluate(r, node->a);
    parts[0] = node->b, parts[1] = node->c, parts[2] = node->d;
    for (int i = 0; i < 3; i++)
        bounds[i] = parts[i] ? chi_evaluate(r, parts[i]) : chi_of_type(CHI_NONE);
    return r->failed ? object : chi_slice_of(r, &object, &bounds[0], &bounds[1], &bounds[2]);
}

static chi_value chi_evaluate_test(chi_run *r, const chi_node *node) {
    chi_value value = chi_evaluate(r, node->a);
    chi_arguments a = chi_evaluate_arguments(r, node->b, NULL);
    if (r->failed) return value;
    return chi_bool(
        chi_apply_test(r, node->text, &value, a.positional->n ? a.positional->values : NULL));
}

static chi_value chi_negate(chi_run *r, const chi_node *node) {
    chi_value v = chi_evaluate(r, node->a);
    if (r->failed) return v;
    if (!chi_is_number(&v)) return chi_fail(r, "a sign before something that is no number");
    if (v.type == CHI_FLOAT) return chi_float(node->kind == CHI_NEGATE ? -v.number : v.number);
    return chi_int(node->kind == CHI_NEGATE ? -v.integer : v.integer);
}

static chi_value chi_evaluate_inner(chi_run *r, const chi_node *node) {
    chi_value a, b;
    switch (node->kind) {
    case CHI_NAME: return chi_variable_value(r, node->text);
    case CHI_STRING: return chi_string(node->text.text, node->text.size);
    case CHI_INTEGER: return chi_int(node->integer);
    case CHI_NUMBER: return chi_float(node->number);
    case CHI_CONSTANT:
        return node->integer == 2 ? chi_of_type(CHI_NONE) : chi_bool(node->integer == 1);
    case CHI_LIST:
    case CHI_DICT: return chi_evaluate_items(r, node);
    case CHI_SLICE: return chi_evaluate_slice(r, node);
    case CHI_CALL: return chi_evaluate_call(r, node);
    case CHI_TEST: return chi_evaluate_test(r, node);
    case CHI_NEGATE:
    case CHI_PLUS: return chi_negate(r, node);
    case CHI_WRITTEN: return chi_capture(r, node->b, chi_new_scope(r, r->scope));
    case CHI_CALLER: return chi_new_macro(r, node);
    default: break;
    }
    a = chi_evaluate(r, node->a);
    if (r->failed) return a;
    switch (node->kind) {
    case CHI_ATTRIBUTE:
        if (a.type == CHI_MAPPING && chi_is_python_name(&a, node->text))
            return chi_fail(r, "the method '%.*s' is not called", (int)node->text.size,
                            node->text.text);
        return chi_attribute(r, &a, node->text);
    case CHI_NOT: return chi_bool(!chi_truth(&a));
    case CHI_AND: return chi_truth(&a) ? chi_evaluate(r, node->b) : a;
    case CHI_OR: return chi_truth(&a) ? a : chi_evaluate(r, node->b);
    case CHI_CHOICE:
        if (chi_truth(&a)) return chi_evaluate(r, node->b);
        return node->c ? chi_evaluate(r, node->c) : chi_of_type(CHI_UNDEFINED);
    case CHI_FILTER: {
        chi_arguments arguments = chi_evaluate_arguments(r, node->b, &a);
        return r->failed ? a : chi_apply_filter(r, node->text, &arguments);
    }
    default: break;
    }
    b = chi_evaluate(r, node->b);
    if (r->failed) return b;
    return node->kind == CHI_INDEX ? chi_index(r, &a, &b) : chi_operate(r, node->text, &a, &b);
}

static chi_value chi_evaluate(chi_run *r, const chi_node *node) {
    chi_value v = chi_of_type(CHI_UNDEFINED);
    if (!chi_step(r, 1)) return v;
    r->line = node->line;
    if (++r->depth > CHI_MAX_EVALUATION) return chi_fail(r, "nested too deeply");
    v = chi_evaluate_inner(r, node);
    r->depth--;
    return v;
}

/* ---- execution ---- */

/* One target gets the value, several get its items. */
static void chi_assign_targets(chi_run *r, chi_scope *scope, const chi_node *targets,
                               chi_value value) {
    size_t n = 0, i = 0;
    for (const chi_node *x = targets; x; x = x->next) n++;
    if (n == 1 && targets->kind == CHI_ATTRIBUTE) {
        chi_value space = chi_evaluate(r, targets->a);
        chi_value name = chi_string(targets->text.text, targets->text.size);
        if (!r->failed && space.type != CHI_NAMESPACE)
            chi_fail(r, "only a namespace's attributes can be set");
        if (!r->failed) chi_put(r, space.items, name, value);
        return;
    }
    if (n == 1) {
        chi_assign(r, scope, targets->text, value);
        return;
    }
    value = chi_list_of(r, &value);
    if (!r->failed && value.items->n != n) chi_fail(r, "unpacking: not just %d items", (int)n);
    for (; targets && !r->failed; targets = targets->next)
        chi_assign(r, scope, targets->text, value.items->values[i++]);
}

/* The variable named loop, for item i of the list. */
static chi_value chi_loop(chi_run *r, const chi_sequence *list, size_t i) {
    chi_value loop = chi_new_sequence(r, CHI_LOOP), none = chi_of_type(CHI_UNDEFINED);
    int64_t n = (int64_t)list->n, at = (int64_t)i;
    chi_put(r, loop.items, chi_word("index"), chi_int(at + 1));
    chi_put(r, loop.items, chi_word("index0"), chi_int(at));
    chi_put(r, loop.items, chi_word("revindex"), chi_int(n - at));
    chi_put(r, loop.items, chi_word("revindex0"), chi_int(n - at - 1));
    chi_put(r, loop.items, chi_word("first"), chi_bool(at == 0));
    chi_put(r, loop.items, chi_word("last"), chi_bool(at == n - 1));
    chi_put(r, loop.items, chi_word("length"), chi_int(n));
    chi_put(r, loop.items, chi_word("depth"), chi_int(1));
    chi_put(r, loop.items, chi_word("depth0"), chi_int(0));
    if (i > 0) chi_put(r, loop.items, chi_word("previtem"), list->values[i - 1]);
    if (i + 1 < list->n) chi_put(r, loop.items, chi_word("nextitem"), list->values[i + 1]);
    return r->failed ? none : loop;
}

/* The items for which the condition of the loop holds. */
static chi_value chi_filtered(chi_run *r, const chi_node *node, const chi_value *list) {
    chi_value result = chi_new_sequence(r, CHI_SEQUENCE);
    chi_scope *outer = r->scope, scope = {NULL, outer, 0};
    for (size_t i = 0; !r->failed && i < list->items->n; i++) {
        scope.variables = NULL;
        r->scope = &scope;
        chi_assign_targets(r, &scope, node->a, list->items->values[i]);
        chi_value keep = chi_evaluate(r, node->e);
        r->scope = outer;
        if (!r->failed && chi_truth(&keep)) chi_append(r, result.items, list->items->values[i]);
    }
    return result;
}

static void chi_execute_for(chi_run *r, const chi_node *node) {
    chi_value iterable = chi_evaluate(r, node->b);
    chi_value list = r->failed ? iterable : chi_list_of(r, &iterable);
    int whole = 0; /* a pass went through to its end, without break or continue */
    if (!r->failed && node->e) list = chi_filtered(r, node, &list);
    if (r->failed) return;
    for (size_t i = 0; !r->failed && i < list.items->n && r->flow != CHI_BREAK; i++) {
        chi_scope *scope = chi_new_scope(r, r->scope);
        if (scope == NULL) return;
        r->flow = 0;
        chi_assign(r, scope, chi_word("loop").text, chi_loop(r, list.items, i));
        chi_assign_targets(r, scope, node->a, list.items->values[i]);
        chi_execute_in(r, node->c, scope);
        whole |= r->flow == 0;
    }
    r->flow = 0;
    if (!whole && node->d) chi_execute_in(r, node->d, chi_new_scope(r, r->scope));
}

static void chi_execute_one(chi_run *r, const chi_node *node) {
    chi_value v;
    switch (node->kind) {
    case CHI_TEXT:
        v = chi_string(node->text.text, node->text.size);
        chi_write(r, r->out, &v);
        break;
    case CHI_PRINT:
        v = chi_evaluate(r, node->a);
        if (!r->failed) v = chi_to_string(r, &v);
        if (!r->failed) chi_write(r, r->out, &v);
        break;
    case CHI_IF:
        v = chi_evaluate(r, node->a);
        if (!r->failed) chi_execute(r, chi_truth(&v) ? node->b : node->c);
        break;
    case CHI_FOR: chi_execute_for(r, node); break;
    case CHI_SET:
        v = chi_evaluate(r, node->b);
        if (!r->failed) chi_assign_targets(r, r->scope, node->a, v);
        break;
    case CHI_MACRO: chi_assign(r, r->scope, node->text, chi_new_macro(r, node)); break;
    case CHI_SCOPE: chi_execute_in(r, node->b, chi_new_scope(r, r->scope)); break;
    default: r->flow = node->kind; break; /* break, continue */
    }
}

static void chi_execute(chi_run *r, const chi_node *node) {
    if (++r->depth > CHI_MAX_EVALUATION) chi_fail(r, "nested too deeply");
    for (; node && r->flow == 0 && chi_step(r, 1); node = node->next) {
        r->line = node->line;
        chi_execute_one(r, node);
    }
    r->depth--;
}

/* ---- templates ---- */

static char *chi_copy(chi_arena *arena, const char *text, size_t size) {
    char *copy = (char *)chi_take(arena, size + 1);
    if (copy && size) memcpy(copy, text, size);
    return copy;
}

/* Line ends become \n; one at the end goes. */
static size_t chi_normalize(char *text, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n') continue;
        text[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    return n > 0 && text[n - 1] == '\n' ? n - 1 : n;
}

chat_template *chat_template_open(const char *text, size_t size, chat_error *error) {
    chi_parser p;
    chat_template *t = (chat_template *)calloc(1, sizeof *t);
    memset(&p, 0, sizeof p);
    if (t == NULL || text == NULL) {
        chi_error(error, t ? "the template is NULL" : "out of memory");
        free(t);
        return NULL;
    }
    t->arena.left = (size_t)CHAT_MEMORY_LIMIT;
    char *copy = chi_copy(&t->arena, text, size);
    p.arena = &t->arena;
    p.error = error;
    p.line = 1;
    p.line_starts = 1;
    if (copy == NULL) {
        chi_syntax(&p, "out of memory");
    } else {
        p.at = copy;
        p.end = copy + chi_normalize(copy, size);
        t->body = chi_statements(&p, NULL);
    }
    if (p.failed) {
        chat_template_close(t);
        return NULL;
    }
    return t;
}

void chat_template_close(chat_template *t) {
    if (t == NULL) return;
    chi_free(&t->arena);
    free(t);
}

int chat_template_set_tokens(chat_template *t, const char *bos, const char *eos) {
    char *copies[2] = {NULL, NULL};
    const char *texts[2];
    texts[0] = bos, texts[1] = eos;
    for (int i = 0; i < 2; i++) {
        if (texts[i] == NULL) continue;
        copies[i] = chi_copy(&t->arena, texts[i], strlen(texts[i]));
        if (copies[i] == NULL) return -1;
    }
    t->bos = copies[0];
    t->eos = copies[1];
    return 0;
}

/* Is it a plain word, which no token of a special meaning is? */
static int chi_is_plain(const char *text) {
    for (; *text; text++)
        if (!chi_is_word((unsigned char)*text)) return 0;
    return 1;
}

static void chi_define(chi_run *r, const char *name, chi_value value) {
    chi_assign(r, r->globals, chi_word(name).text, value);
}

static chi_value chi_messages(chi_run *r, const chat_conversation *c) {
    chi_value list = chi_new_sequence(r, CHI_SEQUENCE);
    for (int i = 0; i < c->n_messages && !r->failed; i++) {
        const chat_message *m = &c->messages[i];
        chi_value message = chi_new_sequence(r, CHI_MAPPING);
        if (m->role == NULL || m->content == NULL)
            return chi_fail(r, "message %d has no role or no content", i);
        chi_put(r, message.items, chi_word("role"), chi_quote(r, m->role, !chi_is_plain(m->role)));
        chi_put(r, message.items, chi_word("content"), chi_quote(r, m->content, 1));
        chi_append(r, list.items, message);
    }
    return list;
}

static void chi_define_all(chi_run *r, const chat_template *t, const chat_conversation *c) {
    for (size_t i = 0; i < sizeof chi_functions / sizeof chi_functions[0]; i++) {
        chi_value function = chi_of_type(CHI_FUNCTION);
        function.integer = (int64_t)i;
        if (r->now || strcmp(chi_functions[i].name, "strftime_now") != 0)
            chi_define(r, chi_functions[i].name, function);
    }
    if (t->bos) chi_define(r, "bos_token", chi_word(t->bos));
    if (t->eos) chi_define(r, "eos_token", chi_word(t->eos));
    chi_define(r, "tools", chi_of_type(CHI_NONE));
    chi_define(r, "documents", chi_of_type(CHI_NONE));
    chi_define(r, "add_generation_prompt", chi_bool(c->add_generation_prompt));
    for (int i = 0; i < c->n_variables; i++)
        chi_define(r, c->variables[i].name,
                   c->variables[i].text ? chi_quote(r, c->variables[i].text, 1)
                                        : chi_bool(c->variables[i].truth));
    chi_define(r, "messages", chi_messages(r, c));
}

int chat_template_render(const chat_template *t, const chat_conversation *c, chat_text *out,
                         chat_error *error) {
    chi_run r;
    chi_scope globals;
    chi_output o;
    memset(&r, 0, sizeof r);
    memset(&globals, 0, sizeof globals);
    memset(&o, 0, sizeof o);
    memset(out, 0, sizeof *out);
    r.arena.left = (size_t)CHAT_MEMORY_LIMIT;
    r.steps = CHAT_STEP_LIMIT;
    r.error = error;
    r.now = c->now;
    r.scope = r.globals = &globals;
    r.out = &o;
    chi_define_all(&r, t, c);
    if (!r.failed) chi_execute(&r, t->body);
    if (!r.failed) {
        out->size = o.size;
        out->text = (char *)malloc(2 * o.size + 1);
        if (out->text == NULL) {
            chi_fail(&r, "out of memory");
        } else {
            if (o.size) memcpy(out->text, o.text, o.size);
            out->text[o.size] = 0;
            out->quoted = (unsigned char *)out->text + o.size + 1;
            if (o.size) memcpy(out->quoted, o.quoted, o.size);
        }
    }
    chi_free(&r.arena);
    return r.failed ? -1 : 0;
}

void chat_text_free(chat_text *text) {
    free(text->text);
    memset(text, 0, sizeof *text);
}

/* ---- our own templates ---- */

#define CHI_SYSTEM_FIRST /* text, for templates that put the system's text before a user's */      \
    "{% set ns = namespace(system='', left=0) %}{% for m in messages %}"                           \
    "{% if m.role == 'system' %}{% set ns.system = ns.system + m.content + '\n\n' %}{% endif %}"   \
    "{% endfor %}"
#define CHI_ROLES_BY_TAG                                                                           \
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + after }}{% endfor %}"          \
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
#define CHI_CHATML                                                                                 \
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"     \
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

static const struct {
    const char *name, *bos, *eos, *text;
} chi_templates[] = {
    {"chatml", NULL, "<|im_end|>", CHI_CHATML},
    {"llama2", "<s>", "</s>",
     CHI_SYSTEM_FIRST
     "{% for m in messages %}{% if m.role == 'user' %}{% set system = '' %}{% if ns.system %}"
     "{% set system = '<<SYS>>\n' + ns.system[:-2] + '\n<</SYS>>\n\n' %}{% set ns.system = '' %}"
     "{% endif %}{{ bos_token + '[INST] ' + (system + m.content).strip() + ' [/INST]' }}"
     "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}"
     "{% endfor %}"},
    {"llama3", "<|begin_of_text|>", "<|eot_id|>",
     "{{ bos_token }}{% for m in messages %}"
     "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content.strip() + "
     "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"},
    {"mistral", "<s>", "</s>",
     CHI_SYSTEM_FIRST
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
     "{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}{% set ns.system = '' %}"
     "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"},
    {"gemma", "<bos>", "<eos>",
     CHI_SYSTEM_FIRST
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
     "{{ '<start_of_turn>user\n' + ns.system + m.content.strip() + '<end_of_turn>\n' }}"
     "{% set ns.system = '' %}{% elif m.role == 'assistant' %}"
     "{{ '<start_of_turn>model\n' + m.content.strip() + '<end_of_turn>\n' }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"},
    {"phi3", "<s>", "<|endoftext|>",
     "{% set after = '<|end|>\n' %}" CHI_ROLES_BY_TAG
     "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"},
    {"zephyr", "<s>", "</s>", "{% set after = eos_token + '\n' %}" CHI_ROLES_BY_TAG},
    {"command-r", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>",
     "{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}"
     "{{ bos_token }}{% for m in messages %}"
     "{{ '<|START_OF_TURN_TOKEN|><|' + names[m.role] + '_TOKEN|>' + "
     "(m.content if m.role == 'system' else m.content.strip()) + "
     "'<|END_OF_TURN_TOKEN|>' }}{% endfor %}{% if add_generation_prompt %}"
     "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"},
    {"deepseek",
     "<\xEF\xBD\x9C"
     "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     "<\xEF\xBD\x9C"
     "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
     "{{ 'User: ' + m.content + '\n\n' }}{% elif m.role == 'assistant' %}"
     "{{ 'Assistant: ' + m.content + eos_token }}{% else %}{{ m.content + '\n\n' }}{% endif %}"
     "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"},
    {"deepseek3",
     "<\xEF\xBD\x9C"
     "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     "<\xEF\xBD\x9C"
     "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
     "{{ '<\xEF\xBD\x9CUser\xEF\xBD\x9C>' + m.content }}{% elif m.role == 'assistant' %}"
     "{{ '<\xEF\xBD\x9C"
     "Assistant\xEF\xBD\x9C>' + m.content.split('</think>')[-1] + eos_token }}"
     "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
     "{{ '<\xEF\xBD\x9C"
     "Assistant\xEF\xBD\x9C>' }}{% endif %}"},
    {"qwen", NULL, "<|im_end|>",
     "{% if messages[0].role != 'system' %}"
     "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}" CHI_CHATML},
    {"smollm", "<|im_start|>", "<|im_end|>",
     "{% if messages[0].role != 'system' %}"
     "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
     "<|im_end|>\n' }}{% endif %}" CHI_CHATML},
    {"olmo", "<|endoftext|>", "<|endoftext|>",
     "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
     "{{ eos_token if m.role == 'assistant' else '' }}{{ '' if loop.last and m.role == 'assistant' "
     "else '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
    {"granite", "<|end_of_text|>", "<|end_of_text|>",
     "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + "
     "'<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}"
     "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"},
};

const char *chat_template_name(int i) {
    int n = (int)(sizeof chi_templates / sizeof chi_templates[0]);
    return i >= 0 && i < n ? chi_templates[i].name : NULL;
}

static chat_template *chi_with_tokens(chat_template *t, const char *bos, const char *eos,
                                      chat_error *error) {
    if (t && chat_template_set_tokens(t, bos, eos) != 0) {
        chi_error(error, "out of memory");
        chat_template_close(t);
        t = NULL;
    }
    return t;
}

chat_template *chat_template_named(const char *name, chat_error *error) {
    for (size_t i = 0; i < sizeof chi_templates / sizeof chi_templates[0]; i++)
        if (strcmp(name, chi_templates[i].name) == 0)
            return chi_with_tokens(
                chat_template_open(chi_templates[i].text, strlen(chi_templates[i].text), error),
                chi_templates[i].bos, chi_templates[i].eos, error);
    chi_error(error, "no template is called '%.60s'", name);
    return NULL;
}

/* ---- tokenizer_config.json: enough of JSON to find a string ---- */

enum { CHI_MAX_FILE = 1 << 26 };

/* The whole file with a zero byte behind it, to be freed; NULL if it cannot be read. */
static char *chi_read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    char *data = NULL, *larger;
    size_t capacity = 1 << 14, got = 0;
    if (file == NULL) return NULL;
    while ((larger = (char *)realloc(data, capacity)) != NULL) {
        data = larger;
        got += fread(data + got, 1, capacity - 1 - got, file);
        if (got < capacity - 1 || capacity >= (size_t)CHI_MAX_FILE) break;
        capacity *= 2;
    }
    if (larger == NULL || ferror(file) || capacity >= (size_t)CHI_MAX_FILE) {
        free(data);
        data = NULL;
    }
    fclose(file);
    if (data == NULL) return NULL;
    data[got] = 0;
    *size = got;
    return data;
}

static const char *chi_js_space(const char *s) {
    while (*s == ' ' || *s == '\t' || *s == '\n' || *s == '\r') s++;
    return s;
}

/* Behind the string that begins at s, or where the text ends. */
static const char *chi_js_string_end(const char *s) {
    for (s++; *s && *s != '"'; s++)
        if (*s == '\\' && s[1]) s++;
    return *s ? s + 1 : s;
}

/* Behind the value that begins at s, or where the text ends. */
static const char *chi_js_skip(const char *s) {
    int depth = 0;
    do {
        s = chi_js_space(s);
        if (*s == '"') {
            s = chi_js_string_end(s);
        } else if (*s == '{' || *s == '[') {
            depth++, s++;
        } else if (*s == '}' || *s == ']') {
            depth--, s++;
        } else if (depth > 0 && (*s == ',' || *s == ':')) {
            s++;
        } else {
            const char *from = s;
            while (*s && strchr(" \t\n\r,:{}[]\"", *s) == NULL) s++;
            if (s == from) return s;
        }
    } while (depth > 0 && *s);
    return s;
}

/* Text of the string at s, to be freed; NULL if there is none or memory runs out. */
static char *chi_js_string(const char *s) {
    if (*s != '"') return NULL;
    const char *end = chi_js_string_end(s);
    char *out = (char *)malloc((size_t)(end - s) + 4), *at = out;
    if (out == NULL) return NULL;
    for (s++; s < end - 1;) {
        static const char names[] = "nrtbf", values[] = "\n\r\t\b\f";
        unsigned long c, low;
        if (*s != '\\') {
            *at++ = *s++;
            continue;
        }
        const char *name = strchr(names, s[1]);
        if (s[1] == 'u' && chi_hex(s + 2, end, 4, &c) == 0) {
            s += 6;
            if (c >= 0xD800 && c < 0xDC00 && s[0] == '\\' && s[1] == 'u' &&
                chi_hex(s + 2, end, 4, &low) == 0 && low >= 0xDC00 && low < 0xE000) {
                c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
                s += 6;
            }
            if (c >= 0xD800 && c < 0xE000) c = 0xFFFD;
            if (c != 0) at += chi_utf8(c, at);
        } else {
            *at++ = name && s[1] ? values[name - names] : s[1];
            s += 2;
        }
    }
    *at = 0;
    return out;
}

/* The value of a key of the object at s, or NULL. */
static const char *chi_js_find(const char *s, const char *key) {
    if (s == NULL || *s != '{') return NULL;
    for (s = chi_js_space(s + 1); *s == '"'; s = chi_js_space(s + 1)) {
        const char *name = s, *value;
        size_t n = strlen(key);
        s = chi_js_space(chi_js_string_end(s));
        if (*s != ':') return NULL;
        value = chi_js_space(s + 1);
        if (strncmp(name + 1, key, n) == 0 && name[1 + n] == '"') return value;
        s = chi_js_space(chi_js_skip(value));
        if (*s != ',') return NULL;
    }
    return NULL;
}

/* A token's text: a string, or an object with its content. */
static char *chi_js_token(const char *config, const char *key) {
    const char *value = chi_js_find(config, key);
    if (value && *value == '{') value = chi_js_find(value, "content");
    return value ? chi_js_string(value) : NULL;
}

/* chat_template is a text, or a list of objects with name and template, of which we take the
 * default.  To be freed. */
static char *chi_js_template(const char *config) {
    const char *s = chi_js_find(config, "chat_template"), *value;
    char *first = NULL;
    if (s == NULL || *s != '[') return s ? chi_js_string(s) : NULL;
    for (s = chi_js_space(s + 1); *s == '{'; s = chi_js_space(s + 1)) {
        value = chi_js_find(s, "template");
        const char *name = chi_js_find(s, "name");
        if (value && name && strncmp(name, "\"default\"", 9) == 0) {
            free(first);
            return chi_js_string(value);
        }
        s = chi_js_space(chi_js_skip(s));
        if (*s != ',') break;
    }
    return first;
}

/* text: of the template where it has a file of its own, else NULL; freed here. */
static chat_template *chi_from_config(const char *config, char *text, const char *path,
                                      chat_error *error) {
    chat_template *t = NULL;
    config = chi_js_space(config);
    char *bos = chi_js_token(config, "bos_token"), *eos = chi_js_token(config, "eos_token");
    if (text == NULL) text = chi_js_template(config);
    if (text == NULL) chi_error(error, "%.200s: no chat_template", path);
    else t = chi_with_tokens(chat_template_open(text, strlen(text), error), bos, eos, error);
    free(bos);
    free(eos);
    free(text);
    return t;
}

/* ---- GGUF: three keys of its metadata ---- */

typedef struct chi_gguf {
    FILE *file;
    uint64_t size, at;
    int failed;
} chi_gguf;

/* n bytes as a little-endian number. */
static uint64_t chi_gg_number(chi_gguf *g, int n) {
    unsigned char bytes[8];
    uint64_t value = 0;
    if (g->failed || fread(bytes, 1, (size_t)n, g->file) != (size_t)n) {
        g->failed = 1;
        return 0;
    }
    g->at += (uint64_t)n;
    for (int i = n - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

static void chi_gg_seek(chi_gguf *g, uint64_t at) {
    if (g->failed || at > g->size || at > LONG_MAX || fseek(g->file, (long)at, SEEK_SET) != 0)
        g->failed = 1;
    g->at = at;
}

/* The string at hand, to be freed; with `take` 0 it is passed over. */
static char *chi_gg_string(chi_gguf *g, int take) {
    uint64_t n = chi_gg_number(g, 8);
    if (g->failed || n > g->size - g->at) g->failed = 1;
    if (g->failed) return NULL;
    if (!take || n > CHI_MAX_FILE) {
        chi_gg_seek(g, g->at + n);
        return NULL;
    }
    char *text = (char *)malloc((size_t)n + 1);
    if (text == NULL || fread(text, 1, (size_t)n, g->file) != (size_t)n) {
        free(text);
        g->failed = 1;
        return NULL;
    }
    g->at += n;
    text[n] = 0;
    return text;
}

/* Sizes of the types of values, 0 for strings and arrays. */
static const unsigned char chi_gg_sizes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
enum { CHI_GG_STRING = 8, CHI_GG_ARRAY = 9 };

static void chi_gg_skip(chi_gguf *g, uint64_t type) {
    uint64_t n = 1, item = type;
    if (type == CHI_GG_ARRAY) {
        item = chi_gg_number(g, 4);
        n = chi_gg_number(g, 8);
    }
    if (item > 12 || item == CHI_GG_ARRAY) g->failed = 1;
    if (g->failed) return;
    if (item != CHI_GG_STRING) {
        if (n > g->size) g->failed = 1;
        else chi_gg_seek(g, g->at + n * chi_gg_sizes[item]);
    } else {
        for (; n > 0 && !g->failed; n--) chi_gg_string(g, 0);
    }
}

/* The text of a token, to be freed, or NULL; `tokens` is where the array of them is. */
static char *chi_gg_token(chi_gguf *g, uint64_t tokens, uint64_t id) {
    if (tokens == 0 || id == UINT64_MAX || g->failed) return NULL;
    chi_gg_seek(g, tokens);
    uint64_t item = chi_gg_number(g, 4), n = chi_gg_number(g, 8);
    if (item != CHI_GG_STRING || id >= n) return NULL;
    for (; id > 0 && !g->failed; id--) chi_gg_string(g, 0);
    return chi_gg_string(g, 1);
}

static chat_template *chi_from_gguf(chi_gguf *g, const char *path, chat_error *error) {
    uint64_t version = chi_gg_number(g, 4), bos = UINT64_MAX, eos = UINT64_MAX, tokens = 0;
    char *text = NULL;
    chat_template *t = NULL;
    if (!g->failed && version != 2 && version != 3) {
        chi_error(error, "%.160s: GGUF version %lu is not supported", path, (unsigned long)version);
        return NULL;
    }
    chi_gg_number(g, 8); /* tensors */
    for (uint64_t n = chi_gg_number(g, 8); n > 0 && !g->failed; n--) {
        char *key = chi_gg_string(g, 1);
        uint64_t type = chi_gg_number(g, 4), at = g->at;
        const char *name = key ? key : "";
        int is_bos = strcmp(name, "tokenizer.ggml.bos_token_id") == 0;
        if (type == CHI_GG_STRING && strcmp(name, "tokenizer.chat_template") == 0 && !text) {
            text = chi_gg_string(g, 1);
        } else if (type == 4 && (is_bos || strcmp(name, "tokenizer.ggml.eos_token_id") == 0)) {
            *(is_bos ? &bos : &eos) = chi_gg_number(g, 4);
        } else {
            if (strcmp(name, "tokenizer.ggml.tokens") == 0 && type == CHI_GG_ARRAY) tokens = at;
            chi_gg_skip(g, type);
        }
        free(key);
    }
    char *bos_text = chi_gg_token(g, tokens, bos), *eos_text = chi_gg_token(g, tokens, eos);
    if (g->failed)
        chi_error(error, "%.160s: damaged metadata near byte %lu", path, (unsigned long)g->at);
    else if (text == NULL) chi_error(error, "%.160s: no tokenizer.chat_template", path);
    else
        t = chi_with_tokens(chat_template_open(text, strlen(text), error), bos_text, eos_text,
                            error);
    free(text);
    free(bos_text);
    free(eos_text);
    return t;
}

/* The path of the first of the parts NAME-0000I-of-0000N.gguf, which has the metadata; of any other
 * file its own.  To be freed; NULL if memory runs out. */
static char *chi_gguf_path(const char *path) {
    size_t n = strlen(path);
    char *first = (char *)malloc(n + 1);
    if (first == NULL) return NULL;
    memcpy(first, path, n + 1);
    char *end = first + (n < 20 ? 0 : n - 20);
    if (n >= 20 && end[0] == '-' && strspn(end + 1, "0123456789") == 5 &&
        memcmp(end + 6, "-of-", 4) == 0 && strspn(end + 10, "0123456789") == 5 &&
        strcmp(end + 15, ".gguf") == 0)
        memcpy(end + 1, "00001", 5);
    return first;
}

/* Opens a GGUF file behind its first four bytes; 0 if it is none. */
static int chi_open_gguf(chi_gguf *g, const char *path) {
    char magic[4];
    long size = -1;
    memset(g, 0, sizeof *g);
    g->file = fopen(path, "rb");
    if (g->file && fread(magic, 1, 4, g->file) == 4 && memcmp(magic, "GGUF", 4) == 0 &&
        fseek(g->file, 0, SEEK_END) == 0 && (size = ftell(g->file)) >= 4) {
        g->size = (uint64_t)size;
        chi_gg_seek(g, 4);
        return 1;
    }
    if (g->file) fclose(g->file);
    return 0;
}

/* path/name; NULL if memory runs out. */
static char *chi_read_in(const char *path, const char *name, size_t *size) {
    char *full = (char *)malloc(strlen(path) + strlen(name) + 2), *data;
    if (full == NULL) return NULL;
    sprintf(full, "%s/%s", path, name);
    data = chi_read_file(full, size);
    free(full);
    return data;
}

chat_template *chat_template_load(const char *path, chat_error *error) {
    chi_gguf g;
    size_t size;
    chat_template *t = NULL;
    char *text = chi_read_in(path, "chat_template.jinja", &size);
    char *config = chi_read_in(path, "tokenizer_config.json", &size), *first = chi_gguf_path(path);
    if (text || config) {
        t = chi_from_config(config ? config : "", text, path, error);
    } else if (first == NULL) {
        chi_error(error, "out of memory");
    } else if (chi_open_gguf(&g, first)) {
        t = chi_from_gguf(&g, path, error);
        fclose(g.file);
    } else if ((config = chi_read_file(path, &size)) != NULL) {
        t = chi_from_config(config, NULL, path, error);
    } else {
        chi_error(error, "%.200s: no chat template (no tokenizer_config.json, no GGUF)", path);
    }
    free(first);
    free(config);
    return t;
}

#ifdef __cplusplus
}
#endif
#endif /* CHAT_IMPLEMENTED */
#endif /* CHAT_IMPLEMENTATION */

/* grammar.h - text that has to follow a grammar: which tokens may come next.  Licence: MIT.
 *
 *     #define GRAMMAR_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "grammar.h"
 *     ...
 *     size = grammar_size(text, strlen(text), &error);                    0 = it is wrong: error.text
 *     grammar *g = grammar_compile(text, strlen(text), memory, size, &error);
 *     grammar_state *s = grammar_start(g, memory2, grammar_state_size());
 *     grammar_vocabulary *v = grammar_vocabulary_new(tokens, n, memory3, grammar_vocabulary_size(n));
 *     for (each token) {
 *         grammar_mask(g, s, v, logits);      tokens that cannot come next become -infinity
 *         token = ...;
 *         grammar_accept_token(g, s, v, token);
 *     }
 *
 * C99 or C++11, libc only.  Nothing is allocated, printed or kept: memory is the caller's, aligned
 * as malloc's.  A grammar and a vocabulary are read-only, for any number of threads; a state is one
 * text's, without pointers: a copy of it is a fork.
 *
 * THE LANGUAGE is the part of GBNF (llama.cpp's) that says:
 *     root   ::= item (", " item){0,3}        the text is what root is
 *     item   ::= "a word" | [a-z0-9_]+ | [^\n"]* | . | number
 *     number ::= "-"? [0-9]+                  # a comment
 *   "..." characters; [...] one of them, ^ all others; . any; ( ) groups; | or; ? * + {3} {3,} {3,5}
 *   repeat what is before.  \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH are characters.  A rule
 *   ends with its line, unless a bracket is open or the next line begins with |.
 *   <[1000]> is the token with this number, <think> the one with this name (grammar_compile_tokens
 *   knows names), whatever its bytes; !<[1000]> and !<think> any other token that has bytes.  They
 *   are for whole tokens: none is begun or left in the midst of one.  A token that ends the text is
 *   never meant.
 *
 * HOW    Rules become a program of single bytes (characters are their UTF-8), choices, calls and
 *        returns (Thompson 1968, "Regular Expression Search Algorithm", with a stack of returns for
 *        each thread; equal stacks are one, so that what is ambiguous does not multiply).  The
 *        tokens are walked in the order of their bytes: what begins alike is tried once.
 * LIMITS Rules that begin with themselves are refused, and repeats that make a program of more than
 *        GRAMMAR_MAX_CODE steps.  A text nested deeper than GRAMMAR_MAX_NODES, or a grammar with
 *        more than GRAMMAR_MAX_THREADS ways to read it at a time, gives GRAMMAR_LIMIT.
 */
#ifndef GRAMMAR_H
#define GRAMMAR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    GRAMMAR_MAX_TEXT = 1 << 20,
    GRAMMAR_MAX_RULES = 1 << 11,
    GRAMMAR_MAX_CODE = 1 << 17,
    GRAMMAR_MAX_NODES = 1 << 13,
    GRAMMAR_MAX_THREADS = 1 << 10,
    GRAMMAR_MAX_DEPTH = 64,  /* of brackets in a rule */
    GRAMMAR_MAX_TOKEN = 1024 /* bytes; a longer one may never come */
};

typedef struct grammar grammar;
typedef struct grammar_state grammar_state;
typedef struct grammar_vocabulary grammar_vocabulary;

typedef enum grammar_status {
    GRAMMAR_OK = 0,
    GRAMMAR_ARGUMENT = 1, /* NULL, or memory that is too small */
    GRAMMAR_REFUSED = 2,  /* the text does not follow the grammar; the state is as it was */
    GRAMMAR_LIMIT = 3     /* too deep or too ambiguous, see LIMITS; likewise */
} grammar_status;

typedef struct grammar_error {
    char text[200]; /* one line: what is wrong, and in which */
} grammar_error;

typedef struct grammar_token {
    const char *bytes; /* that it adds to a text; they stay where they are */
    int size;          /* 0 = none: it may never come, but for an end */
    int is_end;        /* 1 = it ends the text: may come where the grammar may end */
} grammar_token;

/* Bytes that grammar_compile needs; 0 = it would fail, with the reason in *error (or NULL). */
size_t grammar_size(const char *text, size_t size, grammar_error *error);
grammar *grammar_compile(const char *text, size_t size, void *memory, size_t memory_size,
                         grammar_error *error);

/* The same for a grammar that names tokens: find gives the number of the token called name [size],
 * < and > included, or -1. */
typedef int (*grammar_find)(const void *context, const char *name, size_t size);
grammar *grammar_compile_tokens(const char *text, size_t size, grammar_find find,
                                const void *context, void *memory, size_t memory_size,
                                grammar_error *error);

/* The state of an empty text. */
size_t grammar_state_size(void);
grammar_state *grammar_start(const grammar *g, void *memory, size_t memory_size);

/* Adds bytes to the text.  They may end within a character. */
grammar_status grammar_accept(const grammar *g, grammar_state *s, const char *bytes, size_t size);

/* May these bytes come next?  The state stays as it is. */
grammar_status grammar_allows(const grammar *g, grammar_state *s, const char *bytes, size_t size);
int grammar_may_end(const grammar *g, const grammar_state *s);  /* 1 = the text may end here */
int grammar_must_end(const grammar *g, const grammar_state *s); /* 1 = and nothing may follow */

/* The tokens [n] in the order of their bytes; they are used where they are. */
size_t grammar_vocabulary_size(int n);
grammar_vocabulary *grammar_vocabulary_new(const grammar_token *tokens, int n, void *memory,
                                           size_t memory_size);

/* Adds token number `token` of the vocabulary to the text, by its bytes or as what it is. */
grammar_status grammar_accept_token(const grammar *g, grammar_state *s, const grammar_vocabulary *v,
                                    int token);

/* logits [n]: -infinity for every token that may not come next.  *allowed (or NULL): how many may. */
grammar_status grammar_mask(const grammar *g, grammar_state *s, const grammar_vocabulary *v,
                            float *logits, int *allowed);

#ifdef __cplusplus
}
#endif
#endif /* GRAMMAR_H */

#if defined(GRAMMAR_IMPLEMENTATION) && !defined(GRAMMAR_IMPLEMENTED)
#define GRAMMAR_IMPLEMENTED

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- programs ---- */

enum {            /* a step, which goes on with the next one unless it says otherwise */
       GRI_BYTE,  /* a byte in lo .. hi */
       GRI_GO,    /* to a */
       GRI_SPLIT, /* two threads: the next step, and a */
       GRI_CALL,  /* rule a; then the next step */
       GRI_TOKEN, /* token a */
       GRI_OTHER, /* any token but a */
       GRI_RETURN
};

typedef struct gri_step {
    uint8_t op, lo, hi, reached; /* reached: without a byte since the rule began */
    int32_t a;
} gri_step;

typedef struct gri_rule {
    uint32_t name, name_size; /* in the text, while compiling */
    int32_t start, end;       /* its steps */
    int32_t nullable, safe;   /* may be nothing; cannot begin with itself */
} gri_rule;

struct grammar {
    int32_t n_rules, n_code, root, unused;
    /* gri_rule [n_rules], gri_step [n_code] */
};

static gri_rule *gri_rules(const grammar *g) { return (gri_rule *)((uintptr_t)g + sizeof *g); }
static gri_step *gri_code(const grammar *g) { return (gri_step *)(gri_rules(g) + g->n_rules); }

static size_t gri_bytes(int n_rules, int n_code) {
    return sizeof(grammar) + (size_t)n_rules * sizeof(gri_rule) + (size_t)n_code * sizeof(gri_step);
}

/* ---- from text to steps ---- */

enum { GRI_MAX_WORK = 1 << 25 };

typedef struct gri_parser {
    const char *text, *p, *end;
    grammar *g; /* NULL = only count */
    int n_rules, n_code, depth;
    long work;         /* bytes read: repeats of nothing make no steps, but take time */
    grammar_find find; /* NULL = tokens have no names */
    const void *context;
    grammar_error *error;
    int failed;
} gri_parser;

static int gri_line(const gri_parser *r, const char *at) {
    int line = 1;
    const char *p;
    for (p = r->text; p < at; p++) line += *p == '\n';
    return line;
}

#if defined(__GNUC__) || defined(__clang__)
__attribute__((format(printf, 2, 3)))
#endif
static void
gri_fail(gri_parser *r, const char *format, ...) {
    char *p;
    int n;
    va_list args;
    if (r->failed) return;
    r->failed = 1;
    if (!r->error) return;
    n = snprintf(r->error->text, sizeof r->error->text, "line %d: ", gri_line(r, r->p));
    va_start(args, format);
    vsnprintf(r->error->text + n, sizeof r->error->text - (size_t)n, format, args);
    va_end(args);
    for (p = r->error->text; *p; p++)
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126) *p = '?';
}

/* Adds a step; its number, or that of some step after a failure. */
static int gri_emit(gri_parser *r, int op, int lo, int hi, int a) {
    gri_step *step;
    if (r->n_code == GRAMMAR_MAX_CODE) gri_fail(r, "the grammar is too large");
    if (r->failed) return 0;
    if (r->g) {
        step = &gri_code(r->g)[r->n_code];
        step->op = (uint8_t)op;
        step->lo = (uint8_t)lo;
        step->hi = (uint8_t)hi;
        step->a = a;
    }
    return r->n_code++;
}

/* Where step i goes; and the chain of steps whose goal is not yet known, linked through it. */
static void gri_aim(gri_parser *r, int i, int a) {
    if (r->g && !r->failed) gri_code(r->g)[i].a = a;
}

static void gri_aim_chain(gri_parser *r, int i, int a) {
    while (r->g && !r->failed && i >= 0) {
        int next = gri_code(r->g)[i].a;
        gri_code(r->g)[i].a = a;
        i = next;
    }
}

static int gri_is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* Blanks and comments; with `lines` the ends of lines too. */
static void gri_skip_blank(gri_parser *r, int lines) {
    for (; r->p < r->end; r->p++) {
        if (*r->p == '#')
            while (r->p + 1 < r->end && r->p[1] != '\n' && r->p[1] != '\r') r->p++;
        else if (*r->p != ' ' && *r->p != '\t' && !(lines && (*r->p == '\n' || *r->p == '\r')))
            break;
    }
}

/* At the end of a rule's line: does it go on with | on the next? */
static void gri_skip_to_bar(gri_parser *r) {
    const char *here = r->p;
    gri_skip_blank(r, 1);
    if (r->p == r->end || *r->p != '|') r->p = here;
}

static int gri_peek(const gri_parser *r) { return r->p < r->end ? (unsigned char)*r->p : -1; }

/* ---- characters ---- */

static uint32_t gri_hex(gri_parser *r, int digits) {
    uint32_t c = 0;
    for (; digits > 0; digits--, r->p++) {
        int d = gri_peek(r);
        int v = d >= '0' && d <= '9'   ? d - '0'
                : d >= 'a' && d <= 'f' ? d - 'a' + 10
                : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                       : -1;
        if (v < 0) {
            gri_fail(r, "hexadecimal digits are missing");
            return 0;
        }
        c = c << 4 | (uint32_t)v;
    }
    return c;
}

/* A character of a literal or a class; the text must be UTF-8. */
static uint32_t gri_character(gri_parser *r) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    static const char from[] = "nrt\\\"[]-^", to[] = "\n\r\t\\\"[]-^";
    const unsigned char *p = (const unsigned char *)r->p;
    int n, i;
    uint32_t c;
    if (*p == '\\') {
        int e = (r->p++, gri_peek(r));
        const char *known = e > 0 ? strchr(from, e) : NULL;
        r->p++;
        if (known) return (uint32_t)(unsigned char)to[known - from];
        c = e == 'x' ? gri_hex(r, 2) : e == 'u' ? gri_hex(r, 4) : e == 'U' ? gri_hex(r, 8) : 0;
        if (e != 'x' && e != 'u' && e != 'U') gri_fail(r, "an escape that is not known");
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) gri_fail(r, "not a character");
        return r->failed ? 0 : c;
    }
    n = *p < 0x80 ? 1 : *p < 0xc0 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf8 ? 4 : 0;
    c = n == 1 ? *p : *p & (0x7fu >> n);
    for (i = 1; i < n && r->end - r->p > i && p[i] >> 6 == 2; i++) c = c << 6 | (p[i] & 0x3fu);
    if (n == 0 || i < n || c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        gri_fail(r, "malformed UTF-8");
        return 0;
    }
    r->p += n;
    return c;
}

static int gri_utf8(uint32_t c, uint8_t *out) {
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

typedef struct gri_range {
    uint32_t lo, hi;
} gri_range;

/* Choices between what is emitted one after another: a SPLIT before each but for the last, which is
 * turned into a GO; a GO to the end behind each. */
typedef struct gri_choice {
    int split, ends; /* the latest SPLIT; the chain of GOs; -1 = none */
} gri_choice;

static void gri_choose(gri_parser *r, gri_choice *c) {
    int here;
    if (c->split >= 0) {
        c->ends = gri_emit(r, GRI_GO, 0, 0, c->ends);
        here = gri_emit(r, GRI_SPLIT, 0, 0, -1);
        gri_aim(r, c->split, here);
        c->split = here;
    } else {
        c->split = gri_emit(r, GRI_SPLIT, 0, 0, -1);
    }
}

static void gri_chosen(gri_parser *r, gri_choice *c) {
    if (r->g && !r->failed) {
        gri_code(r->g)[c->split].op = GRI_GO;
        gri_code(r->g)[c->split].a = c->split + 1;
    }
    gri_aim_chain(r, c->ends, r->n_code);
}

/* Characters lo .. hi, cut so that each piece is one range of bytes after another. */
static void gri_emit_range(gri_parser *r, gri_choice *choice, uint32_t lo, uint32_t hi) {
    static const uint32_t last[3] = {0x7f, 0x7ff, 0xffff};
    uint8_t from[4] = {0}, to[4] = {0};
    int i, n;
    while (lo <= hi && !r->failed) {
        uint32_t top = hi;
        for (i = 0; i < 3; i++)
            if (lo <= last[i] && top > last[i]) top = last[i]; /* of one length */
        for (i = 1; i < 4; i++) {
            uint32_t mask = ((uint32_t)1 << (6 * i)) - 1;
            if (lo < 0x80 || lo >> (6 * i) == top >> (6 * i)) break;
            if (lo & mask) top = lo | mask;
            else if ((top & mask) != mask) top = (top & ~mask) - 1;
        }
        n = gri_utf8(lo, from);
        gri_utf8(top, to);
        gri_choose(r, choice);
        for (i = 0; i < n; i++) gri_emit(r, GRI_BYTE, from[i], to[i], 0);
        lo = top + 1;
    }
}

/* Sorted and joined ranges, or all that is between them. */
static void gri_emit_class(gri_parser *r, gri_range *ranges, int n, int others) {
    gri_choice choice = {-1, -1};
    uint32_t next = 0; /* what is below is done */
    int i, k;
    for (i = 1; i < n; i++)
        for (k = i; k > 0 && ranges[k].lo < ranges[k - 1].lo; k--) {
            gri_range swap = ranges[k];
            ranges[k] = ranges[k - 1];
            ranges[k - 1] = swap;
        }
    ranges[n].lo = ranges[n].hi = 0x110000; /* the end */
    for (i = 0; i <= n; i++) {
        uint32_t lo = ranges[i].lo > next ? ranges[i].lo : next, hi = ranges[i].hi;
        if (others) lo = next, hi = ranges[i].lo ? ranges[i].lo - 1 : 0;
        if (others ? ranges[i].lo > next : i < n && lo <= hi) {
            gri_range cut[2]; /* surrogates are no characters */
            cut[0].lo = lo, cut[0].hi = hi < 0xd7ff ? hi : 0xd7ff;
            cut[1].lo = lo > 0xe000 ? lo : 0xe000, cut[1].hi = hi;
            for (k = 0; k < 2; k++)
                if (cut[k].lo <= cut[k].hi) gri_emit_range(r, &choice, cut[k].lo, cut[k].hi);
        }
        if (ranges[i].hi + 1 > next) next = ranges[i].hi + 1;
    }
    if (choice.split < 0) gri_fail(r, "a class that has no character");
    else gri_chosen(r, &choice);
}

static void gri_class(gri_parser *r) {
    gri_range ranges[257];
    int n = 0, others = r->p[1] == '^';
    r->p += 1 + others;
    while (!r->failed && gri_peek(r) != ']') {
        if (gri_peek(r) < 0 || gri_peek(r) == '\n') gri_fail(r, "']' is missing");
        else if (n == 256) gri_fail(r, "more than 256 parts in a class");
        if (r->failed) return;
        ranges[n].lo = ranges[n].hi = gri_character(r);
        if (r->end - r->p > 1 && r->p[0] == '-' && r->p[1] != ']') {
            r->p++;
            ranges[n].hi = gri_character(r);
            if (ranges[n].hi < ranges[n].lo) gri_fail(r, "a range that is upside down");
        }
        n++;
    }
    r->p++;
    if (!r->failed) gri_emit_class(r, ranges, n, others);
}

static void gri_literal(gri_parser *r) {
    for (r->p++; !r->failed && gri_peek(r) != '"';) {
        uint8_t bytes[4];
        int i, n;
        if (gri_peek(r) < 0 || gri_peek(r) == '\n') {
            gri_fail(r, "'\"' is missing");
            return;
        }
        n = gri_utf8(gri_character(r), bytes);
        for (i = 0; i < n; i++) gri_emit(r, GRI_BYTE, bytes[i], bytes[i], 0);
    }
    r->p++;
}

/* A whole number up to most, of what it counts. */
static long gri_number(gri_parser *r, long most, const char *what) {
    long n = 0;
    if (gri_peek(r) < '0' || gri_peek(r) > '9') gri_fail(r, "a number is expected");
    for (; gri_peek(r) >= '0' && gri_peek(r) <= '9'; r->p++) {
        int digit = *r->p - '0';
        if (n > (most - digit) / 10) {
            gri_fail(r, "%s is too large", what);
            return 0;
        }
        n = n * 10 + digit;
    }
    return n;
}

/* <[number]> or <name>, or ! and one of these. */
static void gri_token(gri_parser *r) {
    const char *name;
    int op = *r->p == '!' ? GRI_OTHER : GRI_TOKEN;
    long token = 0;
    size_t n;
    if (op == GRI_OTHER) r->p++;
    name = r->p++;
    if (gri_peek(r) == '[') {
        r->p++;
        token = gri_number(r, 0x7fffffff, "the number of a token");
        if (r->end - r->p < 2 || r->p[0] != ']' || r->p[1] != '>') gri_fail(r, "']>' is missing");
        else r->p += 2;
    } else {
        while (*r->p != '>') r->p++; /* gri_skip_item saw it */
        n = (size_t)(++r->p - name);
        if (r->g) token = r->find ? r->find(r->context, name, n) : -1;
        if (token < 0)
            gri_fail(r, r->find ? "there is no token '%.*s'" : "token '%.*s': only numbers here",
                     n > 60 ? 60 : (int)n, name);
    }
    gri_emit(r, op, 1, 0, (int)token); /* no byte is in 1 .. 0 */
}

/* ---- rules ---- */

static void gri_alternatives(gri_parser *r, int nested);

static int gri_find_rule(const gri_parser *r, int n_rules, const char *name, size_t n) {
    int i;
    for (i = 0; i < n_rules; i++)
        if (gri_rules(r->g)[i].name_size == n &&
            memcmp(r->text + gri_rules(r->g)[i].name, name, n) == 0)
            return i;
    return -1;
}

/* Its name is looked up when all rules are known: the step has where it is. */
static void gri_call(gri_parser *r) {
    gri_emit(r, GRI_CALL, 0, 0, (int)(r->p - r->text));
    while (r->p < r->end && gri_is_name(*r->p)) r->p++;
}

/* What a repeat repeats.  Brackets were matched by gri_skip_item. */
static void gri_item(gri_parser *r) {
    gri_range any[2] = {{0, 0x10ffff}, {0, 0}};
    int c = gri_peek(r);
    if (c == '"') {
        gri_literal(r);
    } else if (c == '[') {
        gri_class(r);
    } else if (c == '.') {
        r->p++;
        gri_emit_class(r, any, 1, 0);
    } else if (c == '<' || c == '!') {
        gri_token(r);
    } else if (c == '(') {
        r->p++;
        if (++r->depth > GRAMMAR_MAX_DEPTH) gri_fail(r, "brackets nested too deeply");
        else gri_alternatives(r, 1);
        r->depth--;
        r->p++;
    } else {
        gri_call(r);
    }
}

/* Moves over an item without reading it, so that what repeats it is known first. */
static void gri_skip_item(gri_parser *r) {
    int depth = 0;
    do {
        int c = gri_peek(r), close;
        if (c == '!' && r->end - r->p > 1 && r->p[1] == '<') c = (r->p++, '<');
        close = c == '"' ? '"' : c == '[' ? ']' : c == '<' ? '>' : 0;
        if (close) {
            for (r->p++; gri_peek(r) >= 0 && gri_peek(r) != close && gri_peek(r) != '\n'; r->p++)
                if (*r->p == '\\' && close != '>' && r->end - r->p > 1) r->p++;
            if (gri_peek(r) != close) gri_fail(r, "'%c' is missing", close);
            r->p++;
        } else if (c == '(' || c == ')') {
            depth += c == '(' ? 1 : -1;
            r->p++;
        } else if (c == '#' && depth) {
            gri_skip_blank(r, 1);
        } else if (depth == 0 && c >= 0 && gri_is_name((char)c)) {
            while (r->p < r->end && gri_is_name(*r->p)) r->p++;
        } else if (c < 0) {
            gri_fail(r, "')' is missing");
        } else if (depth == 0 && c != '.') {
            gri_fail(r, "'%c' is not expected", c);
        } else {
            r->p++;
        }
    } while (depth > 0 && !r->failed);
}

/* ? * + {m} {m,} {m,n}; most -1 = any number. */
static void gri_suffix(gri_parser *r, long *least, long *most) {
    int c = gri_peek(r);
    *least = c == '?' || c == '*' ? 0 : 1;
    *most = c == '*' || c == '+' ? -1 : 1;
    if (c == '?' || c == '*' || c == '+') r->p++;
    if (c != '{') return;
    r->p++;
    gri_skip_blank(r, 0);
    *least = *most = gri_number(r, GRAMMAR_MAX_CODE, "a repeat");
    gri_skip_blank(r, 0);
    if (gri_peek(r) == ',') {
        r->p++;
        gri_skip_blank(r, 0);
        *most = gri_peek(r) == '}' ? -1 : gri_number(r, GRAMMAR_MAX_CODE, "a repeat");
        gri_skip_blank(r, 0);
    }
    if (gri_peek(r) != '}') gri_fail(r, "'}' is missing");
    else if (*most >= 0 && *most < *least) gri_fail(r, "a repeat that is upside down");
    r->p++;
}

/* Reads the item once more, to emit it once more. */
static void gri_copy(gri_parser *r, const char *item, const char *item_end) {
    r->work += item_end - item + 1;
    if (r->work > GRI_MAX_WORK) gri_fail(r, "the grammar is too large");
    r->p = item;
    if (!r->failed) gri_item(r);
}

static void gri_repeat(gri_parser *r) {
    const char *item = r->p, *item_end, *after;
    long least = 1, most = 1, i;
    int ends = -1, loop;
    gri_skip_item(r);
    item_end = r->p;
    gri_skip_blank(r, r->depth > 0);
    if (gri_peek(r) < 0 || !strchr("?*+{", gri_peek(r))) r->p = item_end;
    if (!r->failed) gri_suffix(r, &least, &most);
    after = r->p;
    for (i = 0; i < least && !r->failed; i++) gri_copy(r, item, item_end);
    for (; i < most && !r->failed; i++) {
        ends = gri_emit(r, GRI_SPLIT, 0, 0, ends);
        gri_copy(r, item, item_end);
    }
    gri_aim_chain(r, ends, r->n_code);
    if (most < 0) {
        loop = gri_emit(r, GRI_SPLIT, 0, 0, 0);
        gri_copy(r, item, item_end);
        gri_emit(r, GRI_GO, 0, 0, loop);
        gri_aim(r, loop, r->n_code);
    }
    if (!r->failed) r->p = after;
}

/* Up to the end of the rule, or (nested) the bracket that closes. */
static void gri_alternatives(gri_parser *r, int nested) {
    gri_choice choice = {-1, -1};
    gri_choose(r, &choice);
    while (!r->failed) {
        int c;
        gri_skip_blank(r, nested);
        if (!nested && (gri_peek(r) == '\n' || gri_peek(r) == '\r')) gri_skip_to_bar(r);
        c = gri_peek(r);
        if (c == '|') {
            r->p++;
            gri_skip_blank(r, 1);
            gri_choose(r, &choice);
        } else if (c < 0 || c == ')' || c == '\n' || c == '\r') {
            if (c == ')' ? !nested : nested)
                gri_fail(r, c < 0 ? "')' is missing" : "')' is not expected");
            break;
        } else {
            gri_repeat(r);
        }
    }
    gri_chosen(r, &choice);
}

/* A name and ::=, behind which it stops.  The rule's name; its size in *n, 0 = the text is over. */
static const char *gri_head(gri_parser *r, size_t *n) {
    const char *name;
    gri_skip_blank(r, 1);
    name = r->p;
    while (r->p < r->end && gri_is_name(*r->p)) r->p++;
    *n = (size_t)(r->p - name);
    if (r->p == name && r->p == r->end) return name;
    if (r->p == name) gri_fail(r, "the name of a rule is expected");
    gri_skip_blank(r, 0);
    if (r->end - r->p < 3 || memcmp(r->p, "::=", 3) != 0) gri_fail(r, "'::=' is expected");
    else r->p += 3;
    gri_skip_blank(r, 1);
    return name;
}

/* All rules: without a grammar to write to, they are counted. */
static void gri_all_rules(gri_parser *r) {
    while (!r->failed) {
        size_t n = 0;
        const char *name = gri_head(r, &n);
        int start = r->n_code;
        if (r->failed || n == 0) break;
        if (r->n_rules == GRAMMAR_MAX_RULES) gri_fail(r, "more than %d rules", GRAMMAR_MAX_RULES);
        else if (r->g && gri_find_rule(r, r->n_rules, name, n) >= 0)
            gri_fail(r, "rule '%.*s' is there twice", n > 60 ? 60 : (int)n, name);
        gri_alternatives(r, 0);
        gri_emit(r, GRI_RETURN, 0, 0, 0);
        if (r->failed) return;
        if (r->g) {
            gri_rule *rule = &gri_rules(r->g)[r->n_rules];
            memset(rule, 0, sizeof *rule);
            rule->name = (uint32_t)(name - r->text);
            rule->name_size = (uint32_t)n;
            rule->start = start;
            rule->end = r->n_code;
        }
        r->n_rules++;
    }
}

/* Names to rules. */
static void gri_resolve(gri_parser *r) {
    gri_step *code = gri_code(r->g);
    int i;
    for (i = 0; i < r->n_code && !r->failed; i++) {
        const char *name = r->text + code[i].a;
        size_t n = 0;
        if (code[i].op != GRI_CALL) continue;
        while (name + n < r->end && gri_is_name(name[n])) n++;
        code[i].a = gri_find_rule(r, r->n_rules, name, n);
        if (code[i].a >= 0) continue;
        r->p = name;
        gri_fail(r, "there is no rule '%.*s'", n > 60 ? 60 : (int)n, name);
    }
    r->g->root = gri_find_rule(r, r->n_rules, "root", 4);
    if (r->g->root < 0) gri_fail(r, "there is no rule 'root'");
}

/* ---- rules that begin with themselves ---- */

/* Which steps of a rule are reached before a byte is taken; returns whether its end is.  One pass
 * will do: steps go backwards only to the SPLIT of a loop, which was reached before. */
static int gri_reach(const grammar *g, const gri_rule *rule) {
    gri_step *code = gri_code(g);
    int i;
    for (i = rule->start; i < rule->end; i++) code[i].reached = i == rule->start;
    for (i = rule->start; i < rule->end; i++) {
        int goes = code[i].op == GRI_GO || code[i].op == GRI_SPLIT;
        if (!code[i].reached) continue;
        if (goes) code[code[i].a].reached = 1;
        if (code[i].op == GRI_SPLIT || (code[i].op == GRI_CALL && gri_rules(g)[code[i].a].nullable))
            code[i + 1].reached = 1;
    }
    return code[rule->end - 1].reached;
}

/* A rule that this one may begin with and that is not known to be safe, or -1. */
static int gri_unsafe(const grammar *g, const gri_rule *rule) {
    int i;
    for (i = rule->start; i < rule->end; i++)
        if (gri_code(g)[i].op == GRI_CALL && gri_code(g)[i].reached &&
            !gri_rules(g)[gri_code(g)[i].a].safe)
            return gri_code(g)[i].a;
    return -1;
}

static void gri_refuse_left_recursion(gri_parser *r) {
    gri_rule *rules = gri_rules(r->g);
    int changed = 1, i, k;
    while (changed)
        for (changed = 0, i = 0; i < r->n_rules; i++) {
            int nullable = gri_reach(r->g, &rules[i]);
            changed |= nullable != rules[i].nullable;
            rules[i].nullable = nullable;
        }
    for (changed = 1; changed;)
        for (changed = 0, i = 0; i < r->n_rules; i++)
            if (!rules[i].safe && gri_unsafe(r->g, &rules[i]) < 0) changed = rules[i].safe = 1;
    for (i = 0; i < r->n_rules && rules[i].safe; i++) {
    }
    if (i == r->n_rules) return;
    for (k = 0; k < r->n_rules; k++) i = gri_unsafe(r->g, &rules[i]); /* into the circle */
    r->p = r->text + rules[i].name;
    gri_fail(r, "rule '%.*s' begins with itself",
             rules[i].name_size > 60 ? 60 : (int)rules[i].name_size, r->p);
}

/* Calls go to steps; a call that is the last of its rule needs no return: so lists do not nest. */
static void gri_link(const grammar *g) {
    gri_step *code = gri_code(g);
    int i, next;
    for (i = 0; i < g->n_code; i++) {
        if (code[i].op != GRI_CALL) continue;
        code[i].a = gri_rules(g)[code[i].a].start;
        for (next = i + 1; code[next].op == GRI_GO; next = code[next].a) {
        }
        if (code[next].op == GRI_RETURN) code[i].op = GRI_GO;
    }
}

static int gri_parse(gri_parser *r, const char *text, size_t size, grammar *g,
                     grammar_error *error) {
    r->text = r->p = text;
    r->end = text + size;
    r->g = g;
    r->error = error;
    r->n_rules = r->n_code = r->depth = r->failed = 0;
    r->work = 0;
    if (error) error->text[0] = 0;
    gri_all_rules(r);
    return !r->failed;
}

size_t grammar_size(const char *text, size_t size, grammar_error *error) {
    gri_parser r;
    memset(&r, 0, sizeof r);
    r.text = r.p = text;
    r.error = error;
    if (!text) gri_fail(&r, "text is NULL");
    else if (size > GRAMMAR_MAX_TEXT) gri_fail(&r, "larger than %d bytes", GRAMMAR_MAX_TEXT);
    if (r.failed || !gri_parse(&r, text, size, NULL, error)) return 0;
    return gri_bytes(r.n_rules, r.n_code);
}

grammar *grammar_compile_tokens(const char *text, size_t size, grammar_find find,
                                const void *context, void *memory, size_t memory_size,
                                grammar_error *error) {
    gri_parser r;
    grammar *g = (grammar *)memory;
    size_t needed = grammar_size(text, size, error);
    if (needed == 0) return NULL;
    memset(&r, 0, sizeof r);
    r.find = find;
    r.context = context;
    gri_parse(&r, text, size, NULL, error);
    if (!memory || memory_size < needed) {
        gri_fail(&r, "it takes %lu bytes of memory", (unsigned long)needed);
        return NULL;
    }
    g->n_rules = r.n_rules;
    g->n_code = r.n_code;
    if (gri_parse(&r, text, size, g, error)) gri_resolve(&r);
    if (!r.failed) gri_refuse_left_recursion(&r);
    if (r.failed) return NULL;
    gri_link(g);
    return g;
}

grammar *grammar_compile(const char *text, size_t size, void *memory, size_t memory_size,
                         grammar_error *error) {
    return grammar_compile_tokens(text, size, NULL, NULL, memory, memory_size, error);
}

/* ---- states ---- */

typedef struct gri_node { /* of a stack of returns: where to, and what is below; 0 = the bottom */
    int32_t step, below;
} gri_node;

typedef struct gri_thread { /* waits for a byte or token at step, or (-1) is at the grammar's end */
    int32_t step, node;
} gri_thread;

enum {
    GRI_SLOTS = 2 * GRAMMAR_MAX_NODES,
    GRI_SEEN = 8 * GRAMMAR_MAX_THREADS,
    GRI_POOL = 64 * GRAMMAR_MAX_THREADS,
    GRI_SETS = GRAMMAR_MAX_TOKEN + 2
};

typedef struct gri_set { /* threads after some bytes: part of the pool */
    int32_t from, to;
    uint32_t hash;
} gri_set;

struct grammar_state {
    int32_t n_nodes, n_threads; /* threads of the text so far: the first in the pool */
    uint32_t stamp;
    int32_t n_seen, limit; /* limit: something was too much */
    gri_node nodes[GRAMMAR_MAX_NODES];
    int32_t slots[GRI_SLOTS]; /* hash table of nodes; 0 = empty */
    gri_thread seen[GRI_SEEN];
    uint32_t stamps[GRI_SEEN]; /* of what is in seen */
    gri_thread work[GRI_SEEN / 2];
    gri_thread pool[GRI_POOL];
    /* of grammar_mask: */
    int32_t n_sets;
    gri_set sets[GRI_SETS];
    int16_t next[GRI_SETS][256];         /* by byte: 0 = not yet known, 1 = none, else set + 2 */
    int16_t set_slots[4 * GRI_SETS];     /* hash table of sets; 0 = empty, else set + 1 */
    int16_t path[GRAMMAR_MAX_TOKEN + 1]; /* the set after so many bytes of a token */
};

static uint32_t gri_hash(int32_t a, int32_t b) {
    uint32_t h = (uint32_t)a * 0x9e3779b1u ^ (uint32_t)b * 0x85ebca6bu;
    return h ^ h >> 15;
}

/* The stack with one more return: equal stacks are the same node. */
static int gri_push(grammar_state *s, int32_t step, int32_t below) {
    uint32_t i = gri_hash(step, below) % GRI_SLOTS;
    for (; s->slots[i]; i = (i + 1) % GRI_SLOTS)
        if (s->nodes[s->slots[i]].step == step && s->nodes[s->slots[i]].below == below)
            return s->slots[i];
    if (s->n_nodes == GRAMMAR_MAX_NODES) return s->limit = 1, 0;
    s->nodes[s->n_nodes].step = step;
    s->nodes[s->n_nodes].below = below;
    return s->slots[i] = s->n_nodes++;
}

/* Takes nodes away that were added last. */
static void gri_drop_nodes(grammar_state *s, int keep) {
    while (s->n_nodes > keep) {
        int32_t node = --s->n_nodes;
        uint32_t i = gri_hash(s->nodes[node].step, s->nodes[node].below) % GRI_SLOTS;
        while (s->slots[i] != node) i = (i + 1) % GRI_SLOTS;
        s->slots[i] = 0;
    }
}

/* Puts a thread on the list of work unless it was there since the stamp changed. */
static int gri_visit(grammar_state *s, int n_work, int32_t step, int32_t node) {
    uint32_t i = gri_hash(step, node) % GRI_SEEN;
    for (; s->stamps[i] == s->stamp; i = (i + 1) % GRI_SEEN)
        if (s->seen[i].step == step && s->seen[i].node == node) return n_work;
    if (s->n_seen == GRI_SEEN / 2) return s->limit = 1, n_work;
    s->n_seen++;
    s->stamps[i] = s->stamp;
    s->seen[i].step = step;
    s->seen[i].node = node;
    s->work[n_work] = s->seen[i];
    return n_work + 1;
}

/* Adds to the pool, from *end on, the threads that wait for a byte or a token or have ended. */
static void gri_close(const grammar *g, grammar_state *s, int32_t step, int32_t node, int *end) {
    const gri_step *code = gri_code(g);
    int n = gri_visit(s, 0, step, node);
    while (n > 0 && !s->limit) {
        gri_thread t = s->work[--n];
        const gri_step *at = &code[t.step];
        int ended = at->op == GRI_RETURN && t.node == 0;
        int waits = ended || at->op == GRI_BYTE || at->op == GRI_TOKEN || at->op == GRI_OTHER;
        if (waits && *end == GRI_POOL) s->limit = 1;
        else if (waits) {
            s->pool[*end].step = ended ? -1 : t.step;
            s->pool[(*end)++].node = t.node;
        } else if (at->op == GRI_RETURN) {
            n = gri_visit(s, n, s->nodes[t.node].step, s->nodes[t.node].below);
        } else if (at->op == GRI_CALL) {
            n = gri_visit(s, n, at->a, gri_push(s, t.step + 1, t.node));
        } else {
            if (at->op == GRI_SPLIT) n = gri_visit(s, n, t.step + 1, t.node);
            n = gri_visit(s, n, at->a, t.node);
        }
    }
}

static void gri_next_stamp(grammar_state *s) {
    s->n_seen = 0;
    if (++s->stamp != 0) return;
    memset(s->stamps, 0, sizeof s->stamps);
    s->stamp = 1;
}

/* The threads from .. to - 1 with a byte more, written from `at` on; returns their end. */
static int gri_advance(const grammar *g, grammar_state *s, int from, int to, int at, int byte) {
    const gri_step *code = gri_code(g);
    int i, end = at;
    gri_next_stamp(s);
    for (i = from; i < to && !s->limit; i++) {
        int32_t step = s->pool[i].step;
        if (step >= 0 && byte >= code[step].lo && byte <= code[step].hi)
            gri_close(g, s, step + 1, s->pool[i].node, &end);
    }
    if (end - at > GRAMMAR_MAX_THREADS) s->limit = 1;
    return end;
}

size_t grammar_state_size(void) { return sizeof(grammar_state); }

grammar_state *grammar_start(const grammar *g, void *memory, size_t memory_size) {
    grammar_state *s = (grammar_state *)memory;
    int end = 0;
    if (!g || !s || memory_size < sizeof *s) return NULL;
    memset(s->slots, 0, sizeof s->slots);
    memset(s->stamps, 0, sizeof s->stamps);
    s->stamp = 0;
    s->limit = 0;
    s->n_nodes = 1; /* the bottom */
    gri_next_stamp(s);
    gri_close(g, s, gri_rules(g)[g->root].start, 0, &end);
    s->n_threads = end;
    return s->limit || end > GRAMMAR_MAX_THREADS ? NULL : s;
}

/* Forgets nodes that no thread has; the others keep their order, in which what is below comes first. */
static void gri_tidy(grammar_state *s) {
    int32_t *to = s->slots; /* new numbers, while there is no table */
    int i, n = 1;
    memset(s->slots, 0, sizeof s->slots);
    for (i = 0; i < s->n_threads; i++) to[s->pool[i].node] = 1;
    for (i = s->n_nodes - 1; i > 0; i--)
        if (to[i]) to[s->nodes[i].below] = 1;
    to[0] = 0;
    for (i = 1; i < s->n_nodes; i++) {
        if (!to[i]) continue;
        to[i] = n;
        s->nodes[n].step = s->nodes[i].step;
        s->nodes[n++].below = to[s->nodes[i].below];
    }
    for (i = 0; i < s->n_threads; i++) s->pool[i].node = to[s->pool[i].node];
    memset(s->slots, 0, sizeof s->slots);
    s->n_nodes = 1;
    for (i = 1; i < n; i++) gri_push(s, s->nodes[i].step, s->nodes[i].below);
}

/* The threads after some bytes: in the pool from *from to *to, none if the bytes do not follow. */
static void gri_read(const grammar *g, grammar_state *s, const char *bytes, size_t size, int *from,
                     int *to) {
    int first = s->n_threads, end;
    size_t i;
    *from = 0;
    *to = first;
    for (i = 0; i<size && * to> * from && !s->limit; i++) {
        end = gri_advance(g, s, *from, *to, *to, (unsigned char)bytes[i]);
        if (*from > 0) /* the latest are moved to behind the text's own */
            memmove(&s->pool[first], &s->pool[*to], (size_t)(end - *to) * sizeof *s->pool);
        *to = end - (*from > 0 ? *to - first : 0);
        *from = first;
    }
}

/* Keeps the threads from .. to as the text's own, or forgets them and what came after n_nodes. */
static grammar_status gri_settle(grammar_state *s, int from, int to, int n_nodes, int keep) {
    if (keep && to > from && !s->limit) {
        memmove(s->pool, &s->pool[from], (size_t)(to - from) * sizeof *s->pool);
        s->n_threads = to - from;
        gri_tidy(s);
        return GRAMMAR_OK;
    }
    gri_drop_nodes(s, n_nodes);
    return s->limit ? GRAMMAR_LIMIT : to > from ? GRAMMAR_OK : GRAMMAR_REFUSED;
}

static grammar_status gri_add(const grammar *g, grammar_state *s, const char *bytes, size_t size,
                              int keep) {
    int from, to, n_nodes;
    if (!g || !s || (!bytes && size)) return GRAMMAR_ARGUMENT;
    s->limit = 0;
    n_nodes = s->n_nodes;
    gri_read(g, s, bytes, size, &from, &to);
    return gri_settle(s, from, to, n_nodes, keep);
}

grammar_status grammar_accept(const grammar *g, grammar_state *s, const char *bytes, size_t size) {
    return gri_add(g, s, bytes, size, 1);
}

grammar_status grammar_allows(const grammar *g, grammar_state *s, const char *bytes, size_t size) {
    return gri_add(g, s, bytes, size, 0);
}

/* How many threads are at the end. */
static int gri_ended(const grammar_state *s) {
    int i, n = 0;
    for (i = 0; i < s->n_threads; i++) n += s->pool[i].step < 0;
    return n;
}

int grammar_may_end(const grammar *g, const grammar_state *s) { return g && s && gri_ended(s) > 0; }

int grammar_must_end(const grammar *g, const grammar_state *s) {
    return g && s && gri_ended(s) == s->n_threads;
}

/* ---- tokens ---- */

struct grammar_vocabulary {
    const grammar_token *tokens;
    int32_t n, unused;
    /* int32_t order [n], same [n]: bytes that a token has in common with the one before */
};

static int32_t *gri_order(const grammar_vocabulary *v) {
    return (int32_t *)((uintptr_t)v + sizeof *v);
}

static int gri_before(const grammar_token *a, const grammar_token *b) {
    int n = a->size < b->size ? a->size : b->size,
        c = n > 0 ? memcmp(a->bytes, b->bytes, (size_t)n) : 0;
    return c ? c < 0 : a->size < b->size;
}

/* Heapsort (Williams 1964): qsort cannot be told which tokens are meant. */
static void gri_sift(const grammar_token *tokens, int32_t *order, int at, int n) {
    int32_t moved = order[at];
    int child;
    for (; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && gri_before(&tokens[order[child]], &tokens[order[child + 1]])) child++;
        if (!gri_before(&tokens[moved], &tokens[order[child]])) break;
        order[at] = order[child];
    }
    order[at] = moved;
}

size_t grammar_vocabulary_size(int n) {
    return n < 0 ? 0 : sizeof(grammar_vocabulary) + 2 * (size_t)n * sizeof(int32_t);
}

grammar_vocabulary *grammar_vocabulary_new(const grammar_token *tokens, int n, void *memory,
                                           size_t memory_size) {
    grammar_vocabulary *v = (grammar_vocabulary *)memory;
    int32_t *order, *same, last;
    int i;
    if (!tokens || n < 0 || !v || memory_size < grammar_vocabulary_size(n)) return NULL;
    v->tokens = tokens;
    v->n = n;
    order = gri_order(v);
    same = order + n;
    for (i = 0; i < n; i++) order[i] = i;
    for (i = n / 2 - 1; i >= 0; i--) gri_sift(tokens, order, i, n);
    for (i = n - 1; i > 0; i--) {
        last = order[i];
        order[i] = order[0];
        order[0] = last;
        gri_sift(tokens, order, 0, i);
    }
    for (i = 0; i < n; i++) {
        const grammar_token *t = &tokens[order[i]], *before = i ? &tokens[order[i - 1]] : t;
        for (same[i] = 0; i > 0 && same[i] < t->size && same[i] < before->size; same[i]++)
            if (t->bytes[same[i]] != before->bytes[same[i]]) break;
    }
    return v;
}

/* Does thread t wait for this token as a whole? */
static int gri_means(const grammar *g, gri_thread t, const grammar_token *token, int32_t number) {
    const gri_step *at = t.step < 0 ? NULL : &gri_code(g)[t.step];
    if (!at || token->is_end) return 0;
    return at->op == GRI_TOKEN ? at->a == number
                               : at->op == GRI_OTHER && at->a != number && token->size > 0;
}

/* Does any of the text's threads? */
static int gri_is_meant(const grammar *g, const grammar_state *s, const grammar_token *token,
                        int32_t number) {
    int i;
    for (i = 0; i < s->n_threads; i++)
        if (gri_means(g, s->pool[i], token, number)) return 1;
    return 0;
}

grammar_status grammar_accept_token(const grammar *g, grammar_state *s, const grammar_vocabulary *v,
                                    int token) {
    const grammar_token *t;
    int from, to, i, n_nodes;
    if (!g || !s || !v || token < 0 || token >= v->n) return GRAMMAR_ARGUMENT;
    t = &v->tokens[token];
    n_nodes = s->n_nodes;
    s->limit = 0;
    from = to = s->n_threads;
    if (t->size > 0 && !t->is_end) gri_read(g, s, t->bytes, (size_t)t->size, &from, &to);
    gri_next_stamp(s); /* a thread that is there twice now is once after the next byte */
    for (i = 0; i < s->n_threads && !s->limit; i++)
        if (gri_means(g, s->pool[i], t, token))
            gri_close(g, s, s->pool[i].step + 1, s->pool[i].node, &to);
    if (to - from > GRAMMAR_MAX_THREADS) s->limit = 1;
    return gri_settle(s, from, to, n_nodes, 1);
}

/* Sets of threads, each with what every byte leads to: an automaton that is made as it is needed
 * (Thompson 1968) and forgotten when it is full. */
static void gri_begin_sets(grammar_state *s, int n_nodes) {
    gri_drop_nodes(s, n_nodes);
    memset(s->set_slots, 0, sizeof s->set_slots);
    memset(s->next[0], 0, sizeof s->next[0]);
    s->sets[0].from = 0;
    s->sets[0].to = s->n_threads;
    s->sets[0].hash = 0;
    s->n_sets = 1;
    s->path[0] = 0;
    s->limit = 0;
}

/* The number of the set that is written behind the others, up to `to`: an equal one's, or a new. */
static int gri_same_set(grammar_state *s, int to) {
    int32_t from = s->sets[s->n_sets - 1].to, i;
    size_t bytes = (size_t)(to - from) * sizeof *s->pool;
    uint32_t hash = 1, slot;
    for (i = from; i < to; i++) hash = hash * 31 + gri_hash(s->pool[i].step, s->pool[i].node);
    for (slot = hash % (4 * GRI_SETS); s->set_slots[slot]; slot = (slot + 1) % (4 * GRI_SETS)) {
        const gri_set *other = &s->sets[s->set_slots[slot] - 1];
        if (other->hash == hash && other->to - other->from == to - from &&
            memcmp(&s->pool[other->from], &s->pool[from], bytes) == 0)
            return s->set_slots[slot] - 1;
    }
    if (s->n_sets == GRI_SETS) return s->limit = 1, 0;
    s->sets[s->n_sets].from = from;
    s->sets[s->n_sets].to = to;
    s->sets[s->n_sets].hash = hash;
    memset(s->next[s->n_sets], 0, sizeof s->next[0]);
    s->set_slots[slot] = (int16_t)(s->n_sets + 1);
    return s->n_sets++;
}

/* The set after one more byte, -1 = none. */
static int gri_next_set(const grammar *g, grammar_state *s, int set, unsigned char byte) {
    int at = s->sets[s->n_sets - 1].to, end, next = -1;
    if (s->next[set][byte]) return s->next[set][byte] - 2;
    end = gri_advance(g, s, s->sets[set].from, s->sets[set].to, at, byte);
    if (end > at && !s->limit) next = gri_same_set(s, end);
    if (!s->limit) s->next[set][byte] = (int16_t)(next + 2);
    return next;
}

/* Follows a token from its byte `depth` on; returns how many of its bytes could be taken. */
static int gri_descend(const grammar *g, grammar_state *s, const grammar_token *t, int depth) {
    for (; depth < t->size; depth++) {
        int next = gri_next_set(g, s, s->path[depth], (unsigned char)t->bytes[depth]);
        if (next < 0 || s->limit) break;
        s->path[depth + 1] = (int16_t)next;
    }
    return depth;
}

grammar_status grammar_mask(const grammar *g, grammar_state *s, const grammar_vocabulary *v,
                            float *logits, int *allowed) {
    int i, depth = 0, stuck = 0, count = 0, may_end = grammar_may_end(g, s), n_nodes;
    int whole = 0; /* some thread waits for a token as a whole */
    if (!g || !s || !v || !logits) return GRAMMAR_ARGUMENT;
    n_nodes = s->n_nodes;
    for (i = 0; i < s->n_threads; i++)
        whole |= s->pool[i].step >= 0 && gri_code(g)[s->pool[i].step].op != GRI_BYTE;
    gri_begin_sets(s, n_nodes);
    for (i = 0; i < v->n && !s->limit; i++) {
        const grammar_token *t = &v->tokens[gri_order(v)[i]];
        int same = gri_order(v)[v->n + i], ok = t->is_end && may_end;
        if (same < depth) depth = same;
        if (same < stuck) stuck = 0; /* 1 + how many bytes could be taken: the next could not */
        if (!stuck && t->size > 0 && t->size <= GRAMMAR_MAX_TOKEN && !t->is_end) {
            depth = gri_descend(g, s, t, depth);
            if (s->limit) { /* once more with nothing remembered */
                gri_begin_sets(s, n_nodes);
                depth = gri_descend(g, s, t, 0);
            }
            ok = depth == t->size;
            stuck = ok ? 0 : depth + 1;
        }
        if (!ok && whole) ok = gri_is_meant(g, s, t, gri_order(v)[i]);
        count += ok;
        if (!ok) logits[gri_order(v)[i]] = -(float)HUGE_VAL;
    }
    gri_drop_nodes(s, n_nodes);
    if (allowed) *allowed = count;
    return s->limit ? GRAMMAR_LIMIT : GRAMMAR_OK;
}

#ifdef __cplusplus
}
#endif
#endif /* GRAMMAR_IMPLEMENTATION */

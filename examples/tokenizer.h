/* tokenizer.h - text to token ids and back, with the tokenizer that a model comes with.
 * Licence: MIT.  Needs unicode_data.h beside it.
 *
 *     #define TOKENIZER_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "tokenizer.h"
 *     ...
 *     tokenizer *t = tokenizer_open("model.gguf", 0, &error);
 *     size_t capacity = tokenizer_encode_bound(t, strlen(text));
 *     n = tokenizer_encode(t, text, strlen(text), TOKENIZER_AUTO, tokens, capacity, &error);
 *     tokenizer_stream stream = {0};
 *     size = tokenizer_decode(t, &stream, token, out);      (any number of times)
 *     tokenizer_close(t);
 *
 * C99 or C++11, libc only.  Nothing here prints or exits.  An open tokenizer is read-only: any
 * number of threads may use it at once, each with its own stream.  Files and text may be hostile.
 * Memory comes from TOKENIZER_MALLOC, _REALLOC and _FREE (define all three, or none).
 *
 * FILES  one that is named, or the first of these in a directory that is named:
 *   tokenizer.json   of Hugging Face
 *   tokenizer.model  of SentencePiece (BPE or unigram)
 *   vocab.json       of GPT-2, with merges.txt beside it
 *   tokenizer.bin    of llama2.c: uint32 longest, then per token: float32 score, int32 size, text
 *   NAME.gguf        (only by its name; any part of a split one) its metadata tokenizer.ggml.*
 * A .safetensors file stands for its directory.
 * A tokenizer_config.json beside the first three says which tokens begin and end a text.
 *
 * ENCODING
 *   1. Tokens with a name (<|im_start|>, </s>) are cut out of the text: those that are ordinary
 *      text to the model always, those that control it only with TOKENIZER_SPECIAL.
 *   2. What is left is normalised: Unicode forms, spaces made U+2581, a space put in front.
 *   3. A list of regular expressions cuts it into words.  Each is compiled into a table when the
 *      file is opened, so that a character costs one look-up, whatever the expression.
 *   4. Words become tokens by one of three rules.
 *      BPE      (Sennrich et al. 2016, arXiv:1508.07909): of the adjacent pairs that the file lists
 *               the first listed is merged, the leftmost among equals, until none is left.  The
 *               symbols are bytes (GPT-2's alphabet) or characters.
 *      SPM      SentencePiece's BPE (Kudo & Richardson 2018, arXiv:1808.06226): the same, but a pair
 *               merges if together it is a token, the best score first.
 *      UNIGRAM  (Kudo 2018, arXiv:1804.10959): the cut with the largest sum of scores.
 *      A character that is no token becomes its bytes <0xXX>, or the token <unk>.
 *   Bytes that are not UTF-8 are kept, each as a symbol of its own, wherever bytes have tokens.
 *
 * DECODING is a stream: the space that encoding puts in front goes away again, bytes of a
 * character are held back until it is complete, and what is not UTF-8 becomes U+FFFD, so that
 * everything written is UTF-8.
 *
 * What a file asks for and this cannot do exactly is refused, by name.  Not done: WordPiece, BPE
 * with dropout, prefixes or suffixes of subwords, lower-casing, look-ahead and look-behind of more
 * than one character.
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tokenizer tokenizer;

typedef struct tokenizer_error {
    char text[248]; /* one line: what is wrong, and where */
} tokenizer_error;

/* What a tokenizer was read from. */
enum {
    TOKENIZER_LLAMA2C = 0,
    TOKENIZER_GGUF,
    TOKENIZER_JSON,
    TOKENIZER_SENTENCEPIECE,
    TOKENIZER_GPT2
};

/* How words become tokens. */
enum { TOKENIZER_SPM = 0, TOKENIZER_BPE, TOKENIZER_UNIGRAM };

/* What a token is; the numbers are those of SentencePiece and GGUF. */
enum {
    TOKENIZER_NORMAL = 1,
    TOKENIZER_UNKNOWN,
    TOKENIZER_CONTROL,      /* speaks to the model: not found in text without TOKENIZER_SPECIAL */
    TOKENIZER_USER_DEFINED, /* found in text as a whole, always */
    TOKENIZER_UNUSED,
    TOKENIZER_BYTE
};

/* Flags of tokenizer_encode. */
enum {
    TOKENIZER_BOS = 1,      /* put the BOS token first, if there is one */
    TOKENIZER_NO_SPACE = 2, /* no space in front: the text continues an earlier one */
    TOKENIZER_SPECIAL = 4,  /* the names of control tokens in the text are those tokens */
    TOKENIZER_EOS = 8,      /* put the EOS token last, if there is one */
    TOKENIZER_AUTO = 16     /* put first and last what the model was trained with */
};

/* State of one decoded text; all zero at its start.  special may be set to 1: then tokens that
 * control the model write their names. */
typedef struct tokenizer_stream {
    int started; /* the next piece is not the first of a text */
    int n_held;
    unsigned char held[4]; /* the first bytes of a character */
    int special;
} tokenizer_stream;

/* Files in memory, for tokenizer_open_files; all but the first may be NULL.  They must stay as they
 * are until tokenizer_close. */
typedef struct tokenizer_files {
    const void *data; /* of any kind above; GGUF may be cut off behind its metadata */
    size_t size;
    const void *merges; /* merges.txt, for a vocab.json */
    size_t merges_size;
    const void *config; /* tokenizer_config.json */
    size_t config_size;
} tokenizer_files;

/* Read a file, or the one in a directory.  vocab_size: llama2.c's file must have exactly so many
 * tokens; 0 = as many as there are.  The others say it themselves.  NULL if it cannot be read or is
 * malformed: *error (or NULL) says what and where. */
tokenizer *tokenizer_open(const char *path, int vocab_size, tokenizer_error *error);
tokenizer *tokenizer_open_memory(const void *data, size_t size, int vocab_size,
                                 tokenizer_error *error);
tokenizer *tokenizer_open_files(const tokenizer_files *files, int vocab_size,
                                tokenizer_error *error);
void tokenizer_close(tokenizer *t); /* NULL is ignored */

int tokenizer_kind(const tokenizer *t);  /* TOKENIZER_LLAMA2C ... */
int tokenizer_model(const tokenizer *t); /* TOKENIZER_SPM ... */
int tokenizer_vocab_size(const tokenizer *t);
int tokenizer_bos(const tokenizer *t); /* -1 = there is none */
int tokenizer_eos(const tokenizer *t);
int tokenizer_unk(const tokenizer *t);
int tokenizer_adds_bos(const tokenizer *t); /* does TOKENIZER_AUTO begin with BOS? */
int tokenizer_adds_eos(const tokenizer *t);
int tokenizer_adds_space(const tokenizer *t);     /* does encoding put a space in front? */
int tokenizer_removes_spaces(const tokenizer *t); /* drops it spaces that repeat, begin or end? */

/* Does a character that is no token become tokens of its bytes, if they all have one? */
int tokenizer_byte_fallback(const tokenizer *t);

/* SentencePiece's map of characters, as its files have it: its bytes, or NULL = there is none. */
const void *tokenizer_charsmap(const tokenizer *t, size_t *size);

/* Does this token end what a model has to say: EOS, or the end of a turn? */
int tokenizer_is_end(const tokenizer *t, int token);

/* The bytes of a token as the file has them, not zero-terminated; NULL = there is no such token. */
const char *tokenizer_piece(const tokenizer *t, int token, int *size);

/* The token whose text in the file is this, or -1. */
int tokenizer_find(const tokenizer *t, const char *text, size_t size);
int tokenizer_type(const tokenizer *t, int token); /* TOKENIZER_NORMAL ...; 0 = no such token */
double tokenizer_score(const tokenizer *t, int token);

/* Merge number i of TOKENIZER_BPE, the first to be done first: 0, or -1 if there is none. */
int tokenizer_n_merges(const tokenizer *t);
int tokenizer_merge(const tokenizer *t, int i, int *left, int *right);

/* Are pieces written in GPT-2's alphabet, a character for each byte? */
int tokenizer_byte_level(const tokenizer *t);

/* The name that GGUF gives to how text is cut into words ("llama-bpe"), NULL = it has none. */
const char *tokenizer_pre(const tokenizer *t);

/* The chat template that the file or tokenizer_config.json has, zero-terminated; or NULL. */
const char *tokenizer_chat_template(const tokenizer *t);

/* How many tokens a text of this many bytes can have at most. */
size_t tokenizer_encode_bound(const tokenizer *t, size_t length);

/* text [length] may hold anything, zero bytes too.  Returns the number of tokens, or -1 if they do
 * not fit in capacity or memory runs out.  Time O(length log length). */
int tokenizer_encode(const tokenizer *t, const char *text, size_t length, int flags,
                     int32_t *tokens, size_t capacity, tokenizer_error *error);

/* Most bytes that one call of tokenizer_decode or tokenizer_decode_end can write. */
size_t tokenizer_decode_bound(const tokenizer *t);

/* Write the text that token completes to out [tokenizer_decode_bound] and return its size, or -1
 * if there is no such token.  Control tokens have no text, but see tokenizer_stream. */
int tokenizer_decode(const tokenizer *t, tokenizer_stream *stream, int token, char *out);

/* The text is over: what is still held back becomes U+FFFD.  The stream is as new. */
int tokenizer_decode_end(tokenizer_stream *stream, char *out);

/* The bytes that token adds to a text that has begun, as they are: they may end within a character.
 * Writes them to out [tokenizer_decode_bound] and returns how many, none for control tokens; -1 if
 * there is no such token. */
int tokenizer_bytes(const tokenizer *t, int token, char *out);

#ifdef __cplusplus
}
#endif
#endif /* TOKENIZER_H */

#ifdef TOKENIZER_IMPLEMENTATION
#ifndef TOKENIZER_IMPLEMENTED
#define TOKENIZER_IMPLEMENTED

#include "unicode_data.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TOKENIZER_MALLOC
#define TOKENIZER_MALLOC malloc
#define TOKENIZER_REALLOC realloc
#define TOKENIZER_FREE free
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- base: errors and memory ---- */

/* Returns -1, so that a caller can pass it on. */
static int tki_fail(tokenizer_error *error, const char *format, ...) {
    va_list args;
    if (error == NULL) return -1;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return -1;
}

static int tki_no_memory(tokenizer_error *error) { return tki_fail(error, "out of memory"); }

/* Room for n more elements behind the n_used of an array: 0, or -1 and all is as before. */
static int tki_reserve(void **array, size_t *capacity, size_t n_used, size_t n, size_t element) {
    if (n_used + n <= *capacity && *array) return 0;
    size_t larger = *capacity + *capacity / 2 + 16;
    if (larger < n_used + n) larger = n_used + n;
    if (larger > SIZE_MAX / 2 / element) return -1;
    void *moved = TOKENIZER_REALLOC(*array, larger * element);
    if (moved == NULL) return -1;
    *array = moved;
    *capacity = larger;
    return 0;
}

/* count zeroed elements; NULL if memory runs out. */
static void *tki_calloc(size_t count, size_t element) {
    if (count > SIZE_MAX / 2 / element) return NULL;
    void *memory = TOKENIZER_MALLOC(count * element + 1);
    if (memory) memset(memory, 0, count * element);
    return memory;
}

/* Bytes that grow.  failed stays set once memory ran out: one check at the end will do. */
typedef struct tki_buffer {
    char *data;
    size_t size, capacity;
    int failed;
} tki_buffer;

static void tki_append(tki_buffer *b, const char *data, size_t size) {
    if (b->failed || size == 0) return;
    void *memory = b->data;
    if (tki_reserve(&memory, &b->capacity, b->size, size, 1) != 0) {
        b->failed = 1;
        return;
    }
    b->data = (char *)memory;
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

/* Bytes that stay where they are until the tokenizer is closed: a list of blocks. */
typedef struct tki_block {
    struct tki_block *next;
    size_t used, capacity; /* of the bytes behind this header */
} tki_block;

static char *tki_keep(tki_block **blocks, const char *data, size_t size) {
    tki_block *block = *blocks;
    if (block == NULL || block->capacity - block->used < size + 1) {
        size_t capacity = size + 1 > 32768 ? size + 1 : 32768;
        if (size > SIZE_MAX / 2) return NULL;
        block = (tki_block *)TOKENIZER_MALLOC(sizeof *block + capacity);
        if (block == NULL) return NULL;
        block->next = *blocks;
        block->used = 0;
        block->capacity = capacity;
        *blocks = block;
    }
    char *copy = (char *)(block + 1) + block->used;
    if (size > 0) memcpy(copy, data, size);
    copy[size] = '\0';
    block->used += size + 1;
    return copy;
}

/* ---- UTF-8 (RFC 3629) ---- */

/* Size of the character that s [n >= 1] begins with; 0 if n bytes are a good beginning but too
 * few, -1 if they are not UTF-8. */
static int tki_utf8(const unsigned char *s, size_t n) {
    int size = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (size == 0 || s[0] > 0xF4) return -1;
    for (int i = 1; i < size; i++) {
        if ((size_t)i >= n) return 0;
        /* the second byte also rules out overlong forms, surrogates and what is past U+10FFFF */
        int low = i > 1 ? 0x80 : s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
        int high = i > 1 ? 0xBF : s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
        if (s[i] < low || s[i] > high) return -1;
    }
    return size;
}

/* The character at s [n >= 1] and its size.  A byte that is no part of one is U+FFFD, size 1. */
static uint32_t tki_character(const char *s, size_t n, int *size) {
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80) {
        *size = 1;
        return u[0];
    }
    *size = tki_utf8(u, n);
    if (*size < 1) {
        *size = 1;
        return 0xFFFD;
    }
    uint32_t c = u[0] & (0xFFu >> (*size + 1));
    for (int i = 1; i < *size; i++) c = c << 6 | (u[i] & 0x3Fu);
    return c;
}

/* Writes a character as UTF-8 to out [4]; returns its size.  What is none is written as U+FFFD. */
static int tki_put_character(uint32_t c, char *out) {
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = size - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00u >> size & 0xF0u) | c);
    return size;
}

static void tki_append_character(tki_buffer *b, uint32_t c) {
    char text[4];
    tki_append(b, text, (size_t)tki_put_character(c, text));
}

/* ---- Unicode ---- */

#define TKI_COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Index of the last of n sorted entries whose key (entry >> shift) is at most c; -1 = none. */
static long tki_search(const uint32_t *entries, size_t n, int shift, uint32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (entries[middle] >> shift <= c) low = middle + 1;
        else high = middle;
    }
    return (long)low - 1;
}

static int tki_combining(uint32_t c) {
    if (c < 0x300) return 0;
    long i = tki_search(tku_combining, TKI_COUNT(tku_combining), 8, c);
    return (int)(tku_combining[i] & 0xFF);
}

/* Is this White_Space? */
static int tki_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

/* The name of a character's general category, such as "Lu". */
static const char *tki_category(uint32_t c) {
    long i = tki_search(tku_categories, TKI_COUNT(tku_categories), 5, c);
    return tku_category_names[tku_categories[i] & 31];
}

/* A letter, mark, digit or connector: what \w is without its rarest members. */
static int tki_is_word(uint32_t c) {
    const char *name = tki_category(c);
    return name[0] == 'L' || name[0] == 'M' || !strcmp(name, "Nd") || !strcmp(name, "Nl") ||
           !strcmp(name, "Pc");
}

/* The characters that c is decomposed into, at most 18, in out; returns how many. */
static int tki_decompose(uint32_t c, int compatible, uint32_t *out) {
    /* Hangul syllables are computed (the Unicode Standard, section 3.12) */
    if (c >= 0xAC00 && c < 0xAC00 + 11172) {
        uint32_t s = c - 0xAC00;
        out[0] = 0x1100 + s / 588;
        out[1] = 0x1161 + s % 588 / 28;
        out[2] = 0x11A7 + s % 28;
        return s % 28 ? 3 : 2;
    }
    for (int pass = compatible ? 0 : 1; c >= 0xA0 && pass < 2; pass++) {
        const uint32_t *entries = pass ? tku_canonical : tku_compatible;
        size_t n = pass ? TKI_COUNT(tku_canonical) : TKI_COUNT(tku_compatible);
        long i = tki_search(entries, n, 5, c);
        if (i < 0 || entries[i] >> 5 != c) continue;
        const uint32_t *text = pass ? tku_canonical_text + tku_canonical_at[i]
                                    : tku_compatible_text + tku_compatible_at[i];
        memcpy(out, text, (entries[i] & 31) * sizeof *out);
        return (int)(entries[i] & 31);
    }
    out[0] = c;
    return 1;
}

/* The composition of two characters, or 0. */
static uint32_t tki_compose(uint32_t a, uint32_t b) {
    if (a >= 0x1100 && a < 0x1113 && b >= 0x1161 && b < 0x1176)
        return 0xAC00 + ((a - 0x1100) * 21 + (b - 0x1161)) * 28;
    if (a >= 0xAC00 && a < 0xAC00 + 11172 && (a - 0xAC00) % 28 == 0 && b > 0x11A7 && b < 0x11C3)
        return a + (b - 0x11A7);
    size_t low = 0, high = TKI_COUNT(tku_compositions) / 3;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const uint32_t *row = tku_compositions + 3 * middle;
        if (row[0] == a && row[1] == b) return row[2];
        if (row[0] < a || (row[0] == a && row[1] < b)) low = middle + 1;
        else high = middle;
    }
    return 0;
}

/* Characters that may still change places or compose, with their combining classes. */
typedef struct tki_segment {
    uint32_t *characters;
    unsigned char *classes;
    size_t n, capacity, classes_capacity;
} tki_segment;

/* Sorts n characters by class, stably: by counting, since a hostile run may be long. */
static void tki_sort_marks(uint32_t *characters, unsigned char *classes, size_t n,
                           tki_buffer *out) {
    size_t places[257] = {0};
    uint32_t *sorted = (uint32_t *)tki_calloc(n, sizeof *sorted);
    if (sorted == NULL) {
        out->failed = 1;
        return;
    }
    for (size_t i = 0; i < n; i++) places[classes[i] + 1]++;
    for (int i = 1; i <= 256; i++) places[i] += places[i - 1];
    for (size_t i = 0; i < n; i++) sorted[places[classes[i]]++] = characters[i];
    for (size_t i = 0; i < n; i++) {
        characters[i] = sorted[i];
        classes[i] = (unsigned char)tki_combining(sorted[i]);
    }
    TOKENIZER_FREE(sorted);
}

/* Puts a segment into canonical order, composes it (the Unicode Standard, D109 and D117), writes
 * it. */
static void tki_flush_segment(tki_segment *s, int compose, tki_buffer *out) {
    size_t kept = 0;
    long starter = -1;
    int last = -1; /* class of the last character that stayed behind the starter; -1 = none did */
    for (size_t from = 0, to; from < s->n; from = to + 1) {
        for (to = from; to < s->n && s->classes[to] != 0;) to++;
        if (to - from > 1) tki_sort_marks(s->characters + from, s->classes + from, to - from, out);
    }
    for (size_t i = 0; i < s->n; i++) {
        uint32_t c = s->characters[i], composed = 0;
        int mark = s->classes[i];
        if (compose && starter >= 0 && last < mark) /* nothing of its class or above in between */
            composed = tki_compose(s->characters[starter], c);
        if (composed) {
            s->characters[starter] = composed;
            continue;
        }
        if (mark == 0) starter = (long)kept;
        last = mark == 0 ? -1 : mark;
        s->characters[kept++] = c;
    }
    for (size_t i = 0; i < kept; i++) tki_append_character(out, s->characters[i]);
    s->n = 0;
}

static void tki_push_segment(tki_segment *s, uint32_t c, tki_buffer *out) {
    void *characters = s->characters, *classes = s->classes;
    if (tki_reserve(&characters, &s->capacity, s->n, 1, sizeof(uint32_t)) != 0) out->failed = 1;
    if (tki_reserve(&classes, &s->classes_capacity, s->n, 1, 1) != 0) out->failed = 1;
    s->characters = (uint32_t *)characters;
    s->classes = (unsigned char *)classes;
    if (out->failed) return;
    s->characters[s->n] = c;
    s->classes[s->n++] = (unsigned char)tki_combining(c);
}

/* Does text before c never change with c or what follows? */
static int tki_begins_segment(uint32_t c) {
    if (c < 0x300) return 1;
    if (c >= 0x1161 && c < 0x11C3) return 0; /* Hangul vowels and final consonants */
    long i = tki_search(tku_joining, TKI_COUNT(tku_joining), 0, c);
    return tki_combining(c) == 0 && (i < 0 || tku_joining[i] != c);
}

/* Unicode normalisation forms (UAX 15).  Bytes that are not UTF-8 pass through. */
static void tki_normal_form(const char *in, size_t n, int compose, int compatible,
                            tki_buffer *out) {
    tki_segment s = {NULL, NULL, 0, 0, 0};
    for (size_t at = 0; at < n && !out->failed;) {
        uint32_t parts[32];
        int size, n_parts;
        size_t plain = at; /* a run of ASCII is not changed, but for its last character */
        while (plain < n && (unsigned char)in[plain] < 0x80) plain++;
        if (plain - at > 1) {
            tki_flush_segment(&s, compose, out);
            tki_append(out, in + at, plain - at - 1);
            at = plain - 1;
        }
        uint32_t c = tki_character(in + at, n - at, &size);
        if (size == 1 && c == 0xFFFD) {
            tki_flush_segment(&s, compose, out);
            tki_append(out, in + at, 1);
            at++;
            continue;
        }
        at += (size_t)size;
        n_parts = tki_decompose(c, compatible, parts);
        for (int i = 0; i < n_parts && !out->failed; i++) {
            if (tki_begins_segment(parts[i])) tki_flush_segment(&s, compose, out);
            tki_push_segment(&s, parts[i], out);
        }
    }
    if (!out->failed) tki_flush_segment(&s, compose, out);
    TOKENIZER_FREE(s.characters);
    TOKENIZER_FREE(s.classes);
}

/* ---- regular expressions: parsed, then made a table of states ----
 *
 * Syntax is that of Oniguruma as tokenizer.json files use it.  An expression is parsed to a program
 * of a non-deterministic machine; a state of the table is an ordered list of its places, the
 * preferred one first, so that the match is the one that a backtracking matcher would find.  A
 * look-ahead of one character is resolved when that character is read. */

enum {
    TKI_MAX_SETS = 64,       /* sets of characters in one expression */
    TKI_MAX_CLASSES = 200,   /* kinds of characters that it tells apart */
    TKI_MAX_PROGRAM = 12000, /* instructions */
    TKI_MAX_STATES = 16000,  /* of the table */
    TKI_MAX_WORK = 1 << 27,  /* steps to make it */
    TKI_MAX_NESTING = 100    /* parentheses, JSON values */
};

typedef struct tki_regex {
    unsigned char bytes[256];    /* class of each ASCII character, or of each byte */
    uint16_t *pages;             /* [0x1100]: page of each 256 characters */
    unsigned char *page_classes; /* [256] each */
    uint16_t *table;             /* [states][classes + 1]: state << 1 | a match ends here; the last
                                 * column is for the end of the text */
    int n_classes, start;
    int by_byte; /* it sees bytes, as GPT-2 writes them, not characters */
} tki_regex;

typedef struct tki_set { /* of characters: ranges, each first and last */
    uint32_t *ranges;
    size_t n, capacity;
} tki_set;

enum { TKI_EMPTY, TKI_SET, TKI_CAT, TKI_ALT, TKI_REPEAT, TKI_LOOK };

typedef struct tki_node {
    int kind, a,
        b; /* children; TKI_SET: a = number of the set; TKI_LOOK: b = 1 if it may be the end */
    int least, most, lazy, possessive; /* TKI_REPEAT; most -1 = no limit */
} tki_node;

enum { TKI_STEP_SET, TKI_STEP_LOOK, TKI_STEP_SPLIT, TKI_STEP_JUMP, TKI_STEP_MATCH };

typedef struct tki_step {
    int kind, a, b; /* SPLIT: first choice and second; SET, LOOK: as in the node */
} tki_step;

typedef struct tki_compiler {
    const char *text; /* the expression */
    size_t size, at;
    int fold, depth;
    tki_set sets[TKI_MAX_SETS];
    int n_sets;
    tki_node *nodes;
    size_t n_nodes, nodes_capacity;
    tki_step *program;
    size_t n_steps, program_capacity;
    tokenizer_error *error;
} tki_compiler;

static int tki_regex_fail(tki_compiler *c, const char *what) {
    int size = c->size > 60 ? 60 : (int)c->size;
    return tki_fail(c->error, "regular expression '%.*s%s' at %zu: %s", size, c->text,
                    c->size > 60 ? "..." : "", c->at, what);
}

static int tki_add_range(tki_compiler *c, tki_set *set, uint32_t first, uint32_t last) {
    void *ranges = set->ranges;
    if (tki_reserve(&ranges, &set->capacity, set->n, 2, sizeof(uint32_t)) != 0)
        return tki_no_memory(c->error);
    set->ranges = (uint32_t *)ranges;
    set->ranges[set->n++] = first;
    set->ranges[set->n++] = last;
    return 0;
}

static int tki_compare_ranges(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts the ranges and joins those that touch. */
static void tki_tidy_set(tki_set *set) {
    size_t kept = 0;
    if (set->n == 0) return;
    qsort(set->ranges, set->n / 2, 2 * sizeof(uint32_t), tki_compare_ranges);
    for (size_t i = 0; i < set->n; i += 2) {
        if (kept > 0 && set->ranges[i] <= set->ranges[kept - 1] + 1) {
            if (set->ranges[i + 1] > set->ranges[kept - 1])
                set->ranges[kept - 1] = set->ranges[i + 1];
        } else {
            set->ranges[kept] = set->ranges[i];
            set->ranges[kept + 1] = set->ranges[i + 1];
            kept += 2;
        }
    }
    set->n = kept;
}

static int tki_negate_set(tki_compiler *c, tki_set *set) {
    tki_set other = {NULL, 0, 0};
    uint32_t next = 0;
    int status = 0;
    tki_tidy_set(set);
    for (size_t i = 0; i < set->n && status == 0; i += 2) {
        if (set->ranges[i] > next) status = tki_add_range(c, &other, next, set->ranges[i] - 1);
        next = set->ranges[i + 1] + 1;
    }
    if (status == 0 && next <= 0x10FFFF) status = tki_add_range(c, &other, next, 0x10FFFF);
    TOKENIZER_FREE(set->ranges);
    *set = other;
    return status;
}

static int tki_add_set(tki_compiler *c, tki_set *set, const tki_set *other) {
    for (size_t i = 0; i < other->n; i += 2)
        if (tki_add_range(c, set, other->ranges[i], other->ranges[i + 1]) != 0) return -1;
    return 0;
}

/* Adds the ranges of a table of changes whose low 5 bits are marked in wanted. */
static int tki_add_runs(tki_compiler *c, tki_set *set, const uint32_t *runs, size_t n,
                        uint32_t wanted) {
    for (size_t i = 0; i < n; i++) {
        uint32_t last = i + 1 < n ? (runs[i + 1] >> 5) - 1 : 0x10FFFF;
        if ((wanted >> (runs[i] & 31) & 1) && tki_add_range(c, set, runs[i] >> 5, last) != 0)
            return -1;
    }
    return 0;
}

/* General categories by their names, or by the first letter of several; 0 = there is none. */
static uint32_t tki_category_mask(const char *name, size_t size) {
    uint32_t mask = 0;
    for (size_t i = 0; i < TKI_COUNT(tku_category_names); i++)
        if (size <= 2 && memcmp(name, tku_category_names[i], size) == 0) mask |= 1u << i;
    return mask;
}

/* The members of \p{name}. */
static int tki_add_property(tki_compiler *c, tki_set *set, const char *name, size_t size) {
    uint32_t mask = tki_category_mask(name, size);
    if (mask) return tki_add_runs(c, set, tku_categories, TKI_COUNT(tku_categories), mask);
    for (size_t i = 0; i < TKI_COUNT(tku_script_names); i++)
        if (strlen(tku_script_names[i]) == size && memcmp(name, tku_script_names[i], size) == 0)
            return tki_add_runs(c, set, tku_scripts, TKI_COUNT(tku_scripts), 2u << i);
    return tki_regex_fail(c, "a property of characters that is not known here");
}

/* The set of \s, \d, \w, \h or what negates them: 1 if letter names one, 0 if not, -1. */
static int tki_add_shorthand(tki_compiler *c, tki_set *set, char letter) {
    tki_set members = {NULL, 0, 0};
    int status = 0;
    char lower = (char)(letter | 0x20);
    if (lower == 's') {
        static const uint32_t spaces[] = {9,      13,     ' ',    ' ',    0x85,   0x85,   0xA0,
                                          0xA0,   0x1680, 0x1680, 0x2000, 0x200A, 0x2028, 0x2029,
                                          0x202F, 0x202F, 0x205F, 0x205F, 0x3000, 0x3000};
        for (size_t i = 0; i < TKI_COUNT(spaces) && status == 0; i += 2)
            status = tki_add_range(c, &members, spaces[i], spaces[i + 1]);
    } else if (lower == 'd') {
        status = tki_add_property(c, &members, "Nd", 2);
    } else if (lower == 'w') {
        /* besides letters, marks, digits and connectors: circled letters, and superscript digits
         * and fractions of Latin-1 (as Oniguruma has it) */
        static const uint32_t others[] = {0xB2,    0xB3,    0xB9,    0xB9,    0xBC,
                                          0xBE,    0x24B6,  0x24E9,  0x1F130, 0x1F149,
                                          0x1F150, 0x1F169, 0x1F170, 0x1F189};
        static const char names[6][3] = {"L", "M", "Nd", "Nl", "Pc", ""};
        for (size_t i = 0; names[i][0] && status == 0; i++)
            status = tki_add_property(c, &members, names[i], strlen(names[i]));
        for (size_t i = 0; i < TKI_COUNT(others) && status == 0; i += 2)
            status = tki_add_range(c, &members, others[i], others[i + 1]);
    } else {
        return 0;
    }
    if (status == 0 && letter != lower) status = tki_negate_set(c, &members);
    if (status == 0) status = tki_add_set(c, set, &members);
    TOKENIZER_FREE(members.ranges);
    return status == 0 ? 1 : -1;
}

/* A character and, where case is ignored, those that differ from it only in case. */
static int tki_add_folded(tki_compiler *c, tki_set *set, uint32_t first, uint32_t last) {
    if (tki_add_range(c, set, first, last) != 0) return -1;
    if (!c->fold) return 0;
    if (last >= 0x80) return tki_regex_fail(c, "case ignored outside of ASCII");
    for (uint32_t x = first; x <= last; x++) {
        uint32_t lower = x | 0x20;
        if (lower < 'a' || lower > 'z') continue;
        if (tki_add_range(c, set, x ^ 0x20, x ^ 0x20) != 0) return -1;
        if (lower == 's' && tki_add_range(c, set, 0x17F, 0x17F) != 0) return -1;
        if (lower == 'k' && tki_add_range(c, set, 0x212A, 0x212A) != 0) return -1;
    }
    return 0;
}

static int tki_more(const tki_compiler *c) { return c->at < c->size; }
static char tki_peek(const tki_compiler *c) { return c->at < c->size ? c->text[c->at] : '\0'; }

/* Moves on if the expression goes on with this. */
static int tki_accept(tki_compiler *c, const char *what) {
    size_t n = strlen(what);
    if (c->size - c->at < n || memcmp(c->text + c->at, what, n) != 0) return 0;
    c->at += n;
    return 1;
}

/* The n hexadecimal digits that come next, or as many as there are up to a }. */
static int tki_hex(tki_compiler *c, int n, uint32_t *value) {
    *value = 0;
    for (int i = 0; i < n; i++) {
        char d = tki_peek(c);
        uint32_t digit = d >= '0' && d <= '9'   ? (uint32_t)(d - '0')
                         : d >= 'a' && d <= 'f' ? (uint32_t)(d - 'a' + 10)
                         : d >= 'A' && d <= 'F' ? (uint32_t)(d - 'A' + 10)
                                                : 16;
        if (digit == 16) return i > 0 && n == 8 ? 0 : tki_regex_fail(c, "not a hexadecimal number");
        *value = *value << 4 | digit;
        c->at++;
    }
    return 0;
}

/* What follows a backslash: a set (into *set, returns 1) or one character (into *value, 0); -1. */
static int tki_parse_escape(tki_compiler *c, tki_set *set, uint32_t *value) {
    static const char plain[] = "nrtfvae", values[] = "\n\r\t\f\v\a\033";
    if (!tki_more(c)) return tki_regex_fail(c, "ends with a backslash");
    char letter = tki_peek(c);
    int known = tki_add_shorthand(c, set, letter);
    if (known != 0) {
        c->at++;
        return known;
    }
    if (letter == 'p' || letter == 'P') {
        c->at++;
        if (!tki_accept(c, "{")) return tki_regex_fail(c, "\\p without {");
        int negate = (letter == 'P') ^ tki_accept(c, "^");
        const char *end = (const char *)memchr(c->text + c->at, '}', c->size - c->at);
        if (end == NULL) return tki_regex_fail(c, "\\p{ without }");
        tki_set members = {NULL, 0, 0};
        size_t size = (size_t)(end - c->text) - c->at;
        int status = tki_add_property(c, &members, c->text + c->at, size);
        if (status == 0 && negate) status = tki_negate_set(c, &members);
        if (status == 0) status = tki_add_set(c, set, &members);
        TOKENIZER_FREE(members.ranges);
        c->at += size + 1;
        return status == 0 ? 1 : -1;
    }
    if (letter == 'x' || letter == 'u') {
        c->at++;
        int braces = letter == 'x' && tki_accept(c, "{");
        if (tki_hex(c, letter == 'u' ? 4 : braces ? 8 : 2, value) != 0) return -1;
        if (braces && !tki_accept(c, "}")) return tki_regex_fail(c, "\\x{ without }");
        return *value <= 0x10FFFF ? 0 : tki_regex_fail(c, "not a character");
    }
    const char *found = (const char *)memchr(plain, letter, 7);
    if (found) {
        *value = (unsigned char)values[found - plain];
    } else if ((letter >= '0' && letter <= '9') || (letter | 0x20) >= 'a') {
        if (((letter | 0x20) >= 'a' && (letter | 0x20) <= 'z') || (letter >= '0' && letter <= '9'))
            return tki_regex_fail(c, "an escape that is not known here");
        *value = (unsigned char)letter;
    } else {
        *value = (unsigned char)letter;
    }
    c->at++;
    return 0;
}

/* The next character of the expression, as it stands. */
static uint32_t tki_next_character(tki_compiler *c) {
    int size;
    uint32_t value = tki_character(c->text + c->at, c->size - c->at, &size);
    c->at += (size_t)size;
    return value;
}

/* One member of a class [...]: a character (returns 0) or a set, added to *set (returns 1); -1. */
static int tki_parse_member(tki_compiler *c, tki_set *set, uint32_t *value) {
    if (tki_accept(c, "\\")) return tki_parse_escape(c, set, value);
    *value = tki_next_character(c);
    return 0;
}

/* What is behind the [ of a class, to its ]. */
static int tki_parse_class(tki_compiler *c, tki_set *set) {
    int negate = tki_accept(c, "^"), first = 1, status = 0;
    if (++c->depth > TKI_MAX_NESTING) return tki_regex_fail(c, "nested too deeply");
    for (; status == 0; first = 0) {
        uint32_t low = 0, high = 0;
        if (!tki_more(c)) return tki_regex_fail(c, "[ without ]");
        if (!first && tki_accept(c, "]")) break;
        if (c->size - c->at >= 2 && memcmp(c->text + c->at, "[:", 2) == 0)
            return tki_regex_fail(c, "a class [:name:]");
        if (tki_accept(c, "[")) {
            tki_set inner = {NULL, 0, 0};
            status = tki_parse_class(c, &inner);
            if (status == 0) status = tki_add_set(c, set, &inner);
            TOKENIZER_FREE(inner.ranges);
            continue;
        }
        if (tki_accept(c, "&&")) { /* the rest is intersected: not (not this or not that) */
            tki_set rest = {NULL, 0, 0};
            status = tki_parse_class(c, &rest);
            if (status == 0) status = tki_negate_set(c, &rest);
            if (status == 0) status = tki_negate_set(c, set);
            if (status == 0) status = tki_add_set(c, set, &rest);
            if (status == 0) status = tki_negate_set(c, set);
            TOKENIZER_FREE(rest.ranges);
            break;
        }
        int is_set = tki_parse_member(c, set, &low);
        if (is_set != 0) {
            status = is_set < 0 ? -1 : 0;
            continue;
        }
        high = low;
        if (c->size - c->at >= 2 && tki_peek(c) == '-' && c->text[c->at + 1] != ']') {
            c->at++;
            is_set = tki_parse_member(c, set, &high);
            if (is_set < 0) return -1;
            if (is_set || high < low) return tki_regex_fail(c, "a range that is none");
        }
        status = tki_add_folded(c, set, low, high);
    }
    c->depth--;
    if (status == 0 && negate) status = tki_negate_set(c, set);
    return status;
}

static int tki_new_node(tki_compiler *c, int kind, int a, int b) {
    void *nodes = c->nodes;
    if (tki_reserve(&nodes, &c->nodes_capacity, c->n_nodes, 1, sizeof *c->nodes) != 0)
        return tki_no_memory(c->error);
    c->nodes = (tki_node *)nodes;
    tki_node *node = &c->nodes[c->n_nodes];
    memset(node, 0, sizeof *node);
    node->kind = kind;
    node->a = a;
    node->b = b;
    return (int)c->n_nodes++;
}

/* A node that matches one character of *set, whose memory it takes over. */
static int tki_set_node(tki_compiler *c, tki_set *set) {
    tki_tidy_set(set);
    int found = -1;
    for (int i = 0; i < c->n_sets && found < 0; i++)
        if (c->sets[i].n == set->n &&
            (set->n == 0 || !memcmp(c->sets[i].ranges, set->ranges, set->n * sizeof(uint32_t))))
            found = i;
    if (found < 0 && c->n_sets == TKI_MAX_SETS) {
        TOKENIZER_FREE(set->ranges);
        return tki_regex_fail(c, "more than 64 sets of characters");
    }
    if (found < 0) {
        found = c->n_sets++;
        c->sets[found] = *set;
    } else {
        TOKENIZER_FREE(set->ranges);
    }
    return tki_new_node(c, TKI_SET, found, 0);
}

static int tki_parse_choice(tki_compiler *c);

/* (?=X) and (?!X), X one character.  A negative one also holds at the end of the text. */
static int tki_parse_look(tki_compiler *c, int negate) {
    int inner = tki_parse_choice(c);
    if (inner < 0) return -1;
    if (!tki_accept(c, ")")) return tki_regex_fail(c, "( without )");
    if (c->nodes[inner].kind != TKI_SET)
        return tki_regex_fail(c, "look-ahead of other than one character");
    tki_set copy = {NULL, 0, 0};
    if (tki_add_set(c, &copy, &c->sets[c->nodes[inner].a]) != 0 ||
        (negate && tki_negate_set(c, &copy) != 0)) {
        TOKENIZER_FREE(copy.ranges);
        return -1;
    }
    int node = tki_set_node(c, &copy);
    if (node < 0) return -1;
    c->nodes[node].kind = TKI_LOOK;
    c->nodes[node].b = negate;
    return node;
}

/* What is behind a (. */
static int tki_parse_group(tki_compiler *c) {
    int fold = c->fold, node;
    if (++c->depth > TKI_MAX_NESTING) return tki_regex_fail(c, "nested too deeply");
    if (tki_accept(c, "?=") || tki_accept(c, "?!")) {
        node = tki_parse_look(c, c->text[c->at - 1] == '!');
        c->depth--;
        return node;
    }
    if (tki_accept(c, "?i:")) c->fold = 1;
    else if (tki_accept(c, "?-i:")) c->fold = 0;
    else if (!tki_accept(c, "?:") && tki_peek(c) == '?')
        return tki_regex_fail(c, "a group (? of a kind that is not known here");
    node = tki_parse_choice(c);
    if (node >= 0 && !tki_accept(c, ")")) return tki_regex_fail(c, "( without )");
    c->fold = fold;
    c->depth--;
    return node;
}

static int tki_parse_atom(tki_compiler *c) {
    tki_set set = {NULL, 0, 0};
    uint32_t value = 0;
    int status = 0, look = 0;
    if (tki_accept(c, "(")) return tki_parse_group(c);
    if (tki_accept(c, "[")) {
        status = tki_parse_class(c, &set);
    } else if (tki_accept(c, "\\")) {
        int is_set = tki_parse_escape(c, &set, &value);
        status = is_set < 0 ? -1 : is_set ? 0 : tki_add_folded(c, &set, value, value);
    } else if (tki_accept(c, ".")) { /* all but a newline */
        status = tki_add_range(c, &set, '\n', '\n');
        if (status == 0) status = tki_negate_set(c, &set);
    } else if (tki_accept(c, "$")) { /* the end of a line or of the text */
        status = tki_add_range(c, &set, '\n', '\n');
        look = 1;
    } else if (memchr("*+?{^", tki_peek(c), 5)) {
        status = tki_regex_fail(c, "a character that is not known here");
    } else {
        value = tki_next_character(c);
        status = tki_add_folded(c, &set, value, value);
    }
    if (status != 0) {
        TOKENIZER_FREE(set.ranges);
        return -1;
    }
    int node = tki_set_node(c, &set);
    if (node >= 0 && look) {
        c->nodes[node].kind = TKI_LOOK;
        c->nodes[node].b = 1;
    }
    return node;
}

static int tki_parse_number(tki_compiler *c) {
    int value = -1;
    while (tki_peek(c) >= '0' && tki_peek(c) <= '9' && value < 100000)
        value = (value < 0 ? 0 : value) * 10 + (c->text[c->at++] - '0');
    return value;
}

/* An atom and the * + ? {n,m} behind it. */
static int tki_parse_repeat(tki_compiler *c) {
    int node = tki_parse_atom(c);
    while (node >= 0 && tki_more(c)) {
        int least = 0, most = -1, braces = 0;
        if (tki_accept(c, "*")) least = 0;
        else if (tki_accept(c, "+")) least = 1;
        else if (tki_accept(c, "?")) most = 1;
        else if (tki_accept(c, "{")) {
            braces = 1;
            least = most = tki_parse_number(c);
            if (tki_accept(c, ",")) most = tki_parse_number(c);
            if (!tki_accept(c, "}") || least < 0 || (most >= 0 && most < least) || least > 10000 ||
                most > 10000)
                return tki_regex_fail(c, "{n,m} that is not understood");
        } else break;
        node = tki_new_node(c, TKI_REPEAT, node, 0);
        if (node < 0) return -1;
        c->nodes[node].least = least;
        c->nodes[node].most = most;
        if (tki_accept(c, "?")) c->nodes[node].lazy = 1;
        else if (!braces && tki_accept(c, "+")) c->nodes[node].possessive = 1;
    }
    return node;
}

static int tki_parse_sequence(tki_compiler *c) {
    int node = -2;
    while (tki_more(c) && tki_peek(c) != '|' && tki_peek(c) != ')') {
        int next = tki_parse_repeat(c);
        if (next < 0) return -1;
        node = node == -2 ? next : tki_new_node(c, TKI_CAT, node, next);
        if (node < 0) return -1;
    }
    return node == -2 ? tki_new_node(c, TKI_EMPTY, 0, 0) : node;
}

static int tki_parse_choice(tki_compiler *c) {
    int node = tki_parse_sequence(c);
    while (node >= 0 && tki_accept(c, "|")) {
        int next = tki_parse_sequence(c);
        node = next < 0 ? -1 : tki_new_node(c, TKI_ALT, node, next);
    }
    return node;
}

static int tki_emit(tki_compiler *c, int kind, int a, int b) {
    void *program = c->program;
    if (c->n_steps >= TKI_MAX_PROGRAM) return tki_regex_fail(c, "too large");
    if (tki_reserve(&program, &c->program_capacity, c->n_steps, 1, sizeof *c->program) != 0)
        return tki_no_memory(c->error);
    c->program = (tki_step *)program;
    c->program[c->n_steps].kind = kind;
    c->program[c->n_steps].a = a;
    c->program[c->n_steps].b = b;
    return (int)c->n_steps++;
}

/* The two ways on from a split: into what follows it, or past the end. */
static void tki_set_split(tki_compiler *c, int split, int lazy) {
    int in = split + 1, past = (int)c->n_steps;
    c->program[split].a = lazy ? past : in;
    c->program[split].b = lazy ? in : past;
}

static int tki_generate(tki_compiler *c, int index, int depth);

static int tki_generate_repeat(tki_compiler *c, const tki_node *node, int depth) {
    for (int i = 0; i < node->least; i++)
        if (tki_generate(c, node->a, depth) != 0) return -1;
    if (node->most < 0) {
        int split = tki_emit(c, TKI_STEP_SPLIT, 0, 0);
        if (split < 0 || tki_generate(c, node->a, depth) != 0 ||
            tki_emit(c, TKI_STEP_JUMP, split, 0) < 0)
            return -1;
        tki_set_split(c, split, node->lazy);
        return 0;
    }
    /* X{0,3} is (X(X(X)?)?)? */
    int first = (int)c->n_steps, n = node->most - node->least;
    for (int i = 0; i < n; i++)
        if (tki_emit(c, TKI_STEP_SPLIT, -1, i) < 0 || tki_generate(c, node->a, depth) != 0)
            return -1;
    for (int i = first, past = (int)c->n_steps; i < past; i++)
        if (c->program[i].kind == TKI_STEP_SPLIT && c->program[i].a == -1)
            tki_set_split(c, i, node->lazy);
    return 0;
}

static int tki_generate(tki_compiler *c, int index, int depth) {
    tki_node node = c->nodes[index];
    if (depth > 2000) return tki_regex_fail(c, "too large");
    if (node.kind == TKI_SET) return tki_emit(c, TKI_STEP_SET, node.a, 0) < 0 ? -1 : 0;
    if (node.kind == TKI_LOOK) return tki_emit(c, TKI_STEP_LOOK, node.a, node.b) < 0 ? -1 : 0;
    if (node.kind == TKI_REPEAT) return tki_generate_repeat(c, &node, depth + 1);
    if (node.kind == TKI_CAT)
        return tki_generate(c, node.a, depth + 1) != 0 ? -1 : tki_generate(c, node.b, depth + 1);
    if (node.kind == TKI_ALT) {
        int split = tki_emit(c, TKI_STEP_SPLIT, 0, 0);
        if (split < 0 || tki_generate(c, node.a, depth + 1) != 0) return -1;
        int jump = tki_emit(c, TKI_STEP_JUMP, 0, 0);
        if (jump < 0) return -1;
        tki_set_split(c, split, 0);
        if (tki_generate(c, node.b, depth + 1) != 0) return -1;
        c->program[jump].a = (int)c->n_steps;
    }
    return 0;
}

/* Does set have a member in common with other? */
static int tki_sets_meet(const tki_set *set, const tki_set *other) {
    for (size_t i = 0, j = 0; i < set->n && j < other->n;) {
        if (set->ranges[i + 1] < other->ranges[j]) i += 2;
        else if (other->ranges[j + 1] < set->ranges[i]) j += 2;
        else return 1;
    }
    return 0;
}

/* Can what follows (node after node of a sequence) begin with a character of set?  Used for
 * possessive repeats: where it cannot, they match what greedy ones match. */
static int tki_begins_with(const tki_compiler *c, int index, const tki_set *set,
                           int *may_be_empty) {
    const tki_node *node = &c->nodes[index];
    int a_empty = 0, b_empty = 0, result = 0;
    *may_be_empty = 0;
    if (node->kind == TKI_SET) return tki_sets_meet(&c->sets[node->a], set);
    if (node->kind == TKI_LOOK) return 1;
    if (node->kind == TKI_EMPTY) *may_be_empty = 1;
    if (node->kind == TKI_REPEAT) {
        result = tki_begins_with(c, node->a, set, &a_empty);
        *may_be_empty = a_empty || node->least == 0;
    } else if (node->kind == TKI_CAT || node->kind == TKI_ALT) {
        result = tki_begins_with(c, node->a, set, &a_empty);
        if (node->kind == TKI_ALT || a_empty) result |= tki_begins_with(c, node->b, set, &b_empty);
        *may_be_empty = node->kind == TKI_ALT ? a_empty || b_empty : a_empty && b_empty;
    }
    return result;
}

/* Checks every possessive repeat; follows is what comes behind node, or -1. */
static int tki_check_possessive(tki_compiler *c, int index, const int *follows, int n_follows) {
    tki_node node = c->nodes[index];
    int stack[64];
    if (node.kind == TKI_CAT || node.kind == TKI_ALT) {
        if (n_follows == 63) { /* what is so far behind is forgotten */
            follows++;
            n_follows--;
        }
        if (n_follows > 0) memcpy(stack, follows, (size_t)n_follows * sizeof *stack);
        if (node.kind == TKI_CAT) stack[n_follows] = node.b;
        if (tki_check_possessive(c, node.a, stack, n_follows + (node.kind == TKI_CAT)) != 0)
            return -1;
        return tki_check_possessive(c, node.b, follows, n_follows);
    }
    if (node.kind != TKI_REPEAT) return 0;
    if (!node.possessive) return tki_check_possessive(c, node.a, follows, n_follows);
    int meets = c->nodes[node.a].kind != TKI_SET, empty = 1;
    for (int i = n_follows - 1; i >= 0 && empty && !meets; i--)
        meets = tki_begins_with(c, follows[i], &c->sets[c->nodes[node.a].a], &empty);
    return meets ? tki_regex_fail(c, "a possessive repeat that differs from a greedy one") : 0;
}

/* ---- the classes of characters ---- */

typedef struct tki_classes {
    uint64_t masks[TKI_MAX_CLASSES]; /* which sets a class belongs to */
    size_t places[TKI_MAX_SETS];     /* the range of each set that is the next to end */
    uint32_t until;                  /* no set changes before this character */
    int n, present;                  /* classes; that of the characters before until */
} tki_classes;

/* Goes on to the stretch of characters that begins at until. */
static int tki_next_stretch(tki_compiler *c, tki_classes *s) {
    uint32_t x = s->until;
    uint64_t mask = 0;
    s->until = 0x110000;
    for (int i = 0; i < c->n_sets; i++) {
        const tki_set *set = &c->sets[i];
        size_t *place = &s->places[i];
        while (*place < set->n && set->ranges[*place + 1] < x) *place += 2;
        if (*place >= set->n) continue;
        uint32_t first = set->ranges[*place], end = set->ranges[*place + 1] + 1;
        if (first <= x) mask |= (uint64_t)1 << i;
        uint32_t change = first <= x ? end : first;
        if (change < s->until) s->until = change;
    }
    for (s->present = 0; s->present < s->n && s->masks[s->present] != mask;) s->present++;
    if (s->present == TKI_MAX_CLASSES) return tki_regex_fail(c, "too many kinds of characters");
    if (s->present == s->n) s->masks[s->n++] = mask;
    return 0;
}

/* Finds the classes of characters, whose members are in the same sets, and the class of each. */
static int tki_classify(tki_compiler *c, tki_regex *regex, unsigned char *set_of_class) {
    tki_classes s;
    size_t n_pages = 0, pages_capacity = 0, found;
    unsigned char page[256];
    int uniform[TKI_MAX_CLASSES]; /* 1 + the page that is all of a class; 0: none yet */
    memset(&s, 0, sizeof s);
    memset(uniform, 0, sizeof uniform);
    regex->pages = (uint16_t *)tki_calloc(0x1100, sizeof *regex->pages);
    if (regex->pages == NULL) return tki_no_memory(c->error);
    for (uint32_t x = 0; x < 0x110000; x += 256) {
        int whole = s.until >= x + 256;
        if (whole && uniform[s.present]) {
            regex->pages[x >> 8] = (uint16_t)(uniform[s.present] - 1);
            continue;
        }
        for (uint32_t at = x, end; at < x + 256; at = end) {
            if (at == s.until && tki_next_stretch(c, &s) != 0) return -1;
            end = s.until < x + 256 ? s.until : x + 256;
            memset(page + (at - x), s.present, end - at);
        }
        if (x == 0) memcpy(regex->bytes, page, 128);
        for (found = 0; found < n_pages;) {
            if (memcmp(regex->page_classes + 256 * found, page, 256) == 0) break;
            found++;
        }
        regex->pages[x >> 8] = (uint16_t)found;
        if (whole) uniform[s.present] = (int)found + 1;
        if (found < n_pages) continue;
        void *memory = regex->page_classes;
        if (tki_reserve(&memory, &pages_capacity, n_pages, 1, 256) != 0)
            return tki_no_memory(c->error);
        regex->page_classes = (unsigned char *)memory;
        memcpy(regex->page_classes + 256 * n_pages++, page, 256);
    }
    regex->n_classes = s.n;
    for (int i = 0; i < s.n; i++)
        for (int j = 0; j < c->n_sets; j++)
            set_of_class[i * TKI_MAX_SETS + j] = (unsigned char)(s.masks[i] >> j & 1);
    return 0;
}

/* ---- the states ---- */

typedef struct tki_states {
    int *lists; /* places of all states, one list behind the other */
    size_t n_lists, lists_capacity;
    size_t *starts; /* of the list of each state, and the end of the last */
    size_t n, starts_capacity;
    int *slots; /* hash table: a state + 1, or 0 */
    uint16_t *table;
    size_t table_capacity;
    int *stack, *list; /* [steps + 1] each */
    unsigned char *seen;
    long work;
} tki_states;

/* The state with this list of places; -1 with the reason. */
static int tki_state(tki_compiler *c, tki_states *s, const int *list, size_t n) {
    size_t mask = 4 * (size_t)16384 - 1, at;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint32_t)list[i]) * 16777619u;
    for (at = (hash ^ hash >> 15) & mask; s->slots[at]; at = (at + 1) & mask) {
        size_t i = (size_t)s->slots[at] - 1, size = s->starts[i + 1] - s->starts[i];
        if (size == n && (n == 0 || !memcmp(s->lists + s->starts[i], list, n * sizeof *list)))
            return (int)i;
    }
    void *lists = s->lists, *starts = s->starts;
    if (s->n >= TKI_MAX_STATES || s->n_lists > (1 << 22)) return tki_regex_fail(c, "too large");
    if (tki_reserve(&lists, &s->lists_capacity, s->n_lists, n + 1, sizeof *s->lists) != 0)
        return tki_no_memory(c->error);
    s->lists = (int *)lists;
    if (tki_reserve(&starts, &s->starts_capacity, s->n, 2, sizeof *s->starts) != 0)
        return tki_no_memory(c->error);
    s->starts = (size_t *)starts;
    if (n > 0) memcpy(s->lists + s->n_lists, list, n * sizeof *list);
    s->starts[s->n] = s->n_lists;
    s->n_lists += n;
    s->starts[s->n + 1] = s->n_lists;
    s->slots[at] = (int)s->n + 1;
    return (int)s->n++;
}

/* The places that state leads to with a character of a class (sets says which sets it is in, NULL =
 * the end of the text), into s->list; *match = a match ends before it. */
static size_t tki_follow(const tki_compiler *c, tki_states *s, int state, const unsigned char *sets,
                         int *match) {
    size_t n = 0;
    memset(s->seen, 0, c->n_steps);
    *match = 0;
    for (size_t i = s->starts[state]; i < s->starts[state + 1] && !*match; i++) {
        int depth = 0;
        s->stack[depth++] = s->lists[i];
        while (depth > 0 && !*match) {
            int at = s->stack[--depth];
            s->work++;
            if (s->seen[at]) continue;
            s->seen[at] = 1;
            const tki_step *step = &c->program[at];
            if (step->kind == TKI_STEP_MATCH) *match = 1;
            else if (step->kind == TKI_STEP_JUMP) s->stack[depth++] = step->a;
            else if (step->kind == TKI_STEP_SPLIT) {
                s->stack[depth++] = step->b;
                s->stack[depth++] = step->a;
            } else if (step->kind == TKI_STEP_LOOK) {
                if (sets ? sets[step->a] : step->b) s->stack[depth++] = at + 1;
            } else if (sets && sets[step->a]) {
                s->list[n++] = at + 1;
            }
        }
    }
    return n;
}

static int tki_make_states(tki_compiler *c, tki_states *s, tki_regex *regex,
                           const unsigned char *set_of_class) {
    size_t columns = (size_t)regex->n_classes + 1;
    int start = 0;
    if (tki_state(c, s, &start, 0) < 0) return -1; /* state 0: no way on */
    regex->start = tki_state(c, s, &start, 1);
    if (regex->start < 0) return -1;
    for (size_t state = 0; state < s->n; state++) {
        void *table = s->table;
        if (tki_reserve(&table, &s->table_capacity, state * columns, columns, sizeof *s->table))
            return tki_no_memory(c->error);
        s->table = (uint16_t *)table;
        for (size_t k = 0; k < columns; k++) {
            int match;
            const unsigned char *sets = k + 1 < columns ? set_of_class + k * TKI_MAX_SETS : NULL;
            size_t n = tki_follow(c, s, (int)state, sets, &match);
            int next = tki_state(c, s, s->list, n);
            if (next < 0) return -1;
            s->table[state * columns + k] = (uint16_t)(next << 1 | match);
            s->work += (long)n + (long)c->n_steps / 16;
            if (s->work > TKI_MAX_WORK) return tki_regex_fail(c, "too large");
        }
    }
    return 0;
}

static void tki_regex_free(tki_regex *regex) {
    if (regex == NULL) return;
    TOKENIZER_FREE(regex->pages);
    TOKENIZER_FREE(regex->page_classes);
    TOKENIZER_FREE(regex->table);
    TOKENIZER_FREE(regex);
}

static int tki_compile(tki_compiler *c, tki_regex *regex) {
    unsigned char *set_of_class = (unsigned char *)tki_calloc(TKI_MAX_CLASSES, TKI_MAX_SETS);
    tki_states s;
    int root = tki_parse_choice(c), status = -1;
    memset(&s, 0, sizeof s);
    if (root >= 0 && tki_more(c)) root = tki_regex_fail(c, ") without (");
    if (root >= 0 && set_of_class == NULL) root = tki_no_memory(c->error);
    if (root >= 0 && tki_check_possessive(c, root, NULL, 0) == 0 && tki_generate(c, root, 0) == 0 &&
        tki_emit(c, TKI_STEP_MATCH, 0, 0) >= 0) {
        size_t n = c->n_steps + 1;
        s.slots = (int *)tki_calloc((size_t)4 * 16384, sizeof *s.slots);
        s.stack = (int *)tki_calloc(2 * n, sizeof *s.stack);
        s.list = (int *)tki_calloc(n, sizeof *s.list);
        s.seen = (unsigned char *)tki_calloc(n, 1);
        if (!s.slots || !s.stack || !s.list || !s.seen) status = tki_no_memory(c->error);
        else if (tki_classify(c, regex, set_of_class) == 0)
            status = tki_make_states(c, &s, regex, set_of_class);
    }
    regex->table = s.table;
    TOKENIZER_FREE(set_of_class);
    TOKENIZER_FREE(s.lists);
    TOKENIZER_FREE(s.starts);
    TOKENIZER_FREE(s.slots);
    TOKENIZER_FREE(s.stack);
    TOKENIZER_FREE(s.list);
    TOKENIZER_FREE(s.seen);
    return status;
}

/* A regular expression made ready; NULL with the reason. */
static tki_regex *tki_regex_new(const char *text, size_t size, tokenizer_error *error) {
    tki_compiler *c = (tki_compiler *)tki_calloc(1, sizeof *c);
    tki_regex *regex = (tki_regex *)tki_calloc(1, sizeof *regex);
    int status = -1;
    if (c && regex) {
        c->text = text;
        c->size = size;
        c->error = error;
        status = tki_compile(c, regex);
        for (int i = 0; i < c->n_sets; i++) TOKENIZER_FREE(c->sets[i].ranges);
        TOKENIZER_FREE(c->nodes);
        TOKENIZER_FREE(c->program);
    } else {
        tki_no_memory(error);
    }
    TOKENIZER_FREE(c);
    if (status == 0) return regex;
    tki_regex_free(regex);
    return NULL;
}

/* The class of the character at text [n >= 1], and its size. */
static int tki_class(const tki_regex *regex, const char *text, size_t n, int *size) {
    unsigned char first = (unsigned char)text[0];
    if (first < 128 || regex->by_byte) {
        *size = 1;
        return regex->bytes[first];
    }
    uint32_t c = tki_character(text, n, size);
    return regex->page_classes[256 * (size_t)regex->pages[c >> 8] + (c & 255)];
}

/* Size of the match at text [n >= 1], 0 if there is none.  *next (if no match) is how many bytes
 * further one may begin: a run of one class that leads nowhere is skipped as a whole. */
static size_t tki_match(const tki_regex *regex, const char *text, size_t n, size_t *next) {
    size_t at = 0, found = 0, columns = (size_t)regex->n_classes + 1;
    size_t run = 0; /* as long as the class and the state do not change */
    int first_class = -1, first_state = -1, size = 0, in_run = 1;
    unsigned state = (unsigned)regex->start;
    while (state != 0) {
        int k = at < n ? tki_class(regex, text + at, n - at, &size) : regex->n_classes;
        unsigned entry = regex->table[state * columns + (size_t)k];
        if (entry & 1) found = at;
        state = entry >> 1;
        if (at >= n) break;
        if (first_class < 0) {
            first_class = k;
            first_state = (int)state;
            run = (size_t)size;
        } else if (in_run && k == first_class && state == (unsigned)first_state) {
            run = at + (size_t)size;
        } else {
            in_run = 0;
        }
        at += (size_t)size;
    }
    *next = run;
    return found;
}

/* ---- the tokenizer ---- */

enum { TKI_LSTRIP = 1, TKI_RSTRIP = 2, TKI_WHOLE_WORD = 4, TKI_NORMALIZED = 8, TKI_NAMED = 16 };
enum { TKI_LONGEST_NAME = 4096, TKI_CUT_BITS = 20, TKI_MAX_FIXED = 8 };

typedef struct tki_piece {
    const char *text; /* in the file's bytes, or kept in blocks */
    int size;
    unsigned char type, flags;
    double score;
} tki_piece;

/* Texts by their bytes, each node reached from its parent by one: a hash table of the edges. */
typedef struct tki_trie {
    uint32_t *edges; /* parent << 8 | byte; 0 = empty slot */
    int *children;
    int *tokens; /* [nodes]: that ends here, or -1 */
    size_t n_slots;
    int n_nodes;               /* the root is number 1 */
    unsigned char firsts[256]; /* does a text begin with this byte? */
} tki_trie;

typedef struct tki_rule { /* a merge */
    int left, right, token;
} tki_rule;

enum {
    TKI_FORM,        /* a Unicode normalisation form: option 1 = composed, 2 = compatible */
    TKI_PREPEND,     /* to in front of what is not empty */
    TKI_REPLACE,     /* from by to */
    TKI_REPLACE_RE,  /* what regex matches by to */
    TKI_STRIP,       /* white space: option 1 = in front, 2 = behind */
    TKI_METASPACE,   /* spaces by to; option: 0 = none in front, 1 = one always, 2 = at the start */
    TKI_FIRST_SPACE, /* a space in front of what has none */
    TKI_NMT,         /* SentencePiece's rules for control characters and spaces */
    TKI_MAP,         /* the map of characters as tokenizers uses it */
    TKI_SPM_SPACES   /* SentencePiece's normaliser */
};

typedef struct tki_change { /* of the text, before it is cut into words */
    int kind, option;
    const char *from, *to;
    size_t from_size, to_size;
    tki_regex *regex;
} tki_change;

enum { TKI_ISOLATED, TKI_REMOVED, TKI_MERGED_PREVIOUS, TKI_MERGED_NEXT, TKI_CONTIGUOUS };

typedef struct tki_cut { /* of the text into words */
    tki_regex *regex;
    int behavior, invert;
    const char *text; /* of the expression */
} tki_cut;

/* SentencePiece's map of characters: a double array of units, then texts ended by zero bytes. */
typedef struct tki_charsmap {
    const unsigned char *units;
    size_t n_units;
    const char *texts;
    size_t texts_size;
} tki_charsmap;

/* Spaces at the beginning of a text that decoding drops: of its first piece one, or of every piece
 * before which there is no text. */
enum { TKI_STRIP_ONE = 1, TKI_STRIP_ALL };

struct tokenizer {
    int kind, model, n, unk, bos, eos;
    int longest; /* size of the longest piece */
    tki_piece *pieces;
    int *slots; /* hash table: an id + 1, or 0 = empty */
    size_t n_slots;
    int byte_ids[256];        /* the token of each byte, or -1 */
    uint16_t byte_chars[256]; /* GPT-2's character for each byte */
    int16_t char_bytes[512];  /* and back, or -1 */
    int byte_level;           /* pieces are written in these characters */
    int byte_fallback, fuse_unk, ignore_merges;
    int meta;        /* U+2581 in pieces is a space */
    int strip_space; /* decoding drops the first space of a text: TKI_STRIP_* */
    int single;      /* unigram sums are kept in float, not double */
    int add_space, add_bos, add_eos, cuts_safe;
    int prefix[TKI_MAX_FIXED], suffix[TKI_MAX_FIXED], n_prefix, n_suffix; /* of TOKENIZER_AUTO */
    double unk_score, best_score;
    tki_rule *rules;
    int *rule_slots, n_rules;
    size_t n_rule_slots;
    tki_change changes[16], late[4]; /* of the whole text; of what is between named tokens */
    int n_changes, n_late;
    tki_cut cuts[12];
    int n_cuts;
    tki_trie raw, normal, words; /* named tokens in text, in changed text; pieces of a unigram */
    tki_charsmap charsmap;
    int remove_spaces, dummy_prefix; /* of TKI_SPM_SPACES */
    unsigned char *bits;             /* which neighbours stand inside a piece */
    const char *pre, *chat_template;
    tki_block *blocks;
    void *owned[3]; /* the files, if they are ours */
};

/* ---- pieces ---- */

/* The byte that a piece such as <0x0A> stands for, or -1 if it is none. */
static int tki_byte_value(const tki_piece *piece) {
    static const char digits[] = "0123456789ABCDEF";
    if (piece->size != 6 || memcmp(piece->text, "<0x", 3) != 0 || piece->text[5] != '>') return -1;
    const char *high = (const char *)memchr(digits, piece->text[3], 16);
    const char *low = (const char *)memchr(digits, piece->text[4], 16);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

/* The slot where text is, or the empty one where it belongs.  The hash is FNV-1a, stirred. */
static size_t tki_slot(const tokenizer *t, const char *text, size_t size) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    hash ^= hash >> 15;
    for (size_t at = hash & (t->n_slots - 1);; at = (at + 1) & (t->n_slots - 1)) {
        if (t->slots[at] == 0) return at;
        const tki_piece *piece = &t->pieces[t->slots[at] - 1];
        if ((size_t)piece->size == size && memcmp(piece->text, text, size) == 0) return at;
    }
}

static int tki_find(const tokenizer *t, const char *text, size_t size) {
    if (size == 0 || size > (size_t)t->longest) return -1;
    return t->slots[tki_slot(t, text, size)] - 1;
}

/* The token that text can become by merging: never one that text cannot name. */
static int tki_find_text(const tokenizer *t, const char *text, size_t size) {
    int token = tki_find(t, text, size);
    if (token < 0) return -1;
    int type = t->pieces[token].type;
    return type == TOKENIZER_CONTROL || type == TOKENIZER_UNKNOWN || type == TOKENIZER_BYTE ? -1
                                                                                            : token;
}

static int tki_index_pieces(tokenizer *t, tokenizer_error *error) {
    t->n_slots = 16;
    while (t->n_slots < 2 * (size_t)t->n) t->n_slots *= 2;
    t->slots = (int *)tki_calloc(t->n_slots, sizeof *t->slots);
    if (t->slots == NULL) return tki_no_memory(error);
    for (int id = 0; id < t->n; id++) {
        const tki_piece *piece = &t->pieces[id];
        if (piece->size > t->longest) t->longest = piece->size;
        if (piece->size == 0) continue;
        size_t at = tki_slot(t, piece->text, (size_t)piece->size);
        if (t->slots[at] == 0) /* of two equal pieces the first one counts */
            t->slots[at] = id + 1;
    }
    return 0;
}

/* GPT-2 writes bytes as characters that can be seen: Latin-1's as they are, the others from U+100
 * on. */
static void tki_set_up_bytes(tokenizer *t) {
    int other = 256;
    memset(t->char_bytes, -1, sizeof t->char_bytes);
    for (int b = 0; b < 256; b++) {
        int seen = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        t->byte_chars[b] = (uint16_t)(seen ? b : other++);
        t->char_bytes[t->byte_chars[b]] = (int16_t)b;
    }
}

/* In a unigram only its type makes a byte of a piece: "<0x0A>" may be text like any other. */
static void tki_find_bytes(tokenizer *t) {
    for (int b = 0; b < 256; b++) {
        char text[8];
        int size = t->byte_level ? tki_put_character(t->byte_chars[b], text)
                                 : snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        int id = t->byte_ids[b] = tki_find(t, text, (size_t)size);
        if (t->model == TOKENIZER_UNIGRAM && id >= 0 && !t->byte_level &&
            t->pieces[id].type != TOKENIZER_BYTE)
            t->byte_ids[b] = -1;
    }
}

/* ---- tries ---- */

static void tki_trie_free(tki_trie *trie) {
    TOKENIZER_FREE(trie->edges);
    TOKENIZER_FREE(trie->children);
    TOKENIZER_FREE(trie->tokens);
}

static size_t tki_edge_slot(const tki_trie *trie, uint32_t edge) {
    uint32_t hash = edge * 0x9E3779B1u;
    for (size_t at = (hash ^ hash >> 15) & (trie->n_slots - 1);;
         at = (at + 1) & (trie->n_slots - 1))
        if (trie->edges[at] == edge || trie->edges[at] == 0) return at;
}

/* The node that byte leads to from node, or 0. */
static int tki_child(const tki_trie *trie, int node, char byte) {
    return trie->children[tki_edge_slot(trie, (uint32_t)node << 8 | (unsigned char)byte)];
}

/* Room for texts of size bytes in all. */
static int tki_trie_new(tki_trie *trie, size_t size, tokenizer_error *error) {
    if (size > (1u << 24) - 4) return tki_fail(error, "the tokens have more than 16 MiB of text");
    trie->n_slots = 16;
    while (trie->n_slots < 2 * size + 2) trie->n_slots *= 2;
    trie->edges = (uint32_t *)tki_calloc(trie->n_slots, sizeof *trie->edges);
    trie->children = (int *)tki_calloc(trie->n_slots, sizeof *trie->children);
    trie->tokens = (int *)TOKENIZER_MALLOC((size + 2) * sizeof *trie->tokens);
    if (!trie->edges || !trie->children || !trie->tokens) return tki_no_memory(error);
    trie->n_nodes = 2;
    trie->tokens[0] = trie->tokens[1] = -1;
    return 0;
}

/* Of two equal texts the first counts. */
static void tki_trie_add(tki_trie *trie, const char *text, size_t size, int token) {
    int node = 1;
    if (size == 0) return;
    trie->firsts[(unsigned char)text[0]] = 1;
    for (size_t i = 0; i < size; i++) {
        uint32_t edge = (uint32_t)node << 8 | (unsigned char)text[i];
        size_t at = tki_edge_slot(trie, edge);
        if (trie->edges[at] == 0) {
            trie->edges[at] = edge;
            trie->children[at] = trie->n_nodes;
            trie->tokens[trie->n_nodes++] = -1;
        }
        node = trie->children[at];
    }
    if (trie->tokens[node] < 0) trie->tokens[node] = token;
}

/* A trie of the pieces that choose accepts. */
static int tki_trie_fill(tokenizer *t, tki_trie *trie,
                         int (*choose)(const tokenizer *t, const tki_piece *piece),
                         tokenizer_error *error) {
    size_t size = 0, n = 0;
    for (int i = 0; i < t->n; i++) {
        if (!choose(t, &t->pieces[i]) || t->pieces[i].size == 0) continue;
        if (t->pieces[i].size > TKI_LONGEST_NAME)
            return tki_fail(error, "token %d: a text of %d bytes", i, t->pieces[i].size);
        size += (size_t)t->pieces[i].size;
        n++;
    }
    if (n == 0) return 0;
    if (tki_trie_new(trie, size, error) != 0) return -1;
    for (int i = 0; i < t->n; i++)
        if (choose(t, &t->pieces[i]))
            tki_trie_add(trie, t->pieces[i].text, (size_t)t->pieces[i].size, i);
    return 0;
}

static int tki_is_named(const tokenizer *t, const tki_piece *piece) {
    (void)t;
    return (piece->flags & (TKI_NAMED | TKI_NORMALIZED)) == TKI_NAMED;
}

/* In a tokenizer.json bytes are found by their names, too. */
static int tki_is_in_unigram(const tokenizer *t, const tki_piece *piece) {
    return piece->type == TOKENIZER_NORMAL || piece->type == TOKENIZER_USER_DEFINED ||
           (piece->type == TOKENIZER_BYTE && t->kind == TOKENIZER_JSON);
}

static int tki_is_user_defined(const tokenizer *t, const tki_piece *piece) {
    (void)t;
    return piece->type == TOKENIZER_USER_DEFINED;
}

/* The longest text of the trie that text [n] begins with: its size, 0 = there is none.  Control
 * tokens only if they are wanted. */
static size_t tki_trie_longest(const tokenizer *t, const tki_trie *trie, const char *text, size_t n,
                               int control, int *token) {
    size_t found = 0;
    if (trie->edges == NULL || n == 0 || !trie->firsts[(unsigned char)text[0]]) return 0;
    for (size_t i = 0, node = 1; i < n; i++) {
        node = (size_t)tki_child(trie, (int)node, text[i]);
        if (node == 0) break;
        int id = trie->tokens[node];
        if (id < 0 || (t->pieces[id].type <= TOKENIZER_CONTROL &&
                       t->pieces[id].type != TOKENIZER_NORMAL && !control))
            continue;
        found = i + 1;
        *token = id;
    }
    return found;
}

/* ---- merges ---- */

static size_t tki_rule_slot(const tokenizer *t, int left, int right) {
    uint32_t hash = (uint32_t)left * 0x9E3779B1u ^ (uint32_t)right * 0x85EBCA6Bu;
    hash ^= hash >> 15;
    for (size_t at = hash & (t->n_rule_slots - 1);; at = (at + 1) & (t->n_rule_slots - 1)) {
        if (t->rule_slots[at] == 0) return at;
        const tki_rule *rule = &t->rules[t->rule_slots[at] - 1];
        if (rule->left == left && rule->right == right) return at;
    }
}

/* Room for n merges. */
static int tki_rules_new(tokenizer *t, size_t n, tokenizer_error *error) {
    if (n > (1u << 24)) return tki_fail(error, "%zu merges are too many", n);
    t->n_rule_slots = 16;
    while (t->n_rule_slots < 2 * n) t->n_rule_slots *= 2;
    t->rule_slots = (int *)tki_calloc(t->n_rule_slots, sizeof *t->rule_slots);
    t->rules = (tki_rule *)tki_calloc(n, sizeof *t->rules);
    return t->rules && t->rule_slots ? 0 : tki_no_memory(error);
}

/* A merge of two texts.  One of texts that are no tokens can never be done and is left out. */
static int tki_add_rule(tokenizer *t, const char *left, size_t left_size, const char *right,
                        size_t right_size, tki_buffer *scratch) {
    scratch->size = 0;
    tki_append(scratch, left, left_size);
    tki_append(scratch, right, right_size);
    if (scratch->failed) return -1;
    tki_rule rule;
    rule.left = tki_find(t, left, left_size);
    rule.right = tki_find(t, right, right_size);
    rule.token = tki_find(t, scratch->data, scratch->size);
    if (rule.left < 0 || rule.right < 0 || rule.token < 0) return 0;
    size_t at = tki_rule_slot(t, rule.left, rule.right);
    if (t->rule_slots[at] != 0) return 0;
    t->rules[t->n_rules++] = rule;
    t->rule_slots[at] = t->n_rules;
    return 0;
}

/* A merge as one text, two parts with a space between. */
static int tki_add_rule_text(tokenizer *t, const char *text, size_t size, size_t number,
                             tki_buffer *scratch, tokenizer_error *error) {
    const char *space = size > 1 ? (const char *)memchr(text + 1, ' ', size - 1) : NULL;
    if (space == NULL || space + 1 == text + size)
        return tki_fail(error, "merge %zu: not two texts with a space between", number);
    size_t left = (size_t)(space - text);
    if (tki_add_rule(t, text, left, space + 1, size - left - 1, scratch) != 0)
        return tki_no_memory(error);
    return 0;
}

/* ---- where a text may be cut without changing its tokens ---- */

static uint32_t tki_bit(char before, uint32_t after) {
    uint32_t hash = (unsigned char)before * 0x9E3779B1u + after * 0x85EBCA6Bu;
    return (hash ^ hash >> 13) * 0xC2B2AE35u >> (32 - TKI_CUT_BITS);
}

/* Notes every pair of a byte and a character that stands inside a piece.  Between two that do not,
 * nothing can merge. */
static int tki_note_neighbours(tokenizer *t, tokenizer_error *error) {
    t->bits = (unsigned char *)tki_calloc((size_t)1 << (TKI_CUT_BITS - 3), 1);
    if (t->bits == NULL) return tki_no_memory(error);
    for (int i = 0; i < t->n; i++) {
        const tki_piece *piece = &t->pieces[i];
        if (piece->type == TOKENIZER_BYTE) continue;
        for (int at = 0, size; at < piece->size; at += size) {
            uint32_t c = tki_character(piece->text + at, (size_t)(piece->size - at), &size);
            if (at == 0) continue;
            uint32_t bit = tki_bit(piece->text[at - 1], c);
            t->bits[bit >> 3] = (unsigned char)(t->bits[bit >> 3] | 1u << (bit & 7));
        }
    }
    return 0;
}

/* ---- changing text ---- */

/* What the character map makes of the longest (or shortest) beginning of text [n] that it has:
 * returns its size and sets *used; NULL if the map has nothing. */
static const char *tki_map(const tki_charsmap *map, const char *text, size_t n, int shortest,
                           size_t *used, size_t *size) {
    const char *result = NULL;
    if (map->n_units == 0) return NULL;
        /* Darts-clone's units: bits 0-7 a label, 8 a leaf follows, 9 a wide offset, 10-30 the offset,
     * 31 a leaf (whose other bits are its value) */
#define TKI_UNIT(i)                                                                                \
    ((uint32_t)map->units[4 * (i)] | (uint32_t)map->units[4 * (i) + 1] << 8 |                      \
     (uint32_t)map->units[4 * (i) + 2] << 16 | (uint32_t)map->units[4 * (i) + 3] << 24)
    size_t node = 0;
    uint32_t unit = TKI_UNIT(0);
    node ^= (size_t)(unit >> 10) << ((unit & 512) >> 6);
    for (size_t i = 0; i < n && !(result && shortest); i++) {
        unsigned char byte = (unsigned char)text[i];
        node ^= byte;
        if (byte == 0 || node >= map->n_units) break;
        unit = TKI_UNIT(node);
        if ((unit & 0x800000FFu) != byte) break;
        node ^= (size_t)(unit >> 10 & 0x1FFFFF) << ((unit & 512) >> 6);
        if (!(unit & 256)) continue;
        if (node >= map->n_units) break;
        uint32_t value = TKI_UNIT(node) & 0x7FFFFFFF;
        if (value >= map->texts_size) break;
        const char *end = (const char *)memchr(map->texts + value, 0, map->texts_size - value);
        if (end == NULL) break;
        result = map->texts + value;
        *size = (size_t)(end - result);
        *used = i + 1;
    }
#undef TKI_UNIT
    return result;
}

/* One character of text [n >= 1] as SentencePiece's normaliser sees it. */
static const char *tki_spm_next(const tokenizer *t, const char *text, size_t n, size_t *used,
                                size_t *size) {
    int token, character;
    *used = *size = tki_trie_longest(t, &t->normal, text, n, 0, &token);
    if (*used > 0) return text;
    const char *mapped = tki_map(&t->charsmap, text, n, 0, used, size);
    if (mapped) return mapped;
    tki_character(text, n, &character);
    *used = *size = (size_t)character;
    return text;
}

enum { TKI_JOIN_NONE, TKI_JOIN_NEVER, TKI_JOIN_LEFT, TKI_JOIN_RIGHT };

/* How a character joins its neighbours (Unicode Standard Annex 29, Grapheme_Cluster_Break): as its
 * general category says, with these exceptions. */
static int tki_joining(uint32_t c) {
    static const struct {
        uint32_t first, last;
        int kind;
    } exceptions[] = {{0x600, 0x605, TKI_JOIN_RIGHT},     {0x6DD, 0x6DD, TKI_JOIN_RIGHT},
                      {0x70F, 0x70F, TKI_JOIN_RIGHT},     {0x890, 0x891, TKI_JOIN_RIGHT},
                      {0x8E2, 0x8E2, TKI_JOIN_RIGHT},     {0xD4E, 0xD4E, TKI_JOIN_RIGHT},
                      {0xE33, 0xE33, TKI_JOIN_LEFT},      {0xEB3, 0xEB3, TKI_JOIN_LEFT},
                      {0x102B, 0x102C, TKI_JOIN_NONE},    {0x1038, 0x1038, TKI_JOIN_NONE},
                      {0x1062, 0x1064, TKI_JOIN_NONE},    {0x1067, 0x106D, TKI_JOIN_NONE},
                      {0x1083, 0x1083, TKI_JOIN_NONE},    {0x1087, 0x108C, TKI_JOIN_NONE},
                      {0x108F, 0x108F, TKI_JOIN_NONE},    {0x109A, 0x109C, TKI_JOIN_NONE},
                      {0x1A61, 0x1A61, TKI_JOIN_NONE},    {0x1A63, 0x1A64, TKI_JOIN_NONE},
                      {0x200C, 0x200D, TKI_JOIN_LEFT},    {0x2065, 0x2065, TKI_JOIN_NEVER},
                      {0xAA7B, 0xAA7B, TKI_JOIN_NONE},    {0xAA7D, 0xAA7D, TKI_JOIN_NONE},
                      {0xFF9E, 0xFF9F, TKI_JOIN_LEFT},    {0xFFF0, 0xFFF8, TKI_JOIN_NEVER},
                      {0x110BD, 0x110BD, TKI_JOIN_RIGHT}, {0x110CD, 0x110CD, TKI_JOIN_RIGHT},
                      {0x111C2, 0x111C3, TKI_JOIN_RIGHT}, {0x113D1, 0x113D1, TKI_JOIN_RIGHT},
                      {0x11720, 0x11721, TKI_JOIN_NONE},  {0x1193F, 0x1193F, TKI_JOIN_RIGHT},
                      {0x11941, 0x11941, TKI_JOIN_RIGHT}, {0x11A3A, 0x11A3A, TKI_JOIN_RIGHT},
                      {0x11A84, 0x11A89, TKI_JOIN_RIGHT}, {0x11D46, 0x11D46, TKI_JOIN_RIGHT},
                      {0x11F02, 0x11F02, TKI_JOIN_RIGHT}, {0x1F3FB, 0x1F3FF, TKI_JOIN_LEFT},
                      {0xE0020, 0xE007F, TKI_JOIN_LEFT}};
    if (c < 0x7F) return c < ' ' ? TKI_JOIN_NEVER : TKI_JOIN_NONE;
    for (size_t i = 0; i < TKI_COUNT(exceptions) && exceptions[i].first <= c; i++)
        if (c <= exceptions[i].last) return exceptions[i].kind;
    const char *name = tki_category(c);
    int control =
        !strcmp(name, "Cc") || !strcmp(name, "Cf") || !strcmp(name, "Zl") || !strcmp(name, "Zp");
    return control ? TKI_JOIN_NEVER : name[0] == 'M' ? TKI_JOIN_LEFT : TKI_JOIN_NONE;
}

/* The size of the grapheme cluster at the beginning of text [n >= 1].  Only those below 6 bytes
 * matter: sequences that are always longer (Hangul, flags, emoji) are not put together. */
static size_t tki_grapheme(const char *text, size_t n) {
    int size;
    uint32_t c = tki_character(text, n, &size), next;
    int before = tki_joining(c), kind;
    for (size_t end = (size_t)size; end < n; end += (size_t)size, c = next, before = kind) {
        next = tki_character(text + end, n - end, &size);
        kind = tki_joining(next);
        int joined = c == '\r' ? next == '\n'
                               : before != TKI_JOIN_NEVER && kind != TKI_JOIN_NEVER &&
                                     (kind == TKI_JOIN_LEFT || before == TKI_JOIN_RIGHT);
        if (!joined) return end;
    }
    return n;
}

/* The map as tokenizers applies it ("Precompiled"): to graphemes of less than 6 bytes, else to their
 * characters, either as a whole by the shortest beginning that the map has. */
static void tki_map_graphemes(const tki_charsmap *map, const char *text, size_t n,
                              tki_buffer *out) {
    size_t used, size;
    for (size_t at = 0, end; at < n; at = end) {
        end = at + tki_grapheme(text + at, n - at);
        const char *mapped =
            end - at < 6 ? tki_map(map, text + at, end - at, 1, &used, &size) : NULL;
        if (mapped) tki_append(out, mapped, size);
        for (int step; at < end && !mapped; at += (size_t)step) {
            tki_character(text + at, end - at, &step);
            const char *one = tki_map(map, text + at, (size_t)step, 1, &used, &size);
            tki_append(out, one ? one : text + at, one ? size : (size_t)step);
        }
    }
}

/* The rules of tokenizers' "Nmt": control characters go, white space and its like become spaces. */
static void tki_nmt(const char *text, size_t n, tki_buffer *out) {
    static const uint32_t spaces[] = {9,      10,     12,     13,     0x1680,
                                      0x200B, 0x200C, 0x200D, 0x200E, 0x200F,
                                      0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD};
    int size;
    for (size_t at = 0; at < n; at += (size_t)size) {
        uint32_t c = tki_character(text + at, n - at, &size);
        size_t i = 0;
        while (i < TKI_COUNT(spaces) && spaces[i] != c) i++;
        if (i < TKI_COUNT(spaces)) tki_append(out, " ", 1);
        else if (!((c >= 1 && c <= 8) || c == 11 || (c >= 14 && c <= 31) || c == 0x7F ||
                   c == 0x8F || c == 0x9F))
            tki_append(out, text + at, (size_t)size);
    }
}

static void tki_append_spaced(const tki_change *change, const char *text, size_t n,
                              tki_buffer *out) {
    for (size_t i = 0, j; i < n; i = j + 1) {
        for (j = i; j < n && text[j] != ' ';) j++;
        tki_append(out, text + i, j - i);
        if (j < n) tki_append(out, change->to, change->to_size);
    }
}

/* SentencePiece's normaliser: the map of characters, spaces that repeat, spaces made U+2581. */
static void tki_spm_spaces(const tokenizer *t, const tki_change *change, const char *text, size_t n,
                           int space, tki_buffer *out) {
    int after_space = t->remove_spaces;
    size_t used, size, begin = out->size, at = 0;
    for (; at < n && t->remove_spaces; at += used) {
        const char *next = tki_spm_next(t, text + at, n - at, &used, &size);
        if (size != 1 || next[0] != ' ') break;
    }
    if (at == n) return;
    if (space) tki_append(out, change->to, change->to_size);
    for (; at < n; at += used) {
        const char *next = tki_spm_next(t, text + at, n - at, &used, &size);
        for (; after_space && size > 0 && next[0] == ' '; size--) next++;
        if (size > 0) {
            tki_append_spaced(change, next, size, out);
            after_space = next[size - 1] == ' ' && t->remove_spaces;
        }
    }
    while (t->remove_spaces && out->size - begin >= change->to_size &&
           memcmp(out->data + out->size - change->to_size, change->to, change->to_size) == 0)
        out->size -= change->to_size;
}

static size_t tki_spaces_before(const char *text, size_t n) {
    size_t at = n;
    while (at > 0) { /* back over one character that is a space */
        int size;
        size_t first = at - 1;
        while (first > 0 && at - first < 4 && ((unsigned char)text[first] & 0xC0) == 0x80) first--;
        if (!tki_is_space(tki_character(text + first, at - first, &size)) ||
            first + (size_t)size != at)
            break;
        at = first;
    }
    return n - at;
}

static size_t tki_spaces_behind(const char *text, size_t n) {
    size_t at = 0;
    int size;
    while (at < n && tki_is_space(tki_character(text + at, n - at, &size))) at += (size_t)size;
    return at;
}

/* Replaces each match of a text or of a regular expression. */
static void tki_replace(const tki_change *change, const char *text, size_t n, tki_buffer *out) {
    size_t copied = 0, at = 0, next = 1;
    while (at < n) {
        size_t size = 0;
        if (change->kind == TKI_REPLACE_RE) {
            size = tki_match(change->regex, text + at, n - at, &next);
        } else {
            const char *found = (const char *)memchr(text + at, change->from[0], n - at);
            if (found == NULL) break;
            at = (size_t)(found - text);
            if (n - at >= change->from_size && !memcmp(found, change->from, change->from_size))
                size = change->from_size;
        }
        if (size == 0) {
            at += next;
            continue;
        }
        tki_append(out, text + copied, at - copied);
        tki_append(out, change->to, change->to_size);
        at += size;
        copied = at;
    }
    if (n > copied) tki_append(out, text + copied, n - copied);
}

/* start: text begins where the whole text does; space: one may be put in front. */
static void tki_change_text(const tokenizer *t, const tki_change *change, const char *text,
                            size_t n, int start, int space, tki_buffer *out) {
    int meta = 0;
    switch (change->kind) {
    case TKI_FORM: tki_normal_form(text, n, change->option & 1, change->option & 2, out); return;
    case TKI_NMT: tki_nmt(text, n, out); return;
    case TKI_MAP: tki_map_graphemes(&t->charsmap, text, n, out); return;
    case TKI_REPLACE:
    case TKI_REPLACE_RE: tki_replace(change, text, n, out); return;
    case TKI_PREPEND:
        if (space && n > 0) tki_append(out, change->to, change->to_size);
        break;
    case TKI_STRIP: {
        size_t before = change->option & 1 ? tki_spaces_behind(text, n) : 0;
        text += before;
        n -= before;
        n -= change->option & 2 ? tki_spaces_before(text, n) : 0;
        break;
    }
    case TKI_FIRST_SPACE:
        if (space && n > 0 && text[0] != ' ') tki_append(out, " ", 1);
        break;
    case TKI_METASPACE:
        meta = n > 0 && text[0] != ' ' &&
               (n < change->to_size || memcmp(text, change->to, change->to_size) != 0);
        if (meta && space && (change->option == 1 || (change->option == 2 && start)))
            tki_append(out, change->to, change->to_size);
        tki_append_spaced(change, text, n, out);
        return;
    default: tki_spm_spaces(t, change, text, n, space && t->dummy_prefix, out); return;
    }
    tki_append(out, text, n);
}

/* ---- encoding ---- */

/* A run of text that is one token, in a doubly linked list.  Merging two makes the left one longer
 * and takes the right one out (size 0). */
typedef struct tki_symbol {
    int start, size; /* bytes of the chunk */
    int previous, next;
    int token;
    int merges; /* 0 for bytes and <unk> */
} tki_symbol;

/* A merge that was possible when it was found.  It still is if the sizes add up: symbols only
 * grow or go. */
typedef struct tki_merge {
    float score;
    int left, right, size, token;
} tki_merge;

typedef struct tki_node_best { /* the best way to a place in the text */
    double score;
    int token, start;
} tki_node_best;

typedef struct tki_encoder {
    const tokenizer *t;
    int flags, after_unk, failed;
    int32_t *tokens;
    size_t count, capacity;
    const char *text; /* of the chunk */
    tki_symbol *symbols;
    tki_merge *heap; /* each i comes before 2i+1 and 2i+2 */
    tki_node_best *best;
    size_t symbols_capacity, heap_capacity, best_capacity;
    int n_symbols, n_heap;
    tki_buffer changed[2], late[2], scratch;
    int *halves; /* of unused pieces: size of the left part; [n] or NULL */
} tki_encoder;

static void tki_emit_token(tki_encoder *e, int token) {
    if (token == e->t->unk && token >= 0 && e->t->fuse_unk) {
        if (e->after_unk) return;
        e->after_unk = 1;
    } else {
        e->after_unk = 0;
    }
    if (token < 0) return; /* the file has no token for what it does not know */
    if (e->count < e->capacity) e->tokens[e->count] = token;
    e->count++;
}

/* The better score first, then the one further left: what a scan from the left would take. */
static int tki_before(const tki_merge *a, const tki_merge *b) {
    return a->score > b->score || (!(a->score < b->score) && a->left < b->left);
}

static void tki_push(tki_encoder *e, tki_merge merge) {
    int i = e->n_heap++;
    while (i > 0 && tki_before(&merge, &e->heap[(i - 1) / 2])) {
        e->heap[i] = e->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->heap[i] = merge;
}

static tki_merge tki_pop(tki_encoder *e) {
    tki_merge first = e->heap[0], last = e->heap[--e->n_heap];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child + 1 < e->n_heap && tki_before(&e->heap[child + 1], &e->heap[child])) child++;
        if (child >= e->n_heap || !tki_before(&e->heap[child], &last)) break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return first;
}

/* What an unused piece was made of is remembered: it will be taken apart again. */
static void tki_note_halves(tki_encoder *e, int token, int left_size) {
    if (e->t->pieces[token].type != TOKENIZER_UNUSED) return;
    if (e->halves == NULL) e->halves = (int *)tki_calloc((size_t)e->t->n, sizeof *e->halves);
    if (e->halves == NULL) e->failed = 1;
    else e->halves[token] = left_size;
}

/* Notes the merge of two neighbours if it makes a piece. */
static void tki_consider(tki_encoder *e, int left, int right) {
    const tokenizer *t = e->t;
    tki_merge merge;
    if (left < 0 || right < 0) return;
    const tki_symbol *a = &e->symbols[left], *b = &e->symbols[right];
    if (!a->merges || !b->merges) return;
    merge.left = left;
    merge.right = right;
    merge.size = a->size + b->size;
    if (t->model == TOKENIZER_BPE) {
        int rank = t->rule_slots[tki_rule_slot(t, a->token, b->token)] - 1;
        if (rank < 0) return;
        merge.score = -(float)rank;
        merge.token = t->rules[rank].token;
    } else {
        merge.token = tki_find_text(t, e->text + a->start, (size_t)merge.size);
        if (merge.token < 0) return;
        merge.score = (float)t->pieces[merge.token].score;
        tki_note_halves(e, merge.token, a->size);
    }
    tki_push(e, merge);
}

static void tki_add_symbol(tki_encoder *e, size_t start, size_t size, int token, int merges) {
    int i = e->n_symbols++;
    e->symbols[i].start = (int)start;
    e->symbols[i].size = (int)size;
    e->symbols[i].previous = i - 1;
    e->symbols[i].next = i + 1;
    e->symbols[i].token = token;
    e->symbols[i].merges = merges;
}

/* A character that is no token: its bytes if all have tokens (any that has, in SPM), else <unk>. */
static void tki_add_unknown(tki_encoder *e, size_t at, size_t size) {
    const tokenizer *t = e->t;
    int known = 0;
    for (size_t i = at; i < at + size && t->byte_fallback; i++)
        known += t->byte_ids[(unsigned char)e->text[i]] >= 0;
    if (known < (int)size && (t->model == TOKENIZER_BPE || known == 0)) {
        tki_add_symbol(e, at, size, t->unk, 0);
        return;
    }
    for (size_t i = at; i < at + size; i++) {
        int token = t->byte_ids[(unsigned char)e->text[i]];
        tki_add_symbol(e, i, 1, token >= 0 ? token : t->unk, t->model == TOKENIZER_BPE);
    }
}

/* One symbol per byte or per character. */
static void tki_split(tki_encoder *e, size_t n) {
    const tokenizer *t = e->t;
    for (size_t at = 0; at < n && t->byte_level; at++) {
        int token = t->byte_ids[(unsigned char)e->text[at]];
        tki_add_symbol(e, at, 1, token >= 0 ? token : t->unk, token >= 0);
    }
    for (size_t at = 0; at < n && !t->byte_level;) {
        int size, token = -1;
        size_t named = t->kind == TOKENIZER_SENTENCEPIECE
                           ? tki_trie_longest(t, &t->normal, e->text + at, n - at, 0, &token)
                           : 0;
        if (named > 0) {
            tki_add_symbol(e, at, named, token, 0);
            at += named;
            continue;
        }
        tki_character(e->text + at, n - at, &size);
        token = t->model == TOKENIZER_BPE ? tki_find(t, e->text + at, (size_t)size)
                                          : tki_find_text(t, e->text + at, (size_t)size);
        if (token >= 0) tki_add_symbol(e, at, (size_t)size, token, 1);
        else tki_add_unknown(e, at, (size_t)size);
        at += (size_t)size;
    }
    if (e->n_symbols > 0) e->symbols[e->n_symbols - 1].next = -1;
}

static void tki_merge_all(tki_encoder *e) {
    for (int i = 0; i + 1 < e->n_symbols; i++) tki_consider(e, i, i + 1);
    while (e->n_heap > 0) {
        tki_merge merge = tki_pop(e);
        tki_symbol *left = &e->symbols[merge.left], *right = &e->symbols[merge.right];
        if (left->size == 0 || right->size == 0 || left->size + right->size != merge.size)
            continue; /* one of them took part in an earlier merge */
        left->size = merge.size;
        left->token = merge.token;
        left->next = right->next;
        right->size = 0;
        if (left->next >= 0) e->symbols[left->next].previous = merge.left;
        tki_consider(e, left->previous, merge.left);
        tki_consider(e, merge.left, left->next);
    }
}

/* A symbol's token; an unused one is taken apart again, the left part first. */
static void tki_emit_symbol(tki_encoder *e, int token, int start, int size, int depth) {
    int half = e->halves && token >= 0 && e->t->pieces[token].type == TOKENIZER_UNUSED
                   ? e->halves[token]
                   : 0;
    if (half <= 0 || half >= size || depth > 64) {
        tki_emit_token(e, token);
        return;
    }
    int left = tki_find_text(e->t, e->text + start, (size_t)half);
    int right = tki_find_text(e->t, e->text + start + half, (size_t)(size - half));
    tki_emit_symbol(e, left >= 0 ? left : e->t->unk, start, half, depth + 1);
    tki_emit_symbol(e, right >= 0 ? right : e->t->unk, start + half, size - half, depth + 1);
}

/* Merges one chunk of text [n >= 1]. */
static void tki_chunk(tki_encoder *e, const char *text, size_t n) {
    void *symbols = e->symbols, *heap = e->heap;
    int failed = tki_reserve(&symbols, &e->symbols_capacity, 0, n + 1, sizeof *e->symbols);
    e->symbols = (tki_symbol *)symbols;
    /* a merge takes 1 and adds at most 2 */
    if (!failed) failed = tki_reserve(&heap, &e->heap_capacity, 0, 2 * n + 2, sizeof *e->heap);
    e->heap = (tki_merge *)heap;
    if (failed) {
        e->failed = 1;
        return;
    }
    e->text = text;
    e->n_symbols = e->n_heap = 0;
    tki_split(e, n);
    tki_merge_all(e);
    for (int i = e->n_symbols > 0 ? 0 : -1; i >= 0; i = e->symbols[i].next)
        tki_emit_symbol(e, e->symbols[i].token, e->symbols[i].start, e->symbols[i].size, 0);
}

/* Where the chunk that begins at text ends: at the first two neighbours that no piece has. */
static size_t tki_chunk_end(const tokenizer *t, const char *text, size_t n) {
    int size;
    tki_character(text, n, &size);
    for (size_t at = (size_t)size; at < n; at += (size_t)size) {
        uint32_t bit = tki_bit(text[at - 1], tki_character(text + at, n - at, &size));
        if (!(t->bits[bit >> 3] >> (bit & 7) & 1)) return at;
    }
    return n;
}

/* Takes a way to place end of the text if it is better than the best so far. */
static void tki_offer(tki_encoder *e, size_t end, double score, int token, size_t start) {
    tki_node_best *best = &e->best[end];
    if (e->t->single) score = (double)(float)score;
    if (best->start >= 0 && !(score > best->score)) return;
    best->score = score;
    best->token = token;
    best->start = (int)start;
}

/* A stretch of text that no piece covers. */
static void tki_emit_unknown(tki_encoder *e, const char *text, size_t n) {
    const tokenizer *t = e->t;
    int known = 0;
    for (size_t i = 0; i < n && t->byte_fallback; i++)
        known += t->byte_ids[(unsigned char)text[i]] >= 0;
    if (known < (int)n) {
        tki_emit_token(e, t->unk);
        return;
    }
    for (size_t i = 0; i < n; i++) tki_emit_token(e, t->byte_ids[(unsigned char)text[i]]);
}

/* The cut of a word into pieces with the best sum of scores (Viterbi). */
static void tki_unigram(tki_encoder *e, const char *text, size_t n) {
    const tokenizer *t = e->t;
    void *best = e->best;
    if (tki_reserve(&best, &e->best_capacity, 0, n + 1, sizeof *e->best) != 0) {
        e->failed = 1;
        return;
    }
    e->best = (tki_node_best *)best;
    for (size_t i = 0; i <= n; i++) e->best[i].start = -1;
    e->best[0].score = 0;
    e->best[0].token = -1;
    int size;
    size_t furthest = 0;
    for (size_t at = 0; at < n; at += (size_t)size) {
        /* where every way comes past, a sum that grew too large to be exact begins anew */
        if (t->single && furthest == at && e->best[at].score < -65536) e->best[at].score = 0;
        double so_far = e->best[at].score;
        int single = 0;
        tki_character(text + at, n - at, &size);
        for (size_t i = at, node = 1; i < n && t->words.edges; i++) {
            node = (size_t)tki_child(&t->words, (int)node, text[i]);
            if (node == 0) break;
            int token = t->words.tokens[node];
            if (token < 0) continue;
            const tki_piece *piece = &t->pieces[token];
            double score = piece->type == TOKENIZER_USER_DEFINED && t->single
                               ? (double)((float)piece->size * (float)t->best_score) - 0.1
                               : piece->score;
            tki_offer(e, i + 1, so_far + score, token, at);
            if (i + 1 > furthest) furthest = i + 1;
            single |= i + 1 == at + (size_t)size;
        }
        if (single) continue;
        tki_offer(e, at + (size_t)size, so_far + t->unk_score, -1, at);
        if (at + (size_t)size > furthest) furthest = at + (size_t)size;
    }
    /* the way back, its links turned round */
    size_t end = n, next = n;
    while (end > 0) {
        size_t start = (size_t)e->best[end].start;
        e->best[end].start = (int)next;
        next = end;
        end = start;
    }
    for (size_t at = 0, to = next, behind; at < n; at = to, to = behind) {
        behind = (size_t)e->best[to].start;
        if (e->best[to].token >= 0) tki_emit_token(e, e->best[to].token);
        else tki_emit_unknown(e, text + at, to - at);
        if (to == n) break;
    }
}

/* One word [n >= 1]. */
static void tki_word(tki_encoder *e, const char *text, size_t n) {
    const tokenizer *t = e->t;
    e->after_unk = 0;
    if (t->model == TOKENIZER_UNIGRAM) {
        tki_unigram(e, text, n);
        return;
    }
    if (t->ignore_merges && n <= (size_t)t->longest) {
        const char *whole = text;
        size_t size = n;
        if (t->byte_level) {
            e->scratch.size = 0;
            for (size_t i = 0; i < n; i++)
                tki_append_character(&e->scratch, t->byte_chars[(unsigned char)text[i]]);
            if (e->scratch.failed) return;
            whole = e->scratch.data;
            size = e->scratch.size;
        }
        int token = tki_find(t, whole, size);
        if (token >= 0) {
            tki_emit_token(e, token);
            return;
        }
    }
    for (size_t at = 0, end; at < n; at = end) {
        end = t->bits ? at + tki_chunk_end(t, text + at, n - at) : n;
        tki_chunk(e, text + at, end - at);
    }
}

/* ---- cutting text into words ---- */

static void tki_cut_text(tki_encoder *e, int step, const char *text, size_t n);

/* What a cut has found so far: stretches wait until it is known what they are merged with. */
typedef struct tki_waiting {
    size_t start, end;
    int match, any;
} tki_waiting;

/* Passes the stretch that waits on to the next cut and lets [start, end) wait. */
static void tki_let_wait(tki_encoder *e, int step, const char *text, tki_waiting *w, size_t start,
                         size_t end, int match) {
    if (w->any && w->end > w->start) tki_cut_text(e, step + 1, text + w->start, w->end - w->start);
    w->start = start;
    w->end = end;
    w->match = match;
    w->any = 1;
}

/* The next stretch of a text, a match or what is between two. */
static void tki_stretch(tki_encoder *e, int step, const char *text, tki_waiting *w, size_t start,
                        size_t end, int match) {
    int behavior = e->t->cuts[step].behavior, join = 0;
    if (start == end) return;
    if (e->t->cuts[step].invert) match = !match;
    if (behavior == TKI_REMOVED && match) return;
    if (w->any && behavior == TKI_CONTIGUOUS) join = match == w->match;
    if (w->any && behavior == TKI_MERGED_PREVIOUS) join = match && !w->match;
    if (w->any && behavior == TKI_MERGED_NEXT) join = !match && w->match;
    if (!join) {
        tki_let_wait(e, step, text, w, start, end, match);
        return;
    }
    w->end = end;
    w->match = match;
}

static void tki_cut_text(tki_encoder *e, int step, const char *text, size_t n) {
    const tokenizer *t = e->t;
    tki_waiting waiting = {0, 0, 0, 0};
    size_t at = 0, passed = 0, next;
    if (e->failed) return;
    if (step == t->n_cuts) {
        tki_word(e, text, n);
        return;
    }
    while (at < n) {
        size_t size = tki_match(t->cuts[step].regex, text + at, n - at, &next);
        if (size > 0) {
            tki_stretch(e, step, text, &waiting, passed, at, 0);
            tki_stretch(e, step, text, &waiting, at, at + size, 1);
            passed = at + size;
        }
        at += size > 0 ? size : next;
    }
    tki_stretch(e, step, text, &waiting, passed, n, 0);
    tki_let_wait(e, step, text, &waiting, n, n, 0);
}

/* Applies changes; *text and *n become what they make of it, in one of two buffers. */
static void tki_change_all(tki_encoder *e, const tki_change *changes, int n_changes,
                           tki_buffer *buffers, int start, int space, const char **text,
                           size_t *n) {
    for (int i = 0; i < n_changes; i++) {
        tki_buffer *out = &buffers[i & 1];
        out->size = 0;
        tki_change_text(e->t, &changes[i], *text, *n, start, space, out);
        if (out->failed) e->failed = 1;
        *text = out->data;
        *n = out->size;
    }
}

/* Text without named tokens, but for changes that come late. */
static void tki_plain_text(tki_encoder *e, const char *text, size_t n, int start, int space) {
    tki_change_all(e, e->t->late, e->t->n_late, e->late, start, space, &text, &n);
    if (n > 0 && !e->failed) tki_cut_text(e, 0, text, n);
}

/* Does the match [at, at + size) stand alone as a word? */
static int tki_stands_alone(const char *text, size_t n, size_t at, size_t size) {
    int unused;
    size_t before = at;
    while (before > 0 && at - before < 4) {
        before--;
        if (((unsigned char)text[before] & 0xC0) != 0x80) break;
    }
    if (at > 0 && tki_is_word(tki_character(text + before, at - before, &unused))) return 0;
    at += size;
    return at == n || !tki_is_word(tki_character(text + at, n - at, &unused));
}

typedef void (*tki_between)(tki_encoder *e, const char *text, size_t n, int start, int space);

/* Finds named tokens and passes what is between them on. */
static void tki_find_named(tki_encoder *e, const tki_trie *trie, const char *text, size_t n,
                           int start, int space, tki_between between) {
    const tokenizer *t = e->t;
    size_t passed = 0;
    int control = e->flags & TOKENIZER_SPECIAL, first = 1, token = -1;
    for (size_t at = 0; at < n && trie->edges && !e->failed;) {
        size_t size = tki_trie_longest(t, trie, text + at, n - at, control, &token);
        int flags = size > 0 ? t->pieces[token].flags : 0;
        if (size == 0 || (flags & TKI_WHOLE_WORD && !tki_stands_alone(text, n, at, size))) {
            at++;
            continue;
        }
        size_t end = at;
        if (flags & TKI_LSTRIP) end -= tki_spaces_before(text + passed, at - passed);
        if (end > passed)
            between(e, text + passed, end - passed, start && first, first ? space : 1);
        e->after_unk = 0;
        tki_emit_token(e, token);
        at += size;
        if (flags & TKI_RSTRIP) at += tki_spaces_behind(text + at, n - at);
        passed = at;
        first = 0;
    }
    if (passed < n) between(e, text + passed, n - passed, start && first, first ? space : 1);
}

/* Text between named tokens that are found as they stand. */
static void tki_raw_text(tki_encoder *e, const char *text, size_t n, int start, int space) {
    const tki_trie none = {NULL, NULL, NULL, 0, 0, {0}};
    const tki_trie *trie = e->t->kind == TOKENIZER_JSON ? &e->t->normal : &none;
    tki_change_all(e, e->t->changes, e->t->n_changes, e->changed, start, space, &text, &n);
    if (n > 0 && !e->failed) tki_find_named(e, trie, text, n, start, space, tki_plain_text);
}

static void tki_emit_fixed(tki_encoder *e, const int *tokens, int n, int automatic, int extra) {
    if (automatic)
        for (int i = 0; i < n; i++) tki_emit_token(e, tokens[i]);
    else if (extra >= 0) tki_emit_token(e, extra);
}

static void tki_encoder_free(tki_encoder *e) {
    TOKENIZER_FREE(e->symbols);
    TOKENIZER_FREE(e->heap);
    TOKENIZER_FREE(e->best);
    TOKENIZER_FREE(e->halves);
    TOKENIZER_FREE(e->scratch.data);
    for (int i = 0; i < 2; i++) {
        TOKENIZER_FREE(e->changed[i].data);
        TOKENIZER_FREE(e->late[i].data);
    }
}

/* How many symbols text can begin with: one if it is a token, else at most one per byte. */
static size_t tki_symbols(const tokenizer *t, size_t size, const char *text) {
    return size <= 1 || (text && tki_find(t, text, size) >= 0) ? 1 : size;
}

size_t tokenizer_encode_bound(const tokenizer *t, size_t length) {
    size_t growth = 1, front = 0, fixed = 2 * TKI_MAX_FIXED, longest = 0, run = 0;
    for (int i = 0; i < t->n_changes + t->n_late; i++) {
        const tki_change *change = i < t->n_changes ? &t->changes[i] : &t->late[i - t->n_changes];
        size_t symbols = tki_symbols(t, change->to_size, change->to), factor = 1;
        if (change->kind == TKI_FORM) factor = change->option & 2 ? 11 : 3;
        else if (change->kind != TKI_STRIP && change->kind != TKI_PREPEND &&
                 change->kind != TKI_FIRST_SPACE)
            factor = symbols;
        int mapped = change->kind == TKI_SPM_SPACES || change->kind == TKI_MAP;
        for (size_t j = 0; mapped && j < t->charsmap.texts_size; j++) {
            run = t->charsmap.texts[j] ? run + 1 : 0;
            if (run > longest) longest = run;
        }
        if (longest > 1) factor *= longest;
        front = front * factor + symbols;
        growth = growth > 65536 / factor ? 65536 : growth * factor;
    }
    fixed += front;
    if (t->raw.edges || t->normal.edges) growth += front; /* one in front of each part */
    return length > (SIZE_MAX / 8 - fixed) / growth ? SIZE_MAX / 8 : length * growth + fixed;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t length, int flags,
                     int32_t *tokens, size_t capacity, tokenizer_error *error) {
    tki_encoder e;
    memset(&e, 0, sizeof e);
    if (length > INT_MAX / 64) return tki_fail(error, "a text of %zu bytes is too long", length);
    e.t = t;
    e.flags = flags;
    e.tokens = tokens;
    e.capacity = capacity;
    tki_emit_fixed(&e, t->prefix, t->n_prefix, flags & TOKENIZER_AUTO,
                   flags & TOKENIZER_BOS ? t->bos : -1);
    if (length > 0)
        tki_find_named(&e, &t->raw, text, length, 1, !(flags & TOKENIZER_NO_SPACE), tki_raw_text);
    e.after_unk = 0;
    tki_emit_fixed(&e, t->suffix, t->n_suffix, flags & TOKENIZER_AUTO,
                   flags & TOKENIZER_EOS ? t->eos : -1);
    tki_encoder_free(&e);
    if (e.failed || e.scratch.failed)
        return tki_fail(error, "out of memory for a text of %zu bytes", length);
    if (e.count > capacity || e.count > INT_MAX)
        return tki_fail(error, "the text has %zu tokens, there is room for %zu", e.count, capacity);
    return (int)e.count;
}

/* ---- decoding ---- */

size_t tokenizer_decode_bound(const tokenizer *t) {
    return 3 * ((size_t)t->longest + 4); /* each byte may become U+FFFD, three bytes */
}

int tokenizer_decode_end(tokenizer_stream *stream, char *out) {
    int n = stream->n_held > 0 ? 3 : 0, special = stream->special;
    memcpy(out, "\xEF\xBF\xBD", (size_t)n); /* U+FFFD */
    memset(stream, 0, sizeof *stream);
    stream->special = special;
    return n;
}

/* Passes one byte through: writes the character that it completes, or U+FFFD for what cannot become
 * one (the Unicode Standard, section 3.9, "substitution of maximal subparts"). */
static int tki_decode_byte(tokenizer_stream *stream, char byte, char *out) {
    int written = 0;
    stream->held[stream->n_held++] = (unsigned char)byte;
    int size = tki_utf8(stream->held, (size_t)stream->n_held);
    if (size < 0) {
        memcpy(out, "\xEF\xBF\xBD", 3);
        written = 3;
        /* a byte that does not continue the character may begin the next one */
        stream->held[0] = (unsigned char)byte;
        stream->n_held = stream->n_held > 1 ? 1 : 0;
        size = stream->n_held ? tki_utf8(stream->held, 1) : 0;
        if (size < 0) {
            memcpy(out + written, "\xEF\xBF\xBD", 3);
            written += 3;
            stream->n_held = 0;
        }
    }
    if (size > 0) {
        memcpy(out + written, stream->held, (size_t)size);
        written += size;
        stream->n_held = 0;
    }
    return written;
}

/* The bytes that a piece's text at *at stands for, in bytes [4]; returns how many. */
static int tki_next_bytes(const tokenizer *t, const tki_piece *piece, int *at, char *bytes) {
    int size, literal = piece->flags & TKI_NAMED;
    const char *text = piece->text + *at;
    uint32_t c = tki_character(text, (size_t)(piece->size - *at), &size);
    *at += size;
    if (t->byte_level && !literal && c < 512 && t->char_bytes[c] >= 0) {
        bytes[0] = (char)t->char_bytes[c];
        return 1;
    }
    if (t->meta && c == 0x2581) {
        bytes[0] = ' ';
        return 1;
    }
    memcpy(bytes, text, (size_t)size);
    return size;
}

int tokenizer_bytes(const tokenizer *t, int token, char *out) {
    if (token < 0 || token >= t->n) return -1;
    const tki_piece *piece = &t->pieces[token];
    int byte = piece->type == TOKENIZER_BYTE ? tki_byte_value(piece) : -1, written = 0;
    if (piece->type == TOKENIZER_CONTROL) return 0;
    if (byte >= 0) return *out = (char)byte, 1;
    for (int at = 0; at < piece->size;) written += tki_next_bytes(t, piece, &at, out + written);
    return written;
}

int tokenizer_decode(const tokenizer *t, tokenizer_stream *stream, int token, char *out) {
    if (token < 0 || token >= t->n) return -1;
    const tki_piece *piece = &t->pieces[token];
    int written = 0, byte = piece->type == TOKENIZER_BYTE ? tki_byte_value(piece) : -1;
    if (piece->type == TOKENIZER_CONTROL && !stream->special) {
        if (token == t->bos && token != t->eos) stream->started = 0;
        return 0;
    }
    if (byte >= 0) written = tki_decode_byte(stream, (char)byte, out);
    for (int at = 0, first = 1; at < piece->size && byte < 0; first = 0) {
        char bytes[4];
        int n = tki_next_bytes(t, piece, &at, bytes);
        if (first && t->strip_space && !stream->started && bytes[0] == ' ') continue;
        for (int i = 0; i < n; i++) written += tki_decode_byte(stream, bytes[i], out + written);
    }
    if (t->strip_space == TKI_STRIP_ALL && !stream->started)
        stream->started = written > 0 || stream->n_held > 0;
    else stream->started = piece->type != TOKENIZER_CONTROL || token != t->bos;
    return written;
}

/* ---- what all readers share ---- */

/* A piece behind those there are. */
static int tki_add_piece(tokenizer *t, size_t *capacity, const char *text, size_t size,
                         double score, int type, tokenizer_error *error) {
    void *pieces = t->pieces;
    if (size > INT_MAX / 64) return tki_fail(error, "token %d: %zu bytes are too many", t->n, size);
    if (t->n >= 1 << 24) return tki_fail(error, "more than 16777216 tokens");
    if (tki_reserve(&pieces, capacity, (size_t)t->n, 1, sizeof *t->pieces) != 0)
        return tki_no_memory(error);
    t->pieces = (tki_piece *)pieces;
    tki_piece *piece = &t->pieces[t->n++];
    memset(piece, 0, sizeof *piece);
    piece->text = text;
    piece->size = (int)size;
    piece->score = score;
    piece->type = (unsigned char)type;
    return 0;
}

static int tki_add_change(tokenizer *t, int late, int kind, int option, const char *from,
                          const char *to, tokenizer_error *error) {
    int *n = late ? &t->n_late : &t->n_changes;
    if (*n == (late ? (int)TKI_COUNT(t->late) : (int)TKI_COUNT(t->changes)))
        return tki_fail(error, "normalizer: too many steps");
    tki_change *change = late ? &t->late[(*n)++] : &t->changes[(*n)++];
    change->kind = kind;
    change->option = option;
    change->from = from;
    change->to = to;
    change->from_size = from ? strlen(from) : 0;
    change->to_size = to ? strlen(to) : 0;
    return 0;
}

/* by_byte: the text is written in GPT-2's characters by then. */
static int tki_add_cut(tokenizer *t, int behavior, int invert, const char *text, size_t size,
                       int by_byte, tokenizer_error *error) {
    if (t->n_cuts == (int)TKI_COUNT(t->cuts))
        return tki_fail(error, "pre_tokenizer: too many steps");
    tki_cut *cut = &t->cuts[t->n_cuts];
    cut->regex = tki_regex_new(text, size, error);
    if (cut->regex == NULL) return -1;
    t->n_cuts++;
    for (int i = 0; i < 256 && by_byte; i++) {
        size_t c = t->byte_chars[i], page = cut->regex->pages[c >> 8];
        cut->regex->bytes[i] = cut->regex->page_classes[256 * page + (c & 255)];
    }
    cut->regex->by_byte = by_byte;
    cut->behavior = behavior;
    cut->invert = invert;
    cut->text = tki_keep(&t->blocks, text, size);
    return cut->text ? 0 : tki_no_memory(error);
}

static int tki_add_fixed(int *tokens, int *n, int token, tokenizer_error *error) {
    if (token < 0) return 0;
    if (*n == TKI_MAX_FIXED) return tki_fail(error, "post_processor: too many tokens");
    tokens[(*n)++] = token;
    return 0;
}

/* Puts token first (or last) in what TOKENIZER_AUTO adds, or takes it out. */
static int tki_set_fixed(int *tokens, int *n, int token, int wanted, int last,
                         tokenizer_error *error) {
    int kept = 0, there = 0;
    for (int i = 0; i < *n; i++) {
        there |= tokens[i] == token;
        if (wanted || tokens[i] != token) tokens[kept++] = tokens[i];
    }
    *n = kept;
    if (!wanted || there || token < 0) return 0;
    if (tki_add_fixed(tokens, n, token, error) != 0) return -1;
    for (int i = *n - 1; i > 0 && !last; i--) tokens[i] = tokens[i - 1];
    if (!last) tokens[0] = token;
    return 0;
}

/* The worst and best scores of a unigram, and what <unk> costs. */
static void tki_rate_unigram(tokenizer *t) {
    double worst = 0, best = 0;
    int any = 0;
    for (int i = 0; i < t->n; i++) {
        const tki_piece *piece = &t->pieces[i];
        if (t->single && piece->type != TOKENIZER_NORMAL) continue;
        if (!any || piece->score < worst) worst = piece->score;
        if (!any || piece->score > best) best = piece->score;
        any = 1;
    }
    t->best_score = best;
    t->unk_score = t->single ? (double)((float)worst - 10.0f) : worst - 10;
}

/* What can only be made when all pieces are known.  The index is there. */
static int tki_finish(tokenizer *t, tokenizer_error *error) {
    if (t->n < 1) return tki_fail(error, "there are no tokens");
    tki_find_bytes(t);
    if (t->model == TOKENIZER_UNIGRAM) {
        tki_rate_unigram(t);
        if (tki_trie_fill(t, &t->words, tki_is_in_unigram, error) != 0) return -1;
    }
    if (tki_trie_fill(t, &t->raw, tki_is_named, error) != 0) return -1;
    if (!t->byte_level && !t->ignore_merges && t->model != TOKENIZER_UNIGRAM)
        return tki_note_neighbours(t, error);
    return 0;
}

/* ---- how text is cut into words, by GGUF's names ---- */

#define TKI_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TKI_TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TKI_GPT2                                                                                   \
    "I's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TKI_LETTERS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define TKI_SIGNS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define TKI_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define TKI_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define TKI_CAMEL(end)                                                                             \
    "I[^\\r\\n\\p{L}\\p{N}]?" TKI_UPPER "*" TKI_LOWER "+" end "|[^\\r\\n\\p{L}\\p{N}]?" TKI_UPPER  \
    "+" TKI_LOWER "*" end
/* Signs, as the tokenizers library has them: those of ASCII, and Unicode 8.0's. */
/* clang-format off */
#define TKI_PUNCTUATION \
    "[!-/:-@\\[-`{-~\\x{166D}[\\p{P}&&[^" \
    "\\x{61D}\\x{9FD}\\x{A76}\\x{C77}\\x{C84}\\x{1B4E}-\\x{1B4F}" \
    "\\x{1B7D}-\\x{1B7F}\\x{2E43}-\\x{2E4F}\\x{2E52}-\\x{2E5D}\\x{10D6E}\\x{10EAD}" \
    "\\x{10F55}-\\x{10F59}\\x{10F86}-\\x{10F89}\\x{111C9}\\x{113D4}-\\x{113D5}" \
    "\\x{113D7}-\\x{113D8}\\x{1144B}-\\x{1144F}\\x{1145A}-\\x{1145B}\\x{1145D}" \
    "\\x{11660}-\\x{1166C}\\x{116B9}\\x{1183B}\\x{11944}-\\x{11946}\\x{119E2}" \
    "\\x{11A3F}-\\x{11A46}\\x{11A9A}-\\x{11A9C}\\x{11A9E}-\\x{11AA2}\\x{11B00}-\\x{11B09}" \
    "\\x{11BE1}\\x{11C41}-\\x{11C45}\\x{11C70}-\\x{11C71}\\x{11EF7}-\\x{11EF8}" \
    "\\x{11F43}-\\x{11F4F}\\x{11FFF}\\x{12FF1}-\\x{12FF2}\\x{16D6D}-\\x{16D6F}" \
    "\\x{16E97}-\\x{16E9A}\\x{16FE2}\\x{1E5FF}\\x{1E95E}-\\x{1E95F}" \
    "]]]"
/* clang-format on */
/* \w as the tokenizers library's own code has it, which differs a little from its expressions' */
#define TKI_WORD                                                                                   \
    "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-"        \
    "\\x{1F169}\\x{1F170}-\\x{1F189}\\x{200C}\\x{200D}]"
#define TKI_CJK_DEEPSEEK "[一-龥ࠀ-一가-퟿]+"
/* letters as DeepSeek's first tokenizers list them; some as bytes, since an editor that composes
 * characters would change them */
/* clang-format off */
#define TKI_LETTERS_DEEPSEEK \
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅ" \
    "Ὀ-Ὅὐ-ὗὙὛὝὟ-\xE1\xBD\xBDᾀ-ᾴᾶ-ᾼ\xE1\xBE\xBEῂ-ῄῆ-ῌῐ-\xE1\xBF\x93ῖ-\xE1\xBF\x9Bῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ" \
    "\xE2\x84\xA6ℨ\xE2\x84\xAA-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ" \
    "𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
/* clang-format on */

enum { TKI_WHOLE_WORDS = 1, TKI_BEGINS = 2, TKI_COMPOSED = 4 };

typedef struct tki_preset {
    const char *names;   /* between spaces; the first is the one given to others */
    int options;         /* whole words are looked up first; BOS by default; NFC */
    const char *cuts[7]; /* each with the first letter of its behavior in front */
} tki_preset;

static const tki_preset tki_presets[] = {
    {" gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jais "
     "trillion granite-docling jina-v1-en jina-v2-code roberta-bpe ",
     0,
     {TKI_GPT2}},
    {" mpt olmo ", TKI_COMPOSED, {TKI_GPT2}},
    {" llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
     TKI_WHOLE_WORDS | TKI_BEGINS,
     {"I" TKI_CASE TKI_LETTERS "|\\p{N}{1,3}" TKI_SIGNS TKI_TAIL}},
    {" dbrx smaug-bpe chatglm-bpe glm4 glm5 glm-4 ",
     0,
     {"I" TKI_CASE TKI_LETTERS "|\\p{N}{1,3}" TKI_SIGNS TKI_TAIL}},
    {" qwen2 deepseek-r1-qwen kormo f2llmv2 megrez ",
     TKI_COMPOSED,
     {"I" TKI_CASE TKI_LETTERS "|\\p{N}" TKI_SIGNS TKI_TAIL}},
    {" stablelm2 hunyuan solar-open grok-2 ",
     0,
     {"I" TKI_CASE TKI_LETTERS "|\\p{N}" TKI_SIGNS TKI_TAIL}},
    {" qwen35 ",
     0,
     {"I" TKI_CASE "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
      "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" TKI_TAIL}},
    {" starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 ",
     0,
     {"I\\p{N}", TKI_GPT2}},
    {" falcon ", 0, {"C" TKI_PUNCTUATION, TKI_GPT2, "I[0-9][0-9][0-9]"}},
    {" default ", 0, {"C" TKI_PUNCTUATION, TKI_GPT2, "C\\p{N}", "I[0-9][0-9][0-9]"}},
    {" deepseek-llm ",
     0,
     {"I[\\r\\n]", "I\\s?[" TKI_LETTERS_DEEPSEEK "]+", "I\\s?[!-/:-~！-／：-～‘-‟　-。]+", "I\\s+$",
      "I" TKI_CJK_DEEPSEEK, "I\\p{N}"}},
    {" deepseek-coder ",
     0,
     {"I[\\r\\n]", "I\\s?\\p{L}+", "I\\s?\\p{P}+", "I" TKI_CJK_DEEPSEEK, "I\\p{N}"}},
    {" deepseek-v3 hunyuan-dense joyai-llm ",
     0,
     {"I\\p{N}{1,3}", "I[一-龥぀-ゟ゠-ヿ]+",
      "I[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}"
      "\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" TKI_TAIL}},
    {" bloom poro-chat gpt3-finnish ", 0, {"I ?[^(\\s|[.,!?…。，、।۔،])]+"}},
    {" viking ", 0, {"I ?[^(\\s|[.,!?…。，、।۔،])]+", "I\\p{N}"}},
    {" tekken ",
     TKI_WHOLE_WORDS | TKI_BEGINS,
     {TKI_CAMEL("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TKI_TAIL}},
    {" gpt-4o llama4 kanana2 talkie minimax-m2 ",
     0,
     {TKI_CAMEL(TKI_CASE "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TKI_TAIL}},
    {" bailingmoe bailingmoe2 llada-moe ",
     0,
     {"I'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| "
      "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
      "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {" seed-coder ",
     0,
     {"I" TKI_CASE TKI_LETTERS "|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" TKI_TAIL}},
    {" exaone4 ", 0, {TKI_GPT2}},
    {" minicpm5 ",
     TKI_WHOLE_WORDS,
     {"I\\p{N}{1,3}", "I" TKI_CASE TKI_LETTERS "|\\p{N}+" TKI_SIGNS TKI_TAIL}},
    {" jais-2 ",
     0,
     {"I" TKI_CASE TKI_LETTERS "|\\p{N}{1,3}" TKI_SIGNS
      "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)"
      "|"
      "\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
};

static int tki_behavior(char letter) {
    static const char letters[] = "IRPNC";
    return (int)(strchr(letters, letter) - letters);
}

/* Sets up the cuts that GGUF calls name, which must be known. */
static int tki_use_preset(tokenizer *t, const char *name, size_t size, int *options,
                          tokenizer_error *error) {
    char key[64];
    int n = snprintf(key, sizeof key, " %.*s ", size > 60 ? 60 : (int)size, name);
    for (size_t i = 0; n > 2 && i < TKI_COUNT(tki_presets); i++) {
        const tki_preset *preset = &tki_presets[i];
        if (strstr(preset->names, key) == NULL) continue;
        *options = preset->options;
        for (int j = 0; j < 7 && preset->cuts[j]; j++)
            if (tki_add_cut(t, tki_behavior(preset->cuts[j][0]), 0, preset->cuts[j] + 1,
                            strlen(preset->cuts[j]) - 1, 0, error) != 0)
                return -1;
        t->pre = tki_keep(&t->blocks, name, size);
        return t->pre ? 0 : tki_no_memory(error);
    }
    return tki_fail(error, "tokenizer.ggml.pre: '%.*s' is not known here",
                    size > 60 ? 60 : (int)size, name);
}

/* The next character of an expression; \r and \n in it are the characters they stand for. */
static int tki_pattern_next(const char **p) {
    int c = (unsigned char)*(*p)++;
    if (c != '\\' || (**p != 'r' && **p != 'n')) return c;
    return *(*p)++ == 'r' ? '\r' : '\n';
}

static int tki_same_pattern(const char *a, const char *b) {
    int x, y;
    do {
        x = tki_pattern_next(&a);
        y = tki_pattern_next(&b);
    } while (x == y && x);
    return x == y;
}

/* The first name of the preset that cuts as t does. */
static int tki_recognise(tokenizer *t, tokenizer_error *error) {
    int composed = 0;
    for (int i = 0; i < t->n_changes; i++) composed |= t->changes[i].kind == TKI_FORM;
    for (size_t i = 0; i < TKI_COUNT(tki_presets); i++) {
        const tki_preset *preset = &tki_presets[i];
        int same =
            (preset->options & TKI_WHOLE_WORDS) == (t->ignore_merges ? TKI_WHOLE_WORDS : 0) &&
            !!(preset->options & TKI_COMPOSED) == composed;
        for (int j = 0; j <= t->n_cuts && same; j++) {
            const char *cut = j < 7 ? preset->cuts[j] : NULL;
            same = j == t->n_cuts
                       ? cut == NULL
                       : cut && tki_behavior(cut[0]) == t->cuts[j].behavior && !t->cuts[j].invert &&
                             tki_same_pattern(cut + 1, t->cuts[j].text);
        }
        if (!same) continue;
        const char *name = preset->names + 1;
        t->pre = tki_keep(&t->blocks, name, (size_t)(strchr(name, ' ') - name));
        return t->pre ? 0 : tki_no_memory(error);
    }
    return 0;
}

/* ---- llama2.c's file ---- */

static uint32_t tki_u32(const unsigned char *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t tki_u64(const unsigned char *p) {
    return tki_u32(p) | (uint64_t)tki_u32(p + 4) << 32;
}

static float tki_f32(const unsigned char *p) {
    uint32_t bits = tki_u32(p);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Is this neither infinite nor no number? */
static int tki_is_finite(double x) { return x - x == 0; }

/* One token at byte *at of data; *at moves behind it.  0, or -1 with the reason. */
static int tki_read_token(tokenizer *t, size_t *capacity, const unsigned char *data, size_t size,
                          size_t *at, tokenizer_error *error) {
    int id = t->n;
    if (size - *at < 8)
        return tki_fail(error, "token %d at byte %zu: the file ends inside it", id, *at);
    uint32_t longest = tki_u32(data), length = tki_u32(data + *at + 4);
    float score = tki_f32(data + *at);
    if (!tki_is_finite((double)score) && !(score < 0) && !(score > 0))
        return tki_fail(error, "token %d at byte %zu: its score is not a number", id, *at);
    if (length > longest || length > INT_MAX / 64)
        return tki_fail(error,
                        "token %d at byte %zu: %lu bytes long, but the longest is to have %lu", id,
                        *at, (unsigned long)length, (unsigned long)longest);
    if (length > size - *at - 8)
        return tki_fail(error, "token %d at byte %zu: %lu bytes long, but only %zu are left", id,
                        *at, (unsigned long)length, size - *at - 8);
    const char *text = (const char *)data + *at + 8;
    int type = id == 0 ? TOKENIZER_UNKNOWN : id < 3 ? TOKENIZER_CONTROL : TOKENIZER_NORMAL;
    if (tki_add_piece(t, capacity, text, length, (double)score, type, error) != 0) return -1;
    if (tki_byte_value(&t->pieces[id]) >= 0) t->pieces[id].type = TOKENIZER_BYTE;
    *at += 8 + length;
    return 0;
}

static int tki_read_llama2c(tokenizer *t, const unsigned char *data, size_t size, int vocab_size,
                            tokenizer_error *error) {
    size_t at = 4, capacity = 0;
    t->kind = TOKENIZER_LLAMA2C;
    t->model = TOKENIZER_SPM;
    t->unk = 0, t->bos = 1, t->eos = 2;
    t->byte_fallback = t->fuse_unk = t->strip_space = t->add_space = 1;
    while (at < size && (vocab_size == 0 || t->n < vocab_size))
        if (tki_read_token(t, &capacity, data, size, &at, error) != 0) return -1;
    if (t->n < 3 || t->n < vocab_size)
        return tki_fail(error, "the file has only %d tokens, %d are needed", t->n,
                        vocab_size > 3 ? vocab_size : 3);
    if (at < size)
        return tki_fail(error, "the file has more than %d tokens (%zu bytes are left)", t->n,
                        size - at);
    if (tki_add_change(t, 0, TKI_PREPEND, 0, NULL, " ", error) != 0 ||
        tki_add_fixed(t->prefix, &t->n_prefix, t->bos, error) != 0 ||
        tki_index_pieces(t, error) != 0)
        return -1;
    return tki_finish(t, error);
}

/* ---- SentencePiece's file: protocol buffers ---- */

typedef struct tki_field {
    int number, wire;
    uint64_t value;            /* of wire types 0, 1 and 5 */
    const unsigned char *data; /* of type 2 */
    size_t size;
} tki_field;

static int tki_varint(const unsigned char *data, size_t size, size_t *at, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && *at < size; shift += 7) {
        unsigned char byte = data[(*at)++];
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return 0;
    }
    return -1;
}

/* The field at *at, which moves behind it: 1, 0 at the end, -1 if it is malformed. */
static int tki_next_field(const unsigned char *data, size_t size, size_t *at, tki_field *field) {
    uint64_t key, length;
    if (*at >= size) return 0;
    if (tki_varint(data, size, at, &key) != 0 || key >> 3 == 0 || key >> 3 > INT_MAX) return -1;
    field->number = (int)(key >> 3);
    field->wire = (int)(key & 7);
    if (field->wire == 0) return tki_varint(data, size, at, &field->value) == 0 ? 1 : -1;
    if (field->wire == 2) {
        if (tki_varint(data, size, at, &length) != 0 || length > size - *at) return -1;
        field->data = data + *at;
        field->size = (size_t)length;
        *at += (size_t)length;
        return 1;
    }
    size_t bytes = field->wire == 1 ? 8 : field->wire == 5 ? 4 : 0;
    if (bytes == 0 || size - *at < bytes) return -1;
    field->value = bytes == 8 ? tki_u64(data + *at) : tki_u32(data + *at);
    *at += bytes;
    return 1;
}

static int tki_set_charsmap(tokenizer *t, const unsigned char *data, size_t size,
                            tokenizer_error *error) {
    if (size == 0) return 0;
    uint32_t units = size < 4 ? 0 : tki_u32(data);
    if (size < 4 || units > size - 4 || units % 4 != 0 || units == 0)
        return tki_fail(error, "precompiled_charsmap: %lu bytes of units in %zu bytes",
                        (unsigned long)units, size);
    t->charsmap.units = data + 4;
    t->charsmap.n_units = units / 4;
    t->charsmap.texts = (const char *)data + 4 + units;
    t->charsmap.texts_size = size - 4 - units;
    return 0;
}

static int tki_read_spm_piece(tokenizer *t, size_t *capacity, const tki_field *whole,
                              tokenizer_error *error) {
    tki_field field;
    size_t at = 0, size = 0;
    const char *text = "";
    double score = 0;
    uint64_t type = TOKENIZER_NORMAL;
    int status;
    while ((status = tki_next_field(whole->data, whole->size, &at, &field)) == 1) {
        if (field.number == 1 && field.wire == 2) {
            text = (const char *)field.data;
            size = field.size;
        } else if (field.number == 2 && field.wire == 5) {
            uint32_t bits = (uint32_t)field.value;
            float value;
            memcpy(&value, &bits, 4);
            score = (double)value;
        } else if (field.number == 3 && field.wire == 0) {
            type = field.value;
        }
    }
    if (status < 0) return tki_fail(error, "piece %d: malformed", t->n);
    if (type < 1 || type > 6)
        return tki_fail(error, "piece %d: type %lu", t->n, (unsigned long)type);
    if (!tki_is_finite(score)) return tki_fail(error, "piece %d: its score is not a number", t->n);
    return tki_add_piece(t, capacity, text, size, score, (int)type, error);
}

/* What the messages of a trainer and a normaliser say, by the numbers of their fields. */
typedef struct tki_spm_spec {
    uint64_t model, suffix, byte_fallback, unk, bos, eos; /* of the trainer */
    uint64_t prefix, remove, escape;                      /* of the normaliser */
} tki_spm_spec;

static int tki_read_spm_spec(tokenizer *t, tki_spm_spec *spec, const tki_field *whole, int trainer,
                             tokenizer_error *error) {
    struct {
        int trainer, number;
        uint64_t *value;
    } fields[] = {{1, 3, &spec->model},  {1, 24, &spec->suffix}, {1, 35, &spec->byte_fallback},
                  {1, 40, &spec->unk},   {1, 41, &spec->bos},    {1, 42, &spec->eos},
                  {0, 3, &spec->prefix}, {0, 4, &spec->remove},  {0, 5, &spec->escape}};
    tki_field field;
    size_t at = 0;
    int status;
    while ((status = tki_next_field(whole->data, whole->size, &at, &field)) == 1) {
        for (size_t i = 0; i < TKI_COUNT(fields); i++)
            if (fields[i].trainer == trainer && fields[i].number == field.number && field.wire == 0)
                *fields[i].value = field.value;
        if (!trainer && field.number == 2 && field.wire == 2 &&
            tki_set_charsmap(t, field.data, field.size, error) != 0)
            return -1;
    }
    return status < 0
               ? tki_fail(error, "%s: malformed", trainer ? "trainer_spec" : "normalizer_spec")
               : 0;
}

/* A token number of the trainer, which may be -1, as an id. */
static int tki_spm_id(const tokenizer *t, uint64_t value) {
    return value < (uint64_t)t->n ? (int)value : -1;
}

static int tki_read_spm(tokenizer *t, const unsigned char *data, size_t size,
                        tokenizer_error *error) {
    tki_spm_spec spec = {1, 0, 0, 0, 1, 2, 1, 1, 1};
    tki_field field;
    size_t at = 0, capacity = 0, before = 0;
    int status;
    t->kind = TOKENIZER_SENTENCEPIECE;
    for (; (status = tki_next_field(data, size, &at, &field)) == 1; before = at) {
        if (field.wire != 2) continue;
        if (field.number == 1 && tki_read_spm_piece(t, &capacity, &field, error) != 0) return -1;
        if ((field.number == 2 || field.number == 3) &&
            tki_read_spm_spec(t, &spec, &field, field.number == 2, error) != 0)
            return -1;
    }
    if (status < 0) return tki_fail(error, "malformed at byte %zu", before);
    if (spec.model != 1 && spec.model != 2)
        return tki_fail(error, "trainer_spec.model_type %lu: neither unigram nor BPE",
                        (unsigned long)spec.model);
    if (spec.suffix) return tki_fail(error, "trainer_spec.treat_whitespace_as_suffix");
    t->model = spec.model == 1 ? TOKENIZER_UNIGRAM : TOKENIZER_SPM;
    t->unk = tki_spm_id(t, spec.unk);
    t->bos = tki_spm_id(t, spec.bos);
    t->eos = tki_spm_id(t, spec.eos);
    t->byte_fallback = spec.byte_fallback != 0;
    t->fuse_unk = t->meta = t->single = 1;
    t->dummy_prefix = t->add_space = spec.prefix != 0;
    t->remove_spaces = spec.remove != 0;
    t->strip_space = spec.remove ? TKI_STRIP_ALL : spec.prefix ? TKI_STRIP_ONE : 0;
    for (int i = 0; i < t->n; i++)
        if (t->pieces[i].type == TOKENIZER_CONTROL) t->pieces[i].flags = TKI_NAMED;
    if (tki_add_change(t, 0, TKI_SPM_SPACES, 0, NULL, spec.escape ? "\xE2\x96\x81" : " ", error) ||
        tki_add_fixed(t->prefix, &t->n_prefix, t->bos, error) != 0 ||
        tki_index_pieces(t, error) != 0 ||
        tki_trie_fill(t, &t->normal, tki_is_user_defined, error) != 0)
        return -1;
    return tki_finish(t, error);
}

/* ---- GGUF ---- */

typedef struct tki_value { /* of a key; data NULL = there is no such key */
    int type, element;     /* element: of an array */
    uint64_t count;        /* bytes of a string, elements of an array */
    const unsigned char *data;
} tki_value;

enum { TKI_GGUF_BOOL = 7, TKI_GGUF_STRING = 8, TKI_GGUF_ARRAY = 9 };

/* The keys that are read. */
enum {
    TKI_MODEL,
    TKI_PRE,
    TKI_TOKENS,
    TKI_SCORES,
    TKI_TYPES,
    TKI_MERGES,
    TKI_BOS,
    TKI_EOS,
    TKI_UNK,
    TKI_ADD_BOS,
    TKI_ADD_EOS,
    TKI_ADD_SPACE,
    TKI_REMOVE,
    TKI_CHARSMAP,
    TKI_TEMPLATE,
    TKI_N_KEYS
};

typedef struct tki_gguf {
    const unsigned char *data;
    size_t size, at;
    int ended; /* what is wrong is only that the bytes end */
    tki_value keys[TKI_N_KEYS];
    tokenizer_error *error;
} tki_gguf;

static const char *const tki_key_names[TKI_N_KEYS] = {"ggml.model",
                                                      "ggml.pre",
                                                      "ggml.tokens",
                                                      "ggml.scores",
                                                      "ggml.token_type",
                                                      "ggml.merges",
                                                      "ggml.bos_token_id",
                                                      "ggml.eos_token_id",
                                                      "ggml.unknown_token_id",
                                                      "ggml.add_bos_token",
                                                      "ggml.add_eos_token",
                                                      "ggml.add_space_prefix",
                                                      "ggml.remove_extra_whitespaces",
                                                      "ggml.precompiled_charsmap",
                                                      "chat_template"};

/* Bytes of the next n, or NULL. */
static const unsigned char *tki_take(tki_gguf *g, uint64_t n) {
    if (n > g->size - g->at) {
        g->ended = 1;
        tki_fail(g->error, "GGUF: %llu bytes at byte %zu, but only %zu are left",
                 (unsigned long long)n, g->at, g->size - g->at);
        return NULL;
    }
    const unsigned char *data = g->data + g->at;
    g->at += (size_t)n;
    return data;
}

static int tki_take_u32(tki_gguf *g, uint32_t *value) {
    const unsigned char *p = tki_take(g, 4);
    *value = p ? tki_u32(p) : 0;
    return p ? 0 : -1;
}

static int tki_take_u64(tki_gguf *g, uint64_t *value) {
    const unsigned char *p = tki_take(g, 8);
    *value = p ? tki_u64(p) : 0;
    return p ? 0 : -1;
}

/* Reads over a value and notes where it is. */
static int tki_take_value(tki_gguf *g, uint32_t type, tki_value *value, int depth) {
    static const unsigned char sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    memset(value, 0, sizeof *value);
    value->type = (int)type;
    if (type == TKI_GGUF_STRING) {
        if (tki_take_u64(g, &value->count) != 0) return -1;
        value->data = tki_take(g, value->count);
        return value->data ? 0 : -1;
    }
    if (type == TKI_GGUF_ARRAY) {
        uint32_t element;
        tki_value unused;
        if (tki_take_u32(g, &element) != 0 || tki_take_u64(g, &value->count) != 0) return -1;
        if (element > 12 || depth > 8)
            return tki_fail(g->error, "GGUF: array of type %lu at byte %zu", (unsigned long)element,
                            g->at);
        value->element = (int)element;
        value->data = g->data + g->at;
        if (sizes[element]) {
            if (value->count > g->size / sizes[element])
                return tki_take(g, g->size + (uint64_t)1) ? 0 : -1;
            return tki_take(g, value->count * sizes[element]) ? 0 : -1;
        }
        for (uint64_t i = 0; i < value->count; i++)
            if (tki_take_value(g, element, &unused, depth + 1) != 0) return -1;
        return 0;
    }
    if (type > 12)
        return tki_fail(g->error, "GGUF: value of type %lu at byte %zu", (unsigned long)type,
                        g->at);
    value->data = tki_take(g, sizes[type]);
    return value->data ? 0 : -1;
}

/* Reads over the metadata and notes the tokenizer's keys. */
static int tki_scan_gguf(tki_gguf *g) {
    uint32_t version, type;
    uint64_t n_tensors, n_keys;
    if (tki_take(g, 4) == NULL || tki_take_u32(g, &version) != 0) return -1;
    if (version >= 0x01000000) return tki_fail(g->error, "GGUF: a big-endian file");
    if (version < 2 || version > 3)
        return tki_fail(g->error, "GGUF: version %lu", (unsigned long)version);
    if (tki_take_u64(g, &n_tensors) != 0 || tki_take_u64(g, &n_keys) != 0) return -1;
    for (uint64_t i = 0; i < n_keys; i++) {
        tki_value key, value;
        if (tki_take_value(g, TKI_GGUF_STRING, &key, 0) != 0 || tki_take_u32(g, &type) != 0 ||
            tki_take_value(g, type, &value, 0) != 0)
            return -1;
        for (int k = 0; k < TKI_N_KEYS; k++)
            if (key.count == 10 + strlen(tki_key_names[k]) && !memcmp(key.data, "tokenizer.", 10) &&
                !memcmp(key.data + 10, tki_key_names[k], (size_t)key.count - 10))
                g->keys[k] = value;
    }
    return 0;
}

/* A whole number or truth value; missing if the key is not there. */
static int tki_gguf_int(const tki_gguf *g, int key, int missing, int *value) {
    const tki_value *v = &g->keys[key];
    *value = missing;
    if (v->data == NULL) return 0;
    if (v->type == 0 || v->type == TKI_GGUF_BOOL) *value = v->data[0];
    else if (v->type == 4 || v->type == 5) *value = (int)(tki_u32(v->data) & 0x7FFFFFFF);
    else if (v->type == 2 || v->type == 3) *value = v->data[0] | v->data[1] << 8;
    else if ((v->type == 10 || v->type == 11) && tki_u64(v->data) <= INT_MAX)
        *value = (int)tki_u64(v->data);
    else return tki_fail(g->error, "tokenizer.%s is no whole number", tki_key_names[key]);
    return 0;
}

/* A token by its number, -1 if the key is missing or the number is none of a token. */
static int tki_gguf_token(const tki_gguf *g, const tokenizer *t, int key, int missing, int *value) {
    if (tki_gguf_int(g, key, missing, value) != 0) return -1;
    if (*value >= t->n || *value < 0) *value = -1;
    return 0;
}

static int tki_gguf_is_text(const tki_gguf *g, int key, const char *text) {
    const tki_value *v = &g->keys[key];
    return v->data && v->type == TKI_GGUF_STRING && v->count == strlen(text) &&
           memcmp(v->data, text, strlen(text)) == 0;
}

/* The key as an array of elements of a type, count of them at least, or absent. */
static int tki_gguf_array(const tki_gguf *g, int key, int element, uint64_t count) {
    const tki_value *v = &g->keys[key];
    if (v->data == NULL) return 0;
    if (v->type == TKI_GGUF_ARRAY && v->element == element && v->count >= count) return 0;
    return tki_fail(g->error, "tokenizer.%s: not an array of %llu elements of type %d",
                    tki_key_names[key], (unsigned long long)count, element);
}

/* The string at p of an array that has been read over; p moves behind it. */
static const char *tki_gguf_string(const unsigned char **p, size_t *size) {
    *size = (size_t)tki_u64(*p);
    const char *text = (const char *)*p + 8;
    *p += 8 + *size;
    return text;
}

static int tki_gguf_pieces(tokenizer *t, const tki_gguf *g) {
    const tki_value *tokens = &g->keys[TKI_TOKENS];
    const unsigned char *p = tokens->data, *scores, *types;
    size_t capacity = 0;
    if (p == NULL) return tki_fail(g->error, "tokenizer.ggml.tokens: missing");
    if (tki_gguf_array(g, TKI_TOKENS, TKI_GGUF_STRING, 1) != 0 ||
        tki_gguf_array(g, TKI_SCORES, 6, tokens->count) != 0 ||
        tki_gguf_array(g, TKI_TYPES, 5, tokens->count) != 0)
        return -1;
    scores = g->keys[TKI_SCORES].data;
    types = g->keys[TKI_TYPES].data;
    for (uint64_t i = 0; i < tokens->count; i++) {
        size_t size;
        const char *text = tki_gguf_string(&p, &size);
        double score = scores ? (double)tki_f32(scores + 4 * i) : 0;
        uint32_t type = types ? tki_u32(types + 4 * i) : (uint32_t)TOKENIZER_NORMAL;
        if (!tki_is_finite(score))
            return tki_fail(g->error, "tokenizer.ggml.scores: number %d is not finite", t->n);
        if (type < 1 || type > 6) type = TOKENIZER_UNUSED;
        if (tki_add_piece(t, &capacity, text, size, score, (int)type, g->error) != 0) return -1;
        if (type == TOKENIZER_CONTROL || /* of a unigram the others are pieces like all */
            (t->model != TOKENIZER_UNIGRAM &&
             (type == TOKENIZER_USER_DEFINED || type == TOKENIZER_UNKNOWN)))
            t->pieces[t->n - 1].flags = TKI_NAMED;
    }
    return 0;
}

static int tki_gguf_merges(tokenizer *t, const tki_gguf *g) {
    const tki_value *merges = &g->keys[TKI_MERGES];
    const unsigned char *p = merges->data;
    tki_buffer scratch = {NULL, 0, 0, 0};
    int status = 0;
    if (p == NULL) return tki_fail(g->error, "tokenizer.ggml.merges: missing");
    if (tki_gguf_array(g, TKI_MERGES, TKI_GGUF_STRING, 0) != 0 ||
        tki_rules_new(t, (size_t)merges->count, g->error) != 0)
        return -1;
    for (uint64_t i = 0; i < merges->count && status == 0; i++) {
        size_t size;
        const char *text = tki_gguf_string(&p, &size);
        status = tki_add_rule_text(t, text, size, (size_t)i, &scratch, g->error);
    }
    TOKENIZER_FREE(scratch.data);
    return status;
}

/* GPT-2's alphabet, with or without the name of its cuts. */
static int tki_gguf_bpe(tokenizer *t, const tki_gguf *g, int *begins) {
    const tki_value *pre = &g->keys[TKI_PRE];
    int options = 0, named = pre->data && pre->type == TKI_GGUF_STRING;
    const char *name = named ? (const char *)pre->data : "default";
    if (tki_use_preset(t, name, named ? (size_t)pre->count : 7, &options, g->error) != 0) return -1;
    if ((options & TKI_COMPOSED) && tki_add_change(t, 0, TKI_FORM, 1, NULL, NULL, g->error) != 0)
        return -1;
    t->byte_level = 1;
    t->ignore_merges = options & TKI_WHOLE_WORDS;
    *begins = (options & TKI_BEGINS) != 0;
    return 0;
}

/* SentencePiece's BPE; t5: its unigram; gemma4: a list of merges of characters. */
static int tki_gguf_spm(tokenizer *t, const tki_gguf *g) {
    int space, remove;
    const tki_value *map = &g->keys[TKI_CHARSMAP];
    int spaces = t->model != TOKENIZER_BPE;
    if (tki_gguf_int(g, TKI_ADD_SPACE, spaces, &space) != 0 ||
        tki_gguf_int(g, TKI_REMOVE, 0, &remove) != 0)
        return -1;
    t->add_space = t->strip_space = t->dummy_prefix = space;
    t->remove_spaces = remove;
    t->byte_fallback = t->fuse_unk = t->meta = t->single = 1;
    if (t->model == TOKENIZER_UNIGRAM) {
        if (map->data && (map->type != TKI_GGUF_ARRAY || map->element > 1))
            return tki_fail(g->error, "tokenizer.ggml.precompiled_charsmap: not an array of bytes");
        if (map->data && tki_set_charsmap(t, map->data, (size_t)map->count, g->error) != 0)
            return -1;
        return tki_add_change(t, 0, TKI_SPM_SPACES, 0, NULL, "\xE2\x96\x81", g->error);
    }
    if (space && tki_add_change(t, 0, TKI_PREPEND, 0, NULL, " ", g->error) != 0) return -1;
    return tki_add_change(t, 0, TKI_REPLACE, 0, " ", "\xE2\x96\x81", g->error);
}

static int tki_read_gguf(tokenizer *t, const tki_gguf *g) {
    int spm = tki_gguf_is_text(g, TKI_MODEL, "llama"), begins = spm, ends = 0;
    int unigram = tki_gguf_is_text(g, TKI_MODEL, "t5");
    int gemma4 = tki_gguf_is_text(g, TKI_MODEL, "gemma4");
    int bpe = tki_gguf_is_text(g, TKI_MODEL, "gpt2") || gemma4;
    const tki_value *model = &g->keys[TKI_MODEL], *chat = &g->keys[TKI_TEMPLATE];
    t->kind = TOKENIZER_GGUF;
    if (!spm && !unigram && !bpe) {
        int size = model->data && model->type == TKI_GGUF_STRING && model->count < 60
                       ? (int)model->count
                       : 0;
        return tki_fail(g->error, "tokenizer.ggml.model: '%.*s' is none that is known here", size,
                        size ? (const char *)model->data : "");
    }
    t->model = spm ? TOKENIZER_SPM : unigram ? TOKENIZER_UNIGRAM : TOKENIZER_BPE;
    int done = bpe && !gemma4 ? tki_gguf_bpe(t, g, &begins) : tki_gguf_spm(t, g);
    if (done != 0 || tki_gguf_pieces(t, g) != 0 || tki_index_pieces(t, g->error) != 0 ||
        (bpe && tki_gguf_merges(t, g) != 0) ||
        (unigram && tki_trie_fill(t, &t->normal, tki_is_user_defined, g->error) != 0) ||
        tki_gguf_token(g, t, TKI_BOS, spm ? 1 : -1, &t->bos) != 0 ||
        tki_gguf_token(g, t, TKI_EOS,
                       spm       ? 2
                       : unigram ? 1
                                 : -1,
                       &t->eos) != 0 ||
        tki_gguf_token(g, t, TKI_UNK,
                       spm       ? 0
                       : unigram ? 2
                                 : -1,
                       &t->unk) != 0 ||
        tki_gguf_int(g, TKI_ADD_BOS, begins || gemma4, &begins) != 0 ||
        tki_gguf_int(g, TKI_ADD_EOS, unigram, &ends) != 0)
        return -1;
    if (bpe && !gemma4) t->unk = -1; /* every byte has a token: what has none is left out */
    if ((begins && tki_add_fixed(t->prefix, &t->n_prefix, t->bos, g->error) != 0) ||
        (ends && tki_add_fixed(t->suffix, &t->n_suffix, t->eos, g->error) != 0))
        return -1;
    if (chat->data && chat->type == TKI_GGUF_STRING) {
        t->chat_template = tki_keep(&t->blocks, (const char *)chat->data, (size_t)chat->count);
        if (t->chat_template == NULL) return tki_no_memory(g->error);
    }
    return tki_finish(t, g->error);
}

/* ---- JSON (RFC 8259), read where it stands ---- */

typedef struct tki_json {
    const char *name; /* of the file, for messages */
    const char *data;
    size_t size, at;
    tki_block **blocks; /* where strings with escapes are kept */
    int no_memory;      /* it ran out where only a missing string was seen */
    tokenizer_error *error;
} tki_json;

static int tki_json_fail(tki_json *j, const char *what) {
    return tki_fail(j->error, "%s at byte %zu: %s", j->name, j->at, what);
}

/* The next character that is no white space, '\0' at the end. */
static char tki_json_peek(tki_json *j) {
    while (j->at < j->size && memchr(" \t\n\r", j->data[j->at], 4)) j->at++;
    return j->at < j->size ? j->data[j->at] : '\0';
}

static int tki_json_hex(const char *text, uint32_t *value) {
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char d = text[i];
        int digit = d >= '0' && d <= '9'   ? d - '0'
                    : d >= 'a' && d <= 'f' ? d - 'a' + 10
                    : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        *value = *value << 4 | (uint32_t)digit;
    }
    return 0;
}

/* Writes what the escape at text (behind the backslash, up to end) means to *out, which moves;
 * returns its size, 0 if it is none. */
static size_t tki_json_escape(const char *text, const char *end, char **out) {
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *letter = text < end ? (const char *)memchr(letters, *text, 8) : NULL;
    uint32_t c, low;
    if (letter) {
        *(*out)++ = values[letter - letters];
        return 1;
    }
    if (end - text < 5 || *text != 'u' || tki_json_hex(text + 1, &c) != 0) return 0;
    size_t size = 5;
    if (c >= 0xD800 && c < 0xDC00 && end - text >= 11 && text[5] == '\\' && text[6] == 'u' &&
        tki_json_hex(text + 7, &low) == 0 && low >= 0xDC00 && low < 0xE000) {
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        size = 11;
    }
    *out += tki_put_character(c, *out);
    return size;
}

/* The string at j->at, which moves behind it.  text NULL: only read over. */
static int tki_json_string(tki_json *j, const char **text, size_t *size) {
    if (tki_json_peek(j) != '"') return tki_json_fail(j, "not a string");
    size_t begin = ++j->at, escapes = 0;
    for (; j->at < j->size && j->data[j->at] != '"'; j->at++) {
        if ((unsigned char)j->data[j->at] < 32) return tki_json_fail(j, "a control character");
        if (j->data[j->at] != '\\') continue;
        escapes++;
        j->at++;
    }
    if (j->at >= j->size) return tki_json_fail(j, "the file ends inside a string");
    size_t end = j->at++;
    if (text == NULL) return 0;
    *text = j->data + begin;
    *size = end - begin;
    if (escapes == 0) return 0;
    char *copy = tki_keep(j->blocks, *text, *size), *out = copy; /* what is meant is never longer */
    if (copy == NULL) {
        j->no_memory = 1;
        return tki_no_memory(j->error);
    }
    for (size_t i = begin; i < end;) {
        if (j->data[i] != '\\') {
            *out++ = j->data[i++];
            continue;
        }
        size_t n = tki_json_escape(j->data + i + 1, j->data + end, &out);
        if (n == 0) return tki_json_fail(j, "a string with an escape that is none");
        i += 1 + n;
    }
    *text = copy;
    *size = (size_t)(out - copy);
    return 0;
}

/* A number at j->at, which moves behind it. */
static int tki_json_number(tki_json *j, double *value) {
    char text[64], *end;
    size_t n = 0;
    tki_json_peek(j);
    while (n < 63 && j->at + n < j->size && strchr("+-0123456789.eE", j->data[j->at + n]) &&
           j->data[j->at + n])
        n++;
    memcpy(text, j->data + j->at, n);
    text[n] = '\0';
    *value = strtod(text, &end);
    if (n == 0 || *end || !tki_is_finite(*value)) return tki_json_fail(j, "not a number");
    j->at += n;
    return 0;
}

/* Is this word (true, false, null) at j->at?  It moves behind it. */
static int tki_json_word(tki_json *j, const char *word) {
    size_t n = strlen(word);
    if (j->size - j->at < n || memcmp(j->data + j->at, word, n) != 0) return 0;
    j->at += n;
    return 1;
}

/* Enters an object or array. */
static int tki_json_enter(tki_json *j, char open) {
    if (tki_json_peek(j) != open)
        return tki_json_fail(j, open == '{' ? "not an object" : "not an array");
    j->at++;
    return 0;
}

/* Moves to the next item of an array, or key of an object: 1, 0 behind the last, -1.  *first is 1
 * before the first. */
static int tki_json_next(tki_json *j, char close, int *first) {
    char c = tki_json_peek(j);
    if (c == close) {
        j->at++;
        return 0;
    }
    if (!*first) {
        if (c != ',') return tki_json_fail(j, "a comma is missing");
        j->at++;
        if (tki_json_peek(j) == close) return tki_json_fail(j, "a comma too many");
    }
    *first = 0;
    return 1;
}

/* The key of an object's member; j->at moves to its value. */
static int tki_json_key(tki_json *j, const char **key, size_t *size) {
    if (tki_json_string(j, key, size) != 0) return -1;
    if (tki_json_peek(j) != ':') return tki_json_fail(j, "a colon is missing");
    j->at++;
    return 0;
}

/* Reads over a value. */
static int tki_json_skip(tki_json *j, int depth) {
    char c = tki_json_peek(j), close = c == '{' ? '}' : ']';
    double number;
    int first = 1, more;
    if (depth > TKI_MAX_NESTING) return tki_json_fail(j, "nested too deeply");
    if (c == '"') return tki_json_string(j, NULL, NULL);
    if (c != '{' && c != '[') {
        if (tki_json_word(j, "true") || tki_json_word(j, "false") || tki_json_word(j, "null"))
            return 0;
        return tki_json_number(j, &number);
    }
    j->at++;
    while ((more = tki_json_next(j, close, &first)) == 1) {
        if (c == '{' && tki_json_key(j, NULL, NULL) != 0) return -1;
        if (tki_json_skip(j, depth + 1) != 0) return -1;
    }
    return more;
}

/* Where the values of the object at `at` are: found[i] for names[i], a list ended by NULL; 0 = it
 * has none, or null.  j->at moves behind the object. */
static int tki_json_members(tki_json *j, size_t at, const char *const *names, size_t *found) {
    int first = 1, more;
    j->at = at;
    for (int i = 0; names[i]; i++) found[i] = 0;
    if (tki_json_enter(j, '{') != 0) return -1;
    while ((more = tki_json_next(j, '}', &first)) == 1) {
        const char *key;
        size_t size;
        if (tki_json_key(j, &key, &size) != 0) return -1;
        int null = tki_json_peek(j) == 'n';
        for (int i = 0; names[i]; i++)
            if (strlen(names[i]) == size && memcmp(key, names[i], size) == 0)
                found[i] = null ? 0 : j->at;
        if (tki_json_skip(j, 1) != 0) return -1;
    }
    return more;
}

/* A truth value; missing if at is 0 or it is none. */
static int tki_json_bool(tki_json *j, size_t at, int missing) {
    if (at == 0) return missing;
    j->at = at;
    if (tki_json_peek(j) == 't') return 1;
    return j->at < j->size && j->data[j->at] == 'f' ? 0 : missing;
}

/* A string, zero-terminated and kept; NULL if at is 0, it is no string, or memory runs out. */
static const char *tki_json_text(tki_json *j, size_t at, size_t *size) {
    const char *text;
    tokenizer_error *error = j->error;
    *size = 0;
    if (at == 0) return NULL;
    j->at = at;
    j->error = NULL;
    int status = tki_json_string(j, &text, size);
    const char *kept = status == 0 ? tki_keep(j->blocks, text, *size) : NULL;
    j->error = error;
    j->no_memory |= status == 0 && kept == NULL;
    return kept;
}

static int tki_json_is(tki_json *j, size_t at, const char *what) {
    size_t size;
    const char *text = tki_json_text(j, at, &size);
    return text && strcmp(text, what) == 0;
}

/* What is not done: named with the field, e.g. "pre_tokenizer.type". */
static int tki_json_refuse(tki_json *j, size_t at, const char *field) {
    size_t size;
    const char *text = tki_json_text(j, at, &size);
    j->at = at;
    return tki_fail(j->error, "%s at byte %zu: %s%s%.60s%s is not known here", j->name, at, field,
                    text ? " '" : "", text ? text : "", text ? "'" : "");
}

/* The members of each object in the array at `at` are passed on. */
typedef int (*tki_json_visit)(tokenizer *t, tki_json *j, size_t at, int depth);

static int tki_json_each(tokenizer *t, tki_json *j, size_t at, int depth, tki_json_visit visit) {
    int first = 1, more;
    if (at == 0) return 0;
    j->at = at;
    if (depth > 16) return tki_json_fail(j, "nested too deeply");
    if (tki_json_enter(j, '[') != 0) return -1;
    while ((more = tki_json_next(j, ']', &first)) == 1) {
        size_t item = (tki_json_peek(j), j->at);
        if (visit(t, j, item, depth + 1) != 0) return -1;
        j->at = item;
        if (tki_json_skip(j, 0) != 0) return -1;
    }
    return more;
}

/* ---- tokenizer.json: the vocabulary ---- */

/* Makes room for token id, those before it too. */
static int tki_need_piece(tokenizer *t, tki_json *j, size_t *capacity, double id) {
    /* a number takes some bytes of the file; a few more than there can be are harmless */
    if (!(id >= 0) || id > (double)(j->size / 3) || id != (double)(int)id)
        return tki_json_fail(j, "the number of a token is none");
    while (t->n <= (int)id)
        if (tki_add_piece(t, capacity, "", 0, 0, TOKENIZER_UNUSED, j->error) != 0) return -1;
    return 0;
}

static void tki_name_piece(tokenizer *t, int id, const char *text, size_t size, int type) {
    t->pieces[id].text = text;
    t->pieces[id].size = (int)size;
    t->pieces[id].type = (unsigned char)type;
}

/* {"text": id, ...} */
static int tki_json_vocab(tokenizer *t, tki_json *j, size_t at, size_t *capacity) {
    int first = 1, more;
    j->at = at;
    if (tki_json_enter(j, '{') != 0) return -1;
    while ((more = tki_json_next(j, '}', &first)) == 1) {
        const char *text;
        size_t size;
        double id;
        if (tki_json_key(j, &text, &size) != 0 || tki_json_number(j, &id) != 0 ||
            tki_need_piece(t, j, capacity, id) != 0)
            return -1;
        if (size > INT_MAX / 64) return tki_json_fail(j, "a token is too long");
        tki_name_piece(t, (int)id, text, size, TOKENIZER_NORMAL);
    }
    return more;
}

/* [["text", score], ...] */
static int tki_json_scores(tokenizer *t, tki_json *j, size_t at, size_t *capacity) {
    int first = 1, more;
    j->at = at;
    if (tki_json_enter(j, '[') != 0) return -1;
    while ((more = tki_json_next(j, ']', &first)) == 1) {
        const char *text;
        size_t size;
        double score;
        int inner = 1;
        if (tki_json_enter(j, '[') != 0 || tki_json_next(j, ']', &inner) != 1 ||
            tki_json_string(j, &text, &size) != 0 || tki_json_next(j, ']', &inner) != 1 ||
            tki_json_number(j, &score) != 0)
            return -1;
        if (tki_json_next(j, ']', &inner) != 0) return tki_json_fail(j, "more than text and score");
        if (tki_add_piece(t, capacity, text, size, score, TOKENIZER_NORMAL, j->error) != 0)
            return -1;
    }
    return more;
}

/* ["left right", ...] or [["left", "right"], ...] */
static int tki_json_merges(tokenizer *t, tki_json *j, size_t at) {
    tki_buffer scratch = {NULL, 0, 0, 0};
    int first = 1, more, status = 0;
    size_t n = 0;
    j->at = at;
    if (tki_json_enter(j, '[') != 0) return -1;
    for (; (more = tki_json_next(j, ']', &first)) == 1; n++)
        if (tki_json_skip(j, 1) != 0) return -1;
    if (more < 0 || tki_rules_new(t, n, j->error) != 0) return -1;
    j->at = at + 1;
    first = 1;
    for (size_t i = 0; i < n && status == 0; i++) {
        const char *text[2] = {NULL, NULL};
        size_t size[2] = {0, 0};
        tki_json_next(j, ']', &first);
        if (tki_json_peek(j) == '"') {
            status = tki_json_string(j, &text[0], &size[0]);
            if (status == 0) status = tki_add_rule_text(t, text[0], size[0], i, &scratch, j->error);
            continue;
        }
        int inner = 1;
        status = tki_json_enter(j, '[');
        for (int k = 0; k < 2 && status == 0; k++)
            status = tki_json_next(j, ']', &inner) != 1 ? tki_json_fail(j, "not a merge of two")
                                                        : tki_json_string(j, &text[k], &size[k]);
        if (status == 0 && tki_json_next(j, ']', &inner) != 0)
            status = tki_json_fail(j, "not a merge of two");
        if (status == 0 && tki_add_rule(t, text[0], size[0], text[1], size[1], &scratch) != 0)
            status = tki_no_memory(j->error);
    }
    TOKENIZER_FREE(scratch.data);
    return status;
}

static int tki_json_added(tokenizer *t, tki_json *j, size_t at, int depth) {
    static const char *const names[] = {"id",     "content",     "special",    "lstrip",
                                        "rstrip", "single_word", "normalized", NULL};
    size_t f[7], size, capacity = (size_t)t->n;
    double id;
    (void)depth;
    if (tki_json_members(j, at, names, f) != 0) return -1;
    const char *text = tki_json_text(j, f[1], &size);
    j->at = f[0];
    if (f[0] == 0 || text == NULL) {
        j->at = at;
        return tki_json_fail(j, "an added token without id or content");
    }
    if (tki_json_number(j, &id) != 0 || tki_need_piece(t, j, &capacity, id) != 0) return -1;
    if (size > TKI_LONGEST_NAME) return tki_json_fail(j, "an added token is too long");
    int special = tki_json_bool(j, f[2], 0);
    tki_piece *piece = &t->pieces[(int)id];
    tki_name_piece(t, (int)id, text, size, special ? TOKENIZER_CONTROL : TOKENIZER_USER_DEFINED);
    piece->flags = (unsigned char)(TKI_NAMED | (tki_json_bool(j, f[3], 0) ? TKI_LSTRIP : 0) |
                                   (tki_json_bool(j, f[4], 0) ? TKI_RSTRIP : 0) |
                                   (tki_json_bool(j, f[5], 0) ? TKI_WHOLE_WORD : 0) |
                                   (tki_json_bool(j, f[6], !special) ? TKI_NORMALIZED : 0));
    return 0;
}

static int tki_json_model(tokenizer *t, tki_json *j, size_t at, size_t *merges, size_t *capacity) {
    static const char *const names[] = {"type",
                                        "vocab",
                                        "merges",
                                        "unk_token",
                                        "dropout",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "unk_id",
                                        NULL};
    size_t f[11], size;
    double number = 0;
    if (tki_json_members(j, at, names, f) != 0) return -1;
    int bpe = f[0] ? tki_json_is(j, f[0], "BPE") : f[2] != 0;
    if (!bpe && !tki_json_is(j, f[0], "Unigram")) return tki_json_refuse(j, f[0], "model.type");
    t->model = bpe ? TOKENIZER_BPE : TOKENIZER_UNIGRAM;
    *merges = bpe ? f[2] : 0;
    j->at = at;
    if (f[1] == 0 || (bpe && f[2] == 0)) return tki_json_fail(j, "no vocab or merges in the model");
    if (f[4]) {
        j->at = f[4];
        if (tki_json_number(j, &number) != 0) return -1;
        if (number > 0) return tki_json_refuse(j, f[4], "model.dropout");
    }
    for (int i = 5; i < 7; i++)
        if (tki_json_text(j, f[i], &size) != NULL && size > 0)
            return tki_json_refuse(j, f[i], names[i]);
    t->fuse_unk = tki_json_bool(j, f[7], !bpe);
    t->byte_fallback = tki_json_bool(j, f[8], 0);
    t->ignore_merges = tki_json_bool(j, f[9], 0);
    if ((bpe ? tki_json_vocab(t, j, f[1], capacity) : tki_json_scores(t, j, f[1], capacity)) != 0)
        return -1;
    for (int i = 0; i < t->n && t->byte_fallback; i++)
        if (tki_byte_value(&t->pieces[i]) >= 0) t->pieces[i].type = TOKENIZER_BYTE;
    t->unk = -1;
    const char *text = tki_json_text(j, f[3], &size);
    for (int i = 0; text && i < t->n; i++)
        if ((size_t)t->pieces[i].size == size && !memcmp(t->pieces[i].text, text, size)) t->unk = i;
    if (f[10] && !bpe) {
        j->at = f[10];
        if (tki_json_number(j, &number) != 0) return -1;
        if (number >= 0 && number < t->n) t->unk = (int)number;
    }
    if (t->unk >= 0) t->pieces[t->unk].type = TOKENIZER_UNKNOWN;
    return 0;
}

/* ---- tokenizer.json: what happens to text ---- */

/* {"String": text} or {"Regex": text}; *regex says which. */
static const char *tki_json_pattern(tki_json *j, size_t at, size_t *size, int *regex) {
    static const char *const names[] = {"String", "Regex", NULL};
    size_t f[2];
    *regex = 0;
    if (at == 0 || tki_json_members(j, at, names, f) != 0) return NULL;
    *regex = f[1] != 0;
    return tki_json_text(j, f[1] ? f[1] : f[0], size);
}

static int tki_json_replace(tokenizer *t, tki_json *j, size_t at, size_t pattern, size_t content) {
    size_t size, to_size;
    int regex;
    const char *from = tki_json_pattern(j, pattern, &size, &regex);
    const char *to = tki_json_text(j, content, &to_size);
    j->at = at;
    if (from == NULL || to == NULL || size == 0 || memchr(from, 0, size) || memchr(to, 0, to_size))
        return tki_json_fail(j, "Replace: no pattern or no content");
    if (tki_add_change(t, 0, regex ? TKI_REPLACE_RE : TKI_REPLACE, 0, from, to, j->error) != 0)
        return -1;
    if (!regex) return 0;
    tki_change *change = &t->changes[t->n_changes - 1];
    change->regex = tki_regex_new(from, size, j->error);
    return change->regex ? 0 : -1;
}

/* Text in base64 (RFC 4648) to bytes, in place; returns how many, or -1 if it is none. */
static long tki_base64(char *text, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t end = size, out = 0;
    uint32_t bits = 0;
    while (end > 0 && size - end < 2 && text[end - 1] == '=') end--;
    if (size % 4 != 0) return -1;
    for (size_t i = 0; i < end; i++) {
        const char *digit = (const char *)memchr(digits, text[i], 64);
        if (digit == NULL) return -1;
        bits = bits << 6 | (uint32_t)(digit - digits);
        if (i % 4 != 0) text[out++] = (char)(bits >> (6 - i % 4 * 2) & 0xFF);
    }
    return (long)out;
}

/* Precompiled: SentencePiece's map of characters, in base64. */
static int tki_json_map(tokenizer *t, tki_json *j, size_t at) {
    const char *text;
    size_t size;
    j->at = at;
    if (at == 0 || tki_json_string(j, &text, &size) != 0)
        return tki_json_fail(j, "Precompiled: no precompiled_charsmap");
    char *bytes = tki_keep(&t->blocks, text, size);
    if (bytes == NULL) return tki_no_memory(j->error);
    long n = tki_base64(bytes, size);
    j->at = at;
    if (n <= 0) return tki_json_fail(j, "precompiled_charsmap: not base64");
    if (t->charsmap.units) return tki_json_fail(j, "precompiled_charsmap: a second one");
    if (tki_set_charsmap(t, (const unsigned char *)bytes, (size_t)n, j->error) != 0) return -1;
    return tki_add_change(t, 0, TKI_MAP, 0, NULL, NULL, j->error);
}

static int tki_json_normalizer(tokenizer *t, tki_json *j, size_t at, int depth) {
    static const char *const names[] = {
        "type",        "normalizers",          "prepend", "pattern", "content", "strip_left",
        "strip_right", "precompiled_charsmap", NULL};
    static const struct {
        const char *name;
        int option;
    } forms[] = {{"NFC", 1}, {"NFD", 0}, {"NFKC", 3}, {"NFKD", 2}};
    size_t f[8], size;
    if (tki_json_members(j, at, names, f) != 0) return -1;
    if (tki_json_is(j, f[0], "Sequence"))
        return tki_json_each(t, j, f[1], depth, tki_json_normalizer);
    if (tki_json_is(j, f[0], "Nmt")) return tki_add_change(t, 0, TKI_NMT, 0, NULL, NULL, j->error);
    if (tki_json_is(j, f[0], "Precompiled")) return tki_json_map(t, j, f[7]);
    for (size_t i = 0; i < TKI_COUNT(forms); i++)
        if (tki_json_is(j, f[0], forms[i].name))
            return tki_add_change(t, 0, TKI_FORM, forms[i].option, NULL, NULL, j->error);
    if (tki_json_is(j, f[0], "Replace")) return tki_json_replace(t, j, at, f[3], f[4]);
    if (tki_json_is(j, f[0], "Strip"))
        return tki_add_change(t, 0, TKI_STRIP,
                              tki_json_bool(j, f[5], 1) | tki_json_bool(j, f[6], 1) << 1, NULL,
                              NULL, j->error);
    const char *text = tki_json_text(j, f[2], &size);
    if (tki_json_is(j, f[0], "Prepend") && text && !memchr(text, 0, size)) {
        t->add_space |= strcmp(text, "\xE2\x96\x81") == 0;
        return tki_add_change(t, 0, TKI_PREPEND, 0, NULL, text, j->error);
    }
    return tki_json_refuse(j, f[0] ? f[0] : at, "normalizer.type");
}

/* Metaspace: spaces become a character, text is cut in front of it. */
static int tki_json_metaspace(tokenizer *t, tki_json *j, size_t replacement, size_t scheme,
                              size_t add, size_t split) {
    size_t size;
    const char *to = tki_json_text(j, replacement, &size);
    int option = scheme == 0                        ? tki_json_bool(j, add, 1)
                 : tki_json_is(j, scheme, "always") ? 1
                 : tki_json_is(j, scheme, "first")  ? 2
                                                    : 0;
    if (to == NULL || strcmp(to, "\xE2\x96\x81") != 0)
        return tki_json_refuse(j, replacement, "pre_tokenizer.replacement");
    if (t->n_late > 0 || t->n_cuts > 0)
        return tki_json_refuse(j, replacement, "pre_tokenizer: Metaspace behind others");
    t->add_space |= option != 0;
    if (tki_add_change(t, 1, TKI_METASPACE, option, NULL, to, j->error) != 0) return -1;
    return tki_json_bool(j, split, 1) ? tki_add_cut(t, TKI_MERGED_NEXT, 0, to, size, 0, j->error)
                                      : 0;
}

/* Split: by a regular expression, or by a text, whose signs are escaped. */
static int tki_json_split(tokenizer *t, tki_json *j, size_t at, size_t pattern, int behavior,
                          int invert) {
    size_t size;
    int regex;
    tki_buffer escaped = {NULL, 0, 0, 0};
    const char *text = tki_json_pattern(j, pattern, &size, &regex);
    j->at = at;
    if (text == NULL || size == 0) return tki_json_fail(j, "Split: no pattern");
    for (size_t i = 0; i < size && !regex; i++) {
        int sign = (text[i] >= 33 && text[i] < '0') || (text[i] > '9' && text[i] < 'A') ||
                   (text[i] > 'Z' && text[i] < 'a') || (text[i] > 'z' && text[i] < 127);
        if (sign) tki_append(&escaped, "\\", 1);
        tki_append(&escaped, text + i, 1);
    }
    int status = escaped.failed ? tki_no_memory(j->error)
                 : regex ? tki_add_cut(t, behavior, invert, text, size, t->byte_level, j->error)
                         : tki_add_cut(t, behavior, invert, escaped.data, escaped.size,
                                       t->byte_level, j->error);
    TOKENIZER_FREE(escaped.data);
    return status;
}

static int tki_json_byte_level(tokenizer *t, tki_json *j, size_t add, size_t use_regex) {
    int by_byte = t->byte_level; /* it is not the first of its kind */
    t->byte_level = 1;
    if (tki_json_bool(j, add, 1)) {
        if (t->n_cuts > 0 || t->n_late > 0)
            return tki_json_refuse(j, add, "pre_tokenizer: add_prefix_space behind others");
        t->add_space = 1;
        if (tki_add_change(t, 1, TKI_FIRST_SPACE, 0, NULL, " ", j->error) != 0) return -1;
    }
    if (!tki_json_bool(j, use_regex, 1)) return 0;
    return tki_add_cut(t, TKI_ISOLATED, 0, &TKI_GPT2[1], sizeof TKI_GPT2 - 2, by_byte, j->error);
}

static int tki_json_pre_tokenizer(tokenizer *t, tki_json *j, size_t at, int depth) {
    static const char *const names[] = {
        "type",        "pretokenizers",    "pattern",   "behavior",
        "invert",      "add_prefix_space", "use_regex", "individual_digits",
        "replacement", "prepend_scheme",   "split",     NULL};
    static const char *const behaviors[] = {"Isolated", "Removed", "MergedWithPrevious",
                                            "MergedWithNext", "Contiguous"};
    static const struct {
        const char *name, *text;
        int behavior, invert;
    } simple[] = {{"Punctuation", TKI_PUNCTUATION, -1, 0},
                  {"Whitespace", TKI_WORD "+|[^\\s" TKI_WORD "]+", TKI_REMOVED, 1},
                  {"WhitespaceSplit", "\\s", TKI_REMOVED, 0}};
    size_t f[11];
    int behavior = 0;
    if (tki_json_members(j, at, names, f) != 0) return -1;
    while (f[3] && behavior < 5 && !tki_json_is(j, f[3], behaviors[behavior])) behavior++;
    if (behavior == 5) return tki_json_refuse(j, f[3], "pre_tokenizer.behavior");
    if (tki_json_is(j, f[0], "Sequence"))
        return tki_json_each(t, j, f[1], depth, tki_json_pre_tokenizer);
    if (tki_json_is(j, f[0], "Split"))
        return tki_json_split(t, j, at, f[2], behavior, tki_json_bool(j, f[4], 0));
    if (tki_json_is(j, f[0], "ByteLevel")) return tki_json_byte_level(t, j, f[5], f[6]);
    if (tki_json_is(j, f[0], "Metaspace")) return tki_json_metaspace(t, j, f[8], f[9], f[5], f[10]);
    if (tki_json_is(j, f[0], "Digits"))
        return tki_add_cut(t, tki_json_bool(j, f[7], 0) ? TKI_ISOLATED : TKI_CONTIGUOUS, 0,
                           "\\p{N}", 5, t->byte_level, j->error);
    for (size_t i = 0; i < TKI_COUNT(simple); i++)
        if (tki_json_is(j, f[0], simple[i].name))
            return tki_add_cut(t, simple[i].behavior < 0 ? behavior : simple[i].behavior,
                               simple[i].invert, simple[i].text, strlen(simple[i].text),
                               t->byte_level, j->error);
    return tki_json_refuse(j, f[0] ? f[0] : at, "pre_tokenizer.type");
}

static int tki_json_decoder(tokenizer *t, tki_json *j, size_t at, int depth) {
    static const char *const names[] = {"type",  "decoders", "pattern",        "content",
                                        "start", "stop",     "prepend_scheme", "add_prefix_space",
                                        NULL};
    size_t f[8], size, to_size;
    int regex;
    if (tki_json_members(j, at, names, f) != 0) return -1;
    if (tki_json_is(j, f[0], "Sequence")) return tki_json_each(t, j, f[1], depth, tki_json_decoder);
    if (tki_json_is(j, f[0], "ByteFallback") || tki_json_is(j, f[0], "Fuse")) return 0;
    if (tki_json_is(j, f[0], "ByteLevel")) {
        if (!t->byte_level) return tki_json_refuse(j, f[0], "decoder without pre_tokenizer");
        return 0;
    }
    if (tki_json_is(j, f[0], "Metaspace")) {
        t->meta = 1;
        t->strip_space = f[6] ? !tki_json_is(j, f[6], "never") : tki_json_bool(j, f[7], 1);
        return 0;
    }
    if (tki_json_is(j, f[0], "Strip") && tki_json_is(j, f[3], " ")) {
        t->strip_space = 1;
        return 0;
    }
    if (tki_json_is(j, f[0], "Replace")) {
        const char *from = tki_json_pattern(j, f[2], &size, &regex);
        const char *to = tki_json_text(j, f[3], &to_size);
        if (from && to && !regex && !strcmp(from, "\xE2\x96\x81") && !strcmp(to, " ")) {
            t->meta = 1;
            return 0;
        }
    }
    return tki_json_refuse(j, f[0] ? f[0] : at, "decoder.type");
}

/* What TemplateProcessing puts around a text: [{"SpecialToken": {"id": text}}, {"Sequence": ...}] */
static int tki_json_template(tokenizer *t, tki_json *j, size_t at) {
    static const char *const kinds[] = {"SpecialToken", "Sequence", NULL};
    static const char *const names[] = {"id", NULL};
    int first = 1, more, behind = 0;
    j->at = at;
    if (tki_json_enter(j, '[') != 0) return -1;
    while ((more = tki_json_next(j, ']', &first)) == 1) {
        size_t f[2], id[1], size;
        if (tki_json_members(j, j->at, kinds, f) != 0) return -1;
        size_t next = j->at;
        if (f[1]) behind = 1;
        if (f[0]) {
            if (tki_json_members(j, f[0], names, id) != 0) return -1;
            const char *text = tki_json_text(j, id[0], &size);
            int token = text ? tki_find(t, text, size) : -1;
            if (token < 0) return tki_json_refuse(j, f[0], "post_processor: a token");
            if (tki_add_fixed(behind ? t->suffix : t->prefix, behind ? &t->n_suffix : &t->n_prefix,
                              token, j->error) != 0)
                return -1;
        }
        j->at = next;
    }
    return more;
}

/* ["text", id] */
static int tki_json_pair(tki_json *j, size_t at, int n) {
    double id = -1;
    int first = 1;
    j->at = at;
    if (at == 0 || tki_json_enter(j, '[') != 0 || tki_json_next(j, ']', &first) != 1 ||
        tki_json_string(j, NULL, NULL) != 0 || tki_json_next(j, ']', &first) != 1 ||
        tki_json_number(j, &id) != 0)
        return -1;
    return id >= 0 && id < n ? (int)id : -1;
}

static int tki_json_post(tokenizer *t, tki_json *j, size_t at, int depth) {
    static const char *const names[] = {"type", "processors", "single", "sep", "cls", NULL};
    size_t f[5];
    if (tki_json_members(j, at, names, f) != 0) return -1;
    if (tki_json_is(j, f[0], "Sequence")) return tki_json_each(t, j, f[1], depth, tki_json_post);
    if (tki_json_is(j, f[0], "ByteLevel")) return 0;
    if (tki_json_is(j, f[0], "TemplateProcessing") && f[2]) return tki_json_template(t, j, f[2]);
    if (tki_json_is(j, f[0], "BertProcessing") || tki_json_is(j, f[0], "RobertaProcessing")) {
        int cls = tki_json_pair(j, f[4], t->n), sep = tki_json_pair(j, f[3], t->n);
        if (cls < 0 || sep < 0) return tki_json_refuse(j, f[0], "post_processor.cls or sep");
        return tki_add_fixed(t->prefix, &t->n_prefix, cls, j->error) != 0 ||
                       tki_add_fixed(t->suffix, &t->n_suffix, sep, j->error) != 0
                   ? -1
                   : 0;
    }
    return tki_json_refuse(j, f[0] ? f[0] : at, "post_processor.type");
}

/* Added tokens that are found in normalised text: their names are normalised too. */
static int tki_add_normalized(tokenizer *t, tokenizer_error *error) {
    size_t size = 0;
    int status = 0;
    for (int pass = 0; pass < 2 && status == 0; pass++) {
        if (pass == 1 && size == 0) return 0;
        if (pass == 1 && tki_trie_new(&t->normal, size, error) != 0) return -1;
        for (int i = 0; i < t->n && status == 0; i++) {
            tki_encoder e;
            const tki_piece *piece = &t->pieces[i];
            const char *text = piece->text;
            size_t n = (size_t)piece->size;
            if (!(piece->flags & TKI_NORMALIZED) || n == 0) continue;
            memset(&e, 0, sizeof e);
            e.t = t;
            tki_change_all(&e, t->changes, t->n_changes, e.changed, 1, 1, &text, &n);
            if (e.failed) status = tki_no_memory(error);
            else if (pass == 0) size += n;
            else tki_trie_add(&t->normal, text, n, i);
            tki_encoder_free(&e);
        }
    }
    return status;
}

static int tki_read_json(tokenizer *t, tki_json *j) {
    static const char *const names[] = {
        "model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", NULL};
    size_t f[6], merges = 0, capacity = 0;
    t->kind = TOKENIZER_JSON;
    if (tki_json_members(j, 0, names, f) != 0) return -1;
    if (f[0] == 0) return tki_fail(j->error, "%s: no model", j->name);
    if (tki_json_model(t, j, f[0], &merges, &capacity) != 0 ||
        tki_json_each(t, j, f[1], 0, tki_json_added) != 0 || tki_index_pieces(t, j->error) != 0 ||
        (merges && tki_json_merges(t, j, merges) != 0) ||
        (f[2] && tki_json_normalizer(t, j, f[2], 0) != 0) ||
        (f[3] && tki_json_pre_tokenizer(t, j, f[3], 0) != 0) ||
        (f[4] && tki_json_post(t, j, f[4], 0) != 0) ||
        (f[5] && tki_json_decoder(t, j, f[5], 0) != 0) || tki_add_normalized(t, j->error) != 0 ||
        (t->byte_level && tki_recognise(t, j->error) != 0))
        return -1;
    t->bos = t->n_prefix > 0 ? t->prefix[0] : -1;
    t->eos = t->n_suffix > 0 ? t->suffix[t->n_suffix - 1] : -1;
    return tki_finish(t, j->error);
}

/* ---- GPT-2's vocab.json and merges.txt ---- */

static int tki_read_gpt2(tokenizer *t, tki_json *j, const char *merges, size_t merges_size) {
    static const char end[] = "<|endoftext|>";
    tki_buffer scratch = {NULL, 0, 0, 0};
    size_t capacity = 0, lines = 1, number = 0;
    int options, status = 0;
    t->kind = TOKENIZER_GPT2;
    t->model = TOKENIZER_BPE;
    t->byte_level = 1;
    t->unk = -1;
    if (merges == NULL) return tki_fail(j->error, "a vocab.json needs its merges.txt");
    for (size_t i = 0; i < merges_size; i++) lines += merges[i] == '\n';
    if (tki_json_vocab(t, j, 0, &capacity) != 0 || tki_index_pieces(t, j->error) != 0 ||
        tki_rules_new(t, lines, j->error) != 0 ||
        tki_use_preset(t, "gpt-2", 5, &options, j->error) != 0)
        return -1;
    for (size_t at = 0, size; at < merges_size && status == 0; at += size + 1, number++) {
        const char *newline = (const char *)memchr(merges + at, '\n', merges_size - at);
        size = newline ? (size_t)(newline - merges) - at : merges_size - at;
        size_t n = size > 0 && merges[at + size - 1] == '\r' ? size - 1 : size;
        if (n == 0 || (number == 0 && merges[at] == '#')) continue;
        status = tki_add_rule_text(t, merges + at, n, number, &scratch, j->error);
    }
    TOKENIZER_FREE(scratch.data);
    if (status != 0) return -1;
    t->bos = t->eos = tki_find(t, end, sizeof end - 1);
    if (t->eos >= 0) {
        t->pieces[t->eos].type = TOKENIZER_CONTROL;
        t->pieces[t->eos].flags = TKI_NAMED;
    }
    return tki_finish(t, j->error);
}

/* ---- tokenizer_config.json ---- */

/* The token that a text, or the content of an object, names; missing if there is none. */
static int tki_config_token(tokenizer *t, tki_json *j, size_t at, int missing) {
    static const char *const names[] = {"content", NULL};
    size_t size, f[1];
    if (at == 0) return missing;
    j->at = at;
    if (tki_json_peek(j) == '{') {
        if (tki_json_members(j, at, names, f) != 0) return missing;
        at = f[0];
    }
    const char *text = tki_json_text(j, at, &size);
    int token = text ? tki_find(t, text, size) : -1;
    return token >= 0 ? token : missing;
}

/* The template, or the one called default of a list. */
static const char *tki_config_template(tki_json *j, size_t at) {
    static const char *const names[] = {"name", "template", NULL};
    size_t size, f[2];
    int first = 1;
    const char *found = NULL;
    if (at == 0) return NULL;
    j->at = at;
    if (tki_json_peek(j) != '[') return tki_json_text(j, at, &size);
    j->at++;
    while (tki_json_next(j, ']', &first) == 1) {
        if (tki_json_members(j, j->at, names, f) != 0) return found;
        size_t next = j->at;
        if (tki_json_is(j, f[0], "default")) found = tki_json_text(j, f[1], &size);
        j->at = next;
    }
    return found;
}

static int tki_read_config(tokenizer *t, tki_json *j) {
    static const char *const names[] = {"bos_token",     "eos_token",     "add_bos_token",
                                        "add_eos_token", "chat_template", NULL};
    size_t f[5];
    if (tki_json_members(j, 0, names, f) != 0) return -1;
    t->bos = tki_config_token(t, j, f[0], t->bos);
    t->eos = tki_config_token(t, j, f[1], t->eos);
    int adds = tki_json_bool(j, f[2], -1), ends = tki_json_bool(j, f[3], -1);
    if (adds >= 0 && tki_set_fixed(t->prefix, &t->n_prefix, t->bos, adds, 0, j->error) != 0)
        return -1;
    if (ends >= 0 && tki_set_fixed(t->suffix, &t->n_suffix, t->eos, ends, 1, j->error) != 0)
        return -1;
    t->chat_template = tki_config_template(j, f[4]);
    return 0;
}

/* ---- open and close ---- */

/* Names of tokens that end a text or a turn. */
static const char *const tki_ends[] = {
    "</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<|end|>",
    "<end_of_turn>", "<eos>", "<|eom_id|>", "<|endofturn|>", "<|end_of_role|>", "<EOT>", "<|eot|>",
    "<|return|>", "<turn|>", "<|END_OF_TURN_TOKEN|>",
    /* DeepSeek's, with fullwidth bars and U+2581 */
    "<\xEF\xBD\x9C\x65nd\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

static int tki_is_json(const unsigned char *data, size_t size) {
    size_t at = 0;
    while (at < size && memchr(" \t\r\n", data[at], 4)) at++;
    return at < size && data[at] == '{';
}

/* The status of a reading in which memory may have run out unseen. */
static int tki_json_done(const tki_json *j, int status) {
    return j->no_memory ? tki_no_memory(j->error) : status;
}

/* A vocab.json has no "model". */
static int tki_read_any_json(tokenizer *t, const tokenizer_files *files, tokenizer_error *error) {
    static const char *const names[] = {"model", NULL};
    size_t f[1];
    tki_json j = {"JSON", (const char *)files->data, files->size, 0, &t->blocks, 0, error};
    if (tki_json_members(&j, 0, names, f) != 0) return -1;
    if (tki_json_peek(&j) != '\0') return tki_json_fail(&j, "more than one value");
    if (f[0]) {
        j.at = f[0];
        if (tki_json_peek(&j) == '{') return tki_json_done(&j, tki_read_json(t, &j));
    }
    return tki_json_done(&j, tki_read_gpt2(t, &j, (const char *)files->merges, files->merges_size));
}

static int tki_read(tokenizer *t, const tokenizer_files *files, int vocab_size,
                    tokenizer_error *error) {
    const unsigned char *data = (const unsigned char *)files->data;
    int status;
    if (files->size >= 4 && memcmp(data, "GGUF", 4) == 0) {
        tki_gguf g;
        memset(&g, 0, sizeof g);
        g.data = data;
        g.size = files->size;
        g.error = error;
        return tki_scan_gguf(&g) != 0 ? -1 : tki_read_gguf(t, &g);
    }
    if (tki_is_json(data, files->size)) status = tki_read_any_json(t, files, error);
    else if (files->size > 2 && data[0] == 10 && data[1] != 0)
        status = tki_read_spm(t, data, files->size, error);
    else return tki_read_llama2c(t, data, files->size, vocab_size, error);
    if (status != 0 || files->config == NULL) return status;
    tki_json j = {"tokenizer_config.json",
                  (const char *)files->config,
                  files->config_size,
                  0,
                  &t->blocks,
                  0,
                  error};
    return tki_json_done(&j, tki_read_config(t, &j));
}

tokenizer *tokenizer_open_files(const tokenizer_files *files, int vocab_size,
                                tokenizer_error *error) {
    if (files == NULL || files->data == NULL || vocab_size < 0) {
        tki_fail(error, "data is NULL or vocab_size is negative");
        return NULL;
    }
    tokenizer *t = (tokenizer *)tki_calloc(1, sizeof *t);
    if (t == NULL) {
        tki_no_memory(error);
        return NULL;
    }
    t->bos = t->eos = t->unk = -1;
    tki_set_up_bytes(t);
    if (tki_read(t, files, vocab_size, error) != 0) {
        tokenizer_close(t);
        return NULL;
    }
    for (size_t i = 0; i < TKI_COUNT(tki_ends) && t->eos < 0; i++)
        t->eos = tki_find(t, tki_ends[i], strlen(tki_ends[i]));
    return t;
}

tokenizer *tokenizer_open_memory(const void *data, size_t size, int vocab_size,
                                 tokenizer_error *error) {
    tokenizer_files files;
    memset(&files, 0, sizeof files);
    files.data = data;
    files.size = size;
    return tokenizer_open_files(&files, vocab_size, error);
}

static const char *tki_reason(int number) {
#ifdef EISDIR
    if (number == EISDIR) return "a directory, and no tokenizer's file is in it";
#endif
    return strerror(number);
}

/* NAME-0000I-of-0000N.gguf: of such parts the first has the metadata. */
static int tki_is_split(const char *path) {
    size_t n = strlen(path);
    const char *end = path + (n < 20 ? 0 : n - 20);
    return n >= 20 && end[0] == '-' && strspn(end + 1, "0123456789") == 5 &&
           memcmp(end + 6, "-of-", 4) == 0 && strspn(end + 10, "0123456789") == 5 &&
           strcmp(end + 15, ".gguf") == 0;
}

/* The file directory/name (or path alone, if name is NULL), for the caller to free; NULL with the
 * reason, and *size = 1 if there is such a file or it cannot be told for want of memory.  Of a GGUF file only as much as its metadata need is read. */
static void *tki_read_file(const char *directory, const char *name, size_t *size,
                           tokenizer_error *error) {
    size_t capacity = 1 << 16, most = (size_t)1 << 30, length = strlen(directory);
    char *path = (char *)TOKENIZER_MALLOC(length + (name ? strlen(name) : 0) + 2);
    unsigned char *data = (unsigned char *)TOKENIZER_MALLOC(capacity);
    FILE *file = NULL;
    *size = 0;
    if (path == NULL || data == NULL) {
        tki_no_memory(error);
        TOKENIZER_FREE(path);
        TOKENIZER_FREE(data);
        *size = 1;
        return NULL;
    }
    memcpy(path, directory, length + 1);
    if (name) {
        path[length] = '/';
        memcpy(path + length + 1, name, strlen(name) + 1);
    } else if (tki_is_split(path)) {
        memcpy(path + length - 19, "00001", 5);
    }
    file = fopen(path, "rb");
    int there = file != NULL;
    int status = there ? 0 : tki_fail(error, "cannot open: %s", strerror(errno));
    TOKENIZER_FREE(path);
    while (status == 0) {
        *size += fread(data + *size, 1, capacity - *size, file);
        if (ferror(file)) status = tki_fail(error, "cannot read: %s", tki_reason(errno));
        if (*size < capacity || status != 0) break;
        if (*size >= 4 && memcmp(data, "GGUF", 4) == 0) {
            tki_gguf g;
            memset(&g, 0, sizeof g);
            g.data = data;
            g.size = *size;
            if (tki_scan_gguf(&g) == 0 || !g.ended) break;
        }
        unsigned char *larger =
            capacity < most ? (unsigned char *)TOKENIZER_REALLOC(data, capacity * 2) : NULL;
        if (larger == NULL)
            status = capacity < most ? tki_no_memory(error)
                                     : tki_fail(error, "too large for a tokenizer");
        else data = larger;
        capacity *= 2;
    }
    if (file) fclose(file);
    if (status == 0) return data;
    TOKENIZER_FREE(data);
    *size = (size_t)there;
    return NULL;
}

/* The length of path without its last part, or of "." if it has only one. */
static char *tki_directory(const char *path) {
    size_t n = strlen(path);
    char *copy = (char *)TOKENIZER_MALLOC(n + 2);
    if (copy == NULL) return NULL;
    while (n > 0 && path[n - 1] != '/' && path[n - 1] != '\\') n--;
    memcpy(copy, n > 0 ? path : ".", n > 0 ? n : 1);
    copy[n > 1 ? n - 1 : 1] = '\0';
    return copy;
}

/* Opens the file that was read, with what lies beside it in directory. */
static tokenizer *tki_open_beside(void *data, size_t size, const char *directory, int vocab_size,
                                  tokenizer_error *error) {
    tokenizer_files files;
    size_t size_of_template = 0;
    void *merges = NULL, *config = NULL, *chat = NULL;
    memset(&files, 0, sizeof files);
    files.data = data;
    files.size = size;
    int gguf = size >= 4 && memcmp(data, "GGUF", 4) == 0;
    if (!gguf && tki_is_json((const unsigned char *)data, size))
        merges = tki_read_file(directory, "merges.txt", &files.merges_size, NULL);
    if (!gguf) config = tki_read_file(directory, "tokenizer_config.json", &files.config_size, NULL);
    if (!gguf) chat = tki_read_file(directory, "chat_template.jinja", &size_of_template, NULL);
    files.merges = merges;
    files.config = config;
    int lost = (!merges && files.merges_size) || (!config && files.config_size) ||
               (!chat && size_of_template);
    tokenizer *t = lost ? NULL : tokenizer_open_files(&files, vocab_size, error);
    if (lost) tki_fail(error, "a file beside it cannot be read");
    if (t && chat) {
        t->chat_template = tki_keep(&t->blocks, (const char *)chat, size_of_template);
        if (t->chat_template == NULL) {
            tki_no_memory(error);
            tokenizer_close(t);
            t = NULL;
        }
    }
    TOKENIZER_FREE(chat);
    if (t) {
        t->owned[0] = data;
        t->owned[1] = merges;
        t->owned[2] = config;
        return t;
    }
    TOKENIZER_FREE(data);
    TOKENIZER_FREE(merges);
    TOKENIZER_FREE(config);
    return NULL;
}

tokenizer *tokenizer_open(const char *path, int vocab_size, tokenizer_error *error) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json",
                                        "tokenizer.bin"};
    size_t size = 0;
    void *data = NULL;
    for (size_t i = 0; i < TKI_COUNT(names) && data == NULL && size == 0; i++)
        data = tki_read_file(path, names[i], &size, error);
    if (data == NULL && size > 0) return NULL;
    if (data) return tki_open_beside(data, size, path, vocab_size, error);
    char *directory = tki_directory(path);
    size_t n = strlen(path);
    tokenizer *t = NULL;
    if (directory == NULL) {
        tki_no_memory(error);
    } else if (n > 12 &&
               strcmp(path + n - 12, ".safetensors") == 0) { /* weights: what is beside them */
        t = tokenizer_open(directory, vocab_size, error);
    } else {
        data = tki_read_file(path, NULL, &size, error);
        if (data) t = tki_open_beside(data, size, directory, vocab_size, error);
    }
    TOKENIZER_FREE(directory);
    return t;
}

void tokenizer_close(tokenizer *t) {
    if (t == NULL) return;
    for (int i = 0; i < t->n_changes; i++) tki_regex_free(t->changes[i].regex);
    for (int i = 0; i < t->n_cuts; i++) tki_regex_free(t->cuts[i].regex);
    for (int i = 0; i < 3; i++) TOKENIZER_FREE(t->owned[i]);
    while (t->blocks) {
        tki_block *next = t->blocks->next;
        TOKENIZER_FREE(t->blocks);
        t->blocks = next;
    }
    tki_trie_free(&t->raw);
    tki_trie_free(&t->normal);
    tki_trie_free(&t->words);
    TOKENIZER_FREE(t->bits);
    TOKENIZER_FREE(t->rules);
    TOKENIZER_FREE(t->rule_slots);
    TOKENIZER_FREE(t->pieces);
    TOKENIZER_FREE(t->slots);
    TOKENIZER_FREE(t);
}

int tokenizer_kind(const tokenizer *t) { return t->kind; }
int tokenizer_model(const tokenizer *t) { return t->model; }
int tokenizer_vocab_size(const tokenizer *t) { return t->n; }
int tokenizer_bos(const tokenizer *t) { return t->bos; }
int tokenizer_eos(const tokenizer *t) { return t->eos; }
int tokenizer_unk(const tokenizer *t) { return t->unk; }
int tokenizer_adds_space(const tokenizer *t) { return t->add_space; }
int tokenizer_removes_spaces(const tokenizer *t) { return t->remove_spaces; }
int tokenizer_byte_fallback(const tokenizer *t) { return t->byte_fallback; }
int tokenizer_n_merges(const tokenizer *t) { return t->n_rules; }
int tokenizer_byte_level(const tokenizer *t) { return t->byte_level; }
const char *tokenizer_pre(const tokenizer *t) { return t->pre; }
const char *tokenizer_chat_template(const tokenizer *t) { return t->chat_template; }

int tokenizer_adds_bos(const tokenizer *t) {
    return t->n_prefix > 0 && t->bos >= 0 && t->prefix[0] == t->bos;
}

int tokenizer_adds_eos(const tokenizer *t) {
    return t->n_suffix > 0 && t->eos >= 0 && t->suffix[t->n_suffix - 1] == t->eos;
}

const void *tokenizer_charsmap(const tokenizer *t, size_t *size) {
    const tki_charsmap *map = &t->charsmap;
    *size = map->units ? 4 + 4 * map->n_units + map->texts_size : 0;
    return map->units ? map->units - 4 : NULL; /* behind their size */
}

int tokenizer_is_end(const tokenizer *t, int token) {
    if (token < 0 || token >= t->n) return 0;
    if (token == t->eos) return 1;
    const tki_piece *piece = &t->pieces[token];
    for (size_t i = 0; i < TKI_COUNT(tki_ends) && piece->flags & TKI_NAMED; i++)
        if (strlen(tki_ends[i]) == (size_t)piece->size &&
            memcmp(tki_ends[i], piece->text, (size_t)piece->size) == 0)
            return 1;
    return 0;
}

const char *tokenizer_piece(const tokenizer *t, int token, int *size) {
    if (token < 0 || token >= t->n) return NULL;
    *size = t->pieces[token].size;
    return t->pieces[token].text;
}

int tokenizer_find(const tokenizer *t, const char *text, size_t size) {
    return tki_find(t, text, size);
}

int tokenizer_type(const tokenizer *t, int token) {
    return token < 0 || token >= t->n ? 0 : t->pieces[token].type;
}

double tokenizer_score(const tokenizer *t, int token) {
    return token < 0 || token >= t->n ? 0 : t->pieces[token].score;
}

int tokenizer_merge(const tokenizer *t, int i, int *left, int *right) {
    if (i < 0 || i >= t->n_rules) return -1;
    *left = t->rules[i].left;
    *right = t->rules[i].right;
    return 0;
}

#ifdef __cplusplus
}
#endif
#endif /* TOKENIZER_IMPLEMENTED */
#endif /* TOKENIZER_IMPLEMENTATION */

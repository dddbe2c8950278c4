/* tokenizer.h - text to token ids and back, for llama2.c's tokenizer.bin.  Licence: MIT.
 *
 *     #define TOKENIZER_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "tokenizer.h"
 *     ...
 *     tokenizer *t = tokenizer_open("tokenizer.bin", vocab_size, &error);
 *     n = tokenizer_encode(t, text, strlen(text), TOKENIZER_BOS, tokens, capacity, &error);
 *     tokenizer_stream stream = {0};
 *     size = tokenizer_decode(t, &stream, token, out);      (any number of times)
 *     tokenizer_close(t);
 *
 * C99 or C++11, libc only.  Nothing here prints or exits.  An open tokenizer is read-only: any
 * number of threads may use it at once, each with its own stream.
 *
 * ENCODING is SentencePiece's BPE (Kudo & Richardson 2018, arXiv:1808.06226) as llama2.c does it:
 * a space in front of the text, one symbol per character, then always the adjacent pair that makes
 * the best-scored piece is merged, the leftmost among equals, until no pair makes a piece.  A
 * character that is no piece becomes its bytes <0xXX>, and these do not merge.
 *
 * DECODING is a stream: the space that encoding puts in front goes away again, bytes of a
 * character are held back until it is complete, and what is not UTF-8 becomes U+FFFD, so that
 * everything written is UTF-8.
 *
 * FILE   uint32 longest, then per token: float32 score, int32 size, size bytes of text; little
 *        endian.  Token 0 is <unk>, 1 begins a text (BOS), 2 ends it (EOS).
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
enum { TOKENIZER_LLAMA2C = 0 };

/* Flags of tokenizer_encode. */
enum {
    TOKENIZER_BOS = 1,     /* put the BOS token first */
    TOKENIZER_NO_SPACE = 2 /* no space in front: the text continues an earlier one */
};

/* State of one decoded text; all zero at its start. */
typedef struct tokenizer_stream {
    int started; /* the next piece is not the first of a text */
    int n_held;
    unsigned char held[4]; /* the first bytes of a character */
} tokenizer_stream;

/* Read a file of exactly vocab_size tokens; 0 = of as many as there are.  NULL if it cannot be
 * read or is malformed: *error (or NULL) says what and where. */
tokenizer *tokenizer_open(const char *path, int vocab_size, tokenizer_error *error);

/* The same from memory, which must stay as it is until tokenizer_close. */
tokenizer *tokenizer_open_memory(const void *data, size_t size, int vocab_size,
                                 tokenizer_error *error);
void tokenizer_close(tokenizer *t); /* NULL is ignored */

int tokenizer_kind(const tokenizer *t);
int tokenizer_vocab_size(const tokenizer *t);
int tokenizer_bos(const tokenizer *t);
int tokenizer_eos(const tokenizer *t);

/* The bytes of a token as the file has them, not zero-terminated; NULL = there is no such token. */
const char *tokenizer_piece(const tokenizer *t, int token, int *size);

/* text [length] may hold anything, zero bytes too.  Returns the number of tokens, or -1 if they do
 * not fit in capacity (length + 2 always suffices) or memory runs out.  Empty text gets no space.
 * Time O(length log length). */
int tokenizer_encode(const tokenizer *t, const char *text, size_t length, int flags,
                     int32_t *tokens, size_t capacity, tokenizer_error *error);

/* Most bytes that one call of tokenizer_decode or tokenizer_decode_end can write. */
size_t tokenizer_decode_bound(const tokenizer *t);

/* Write the text that token completes to out [tokenizer_decode_bound] and return its size, or -1
 * if there is no such token.  BOS and EOS have no text. */
int tokenizer_decode(const tokenizer *t, tokenizer_stream *stream, int token, char *out);

/* The text is over: what is still held back becomes U+FFFD.  The stream is as new. */
int tokenizer_decode_end(tokenizer_stream *stream, char *out);

#ifdef __cplusplus
}
#endif
#endif /* TOKENIZER_H */

#ifdef TOKENIZER_IMPLEMENTATION
#ifndef TOKENIZER_IMPLEMENTED
#define TOKENIZER_IMPLEMENTED

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tki_piece {
    const char *text; /* in the file's bytes */
    int size;
    float score;
} tki_piece;

struct tokenizer {
    int kind;
    int n; /* tokens */
    int unk, bos, eos;
    int longest;       /* size of the longest piece */
    int byte_ids[256]; /* the token <0xXX> of each byte, or -1 */
    tki_piece *pieces; /* [n] */
    int *slots;        /* hash table: an id + 1, or 0 = empty */
    size_t n_slots;    /* a power of 2, at least 2 n */
    void *file;        /* the file's bytes if we own them, else NULL */
};

static void tki_fail(tokenizer_error *error, const char *format, ...) {
    va_list args;
    if (error == NULL) return;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
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

/* ---- pieces ---- */

/* The byte that a piece such as <0x0A> stands for, or -1 if it is none. */
static int tki_byte_value(const tki_piece *piece) {
    static const char digits[] = "0123456789ABCDEF";
    if (piece->size != 6 || memcmp(piece->text, "<0x", 3) != 0 || piece->text[5] != '>') return -1;
    const char *high = (const char *)memchr(digits, piece->text[3], 16);
    const char *low = (const char *)memchr(digits, piece->text[4], 16);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

/* The slot where text is, or the empty one where it belongs.  The hash is FNV-1a. */
static size_t tki_slot(const tokenizer *t, const char *text, int size) {
    uint32_t hash = 2166136261u;
    for (int i = 0; i < size; i++) hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    for (size_t at = hash & (t->n_slots - 1);; at = (at + 1) & (t->n_slots - 1)) {
        if (t->slots[at] == 0) return at;
        const tki_piece *piece = &t->pieces[t->slots[at] - 1];
        if (piece->size == size && memcmp(piece->text, text, (size_t)size) == 0) return at;
    }
}

/* The token whose text is this, or -1.  Never <unk>, BOS, EOS or a byte: text cannot name them. */
static int tki_find(const tokenizer *t, const char *text, int size) {
    return t->slots[tki_slot(t, text, size)] - 1;
}

static int tki_index_pieces(tokenizer *t, tokenizer_error *error) {
    t->n_slots = 16;
    while (t->n_slots < 2 * (size_t)t->n) t->n_slots *= 2;
    t->slots = (int *)calloc(t->n_slots, sizeof *t->slots);
    if (t->slots == NULL) {
        tki_fail(error, "out of memory for %d tokens", t->n);
        return -1;
    }
    for (int i = 0; i < 256; i++) t->byte_ids[i] = -1;
    for (int id = 0; id < t->n; id++) {
        int byte = tki_byte_value(&t->pieces[id]);
        if (byte >= 0 && t->byte_ids[byte] < 0) t->byte_ids[byte] = id;
        if (byte >= 0 || id == t->unk || id == t->bos || id == t->eos || t->pieces[id].size == 0)
            continue;
        size_t at = tki_slot(t, t->pieces[id].text, t->pieces[id].size);
        if (t->slots[at] == 0) /* of two equal pieces the first one counts */
            t->slots[at] = id + 1;
    }
    return 0;
}

/* ---- llama2.c's file ---- */

static uint32_t tki_u32(const unsigned char *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* One token at byte *at of data; *at moves behind it.  0, or -1 with the reason. */
static int tki_read_token(tki_piece *piece, const unsigned char *data, size_t size, size_t *at,
                          int id, tokenizer_error *error) {
    if (size - *at < 8) {
        tki_fail(error, "token %d at byte %zu: the file ends inside it", id, *at);
        return -1;
    }
    uint32_t longest = tki_u32(data), score = tki_u32(data + *at);
    uint32_t length = tki_u32(data + *at + 4);
    memcpy(&piece->score, &score, 4);
    if (!(piece->score <= 0) && !(piece->score > 0)) {
        tki_fail(error, "token %d at byte %zu: its score is not a number", id, *at);
        return -1;
    }
    if (length > longest || length > INT_MAX / 8) {
        tki_fail(error, "token %d at byte %zu: %lu bytes long, but the longest is to have %lu", id,
                 *at, (unsigned long)length, (unsigned long)longest);
        return -1;
    }
    if (length > size - *at - 8) {
        tki_fail(error, "token %d at byte %zu: %lu bytes long, but only %zu are left", id, *at,
                 (unsigned long)length, size - *at - 8);
        return -1;
    }
    piece->text = (const char *)data + *at + 8;
    piece->size = (int)length;
    *at += 8 + length;
    return 0;
}

static int tki_read_llama2c(tokenizer *t, const unsigned char *data, size_t size, int vocab_size,
                            tokenizer_error *error) {
    size_t at = 4, most = size < 4 ? 0 : (size - 4) / 8; /* a token has at least 8 bytes */
    if (vocab_size > 0 && (size_t)vocab_size < most) most = (size_t)vocab_size;
    if (most > INT_MAX / 16) {
        tki_fail(error, "%zu bytes: too large for a tokenizer", size);
        return -1;
    }
    t->kind = TOKENIZER_LLAMA2C;
    t->unk = 0, t->bos = 1, t->eos = 2;
    t->pieces = (tki_piece *)calloc(most + 1, sizeof *t->pieces);
    if (t->pieces == NULL) {
        tki_fail(error, "out of memory for %zu tokens", most);
        return -1;
    }
    for (; at < size && (vocab_size == 0 || t->n < vocab_size); t->n++) {
        tki_piece *piece = &t->pieces[t->n];
        if (tki_read_token(piece, data, size, &at, t->n, error) != 0) return -1;
        t->longest = piece->size > t->longest ? piece->size : t->longest;
    }
    if (t->n < 3 || t->n < vocab_size) {
        tki_fail(error, "the file has only %d tokens, %d are needed", t->n,
                 vocab_size > 3 ? vocab_size : 3);
        return -1;
    }
    if (at < size) {
        tki_fail(error, "the file has more than %d tokens (%zu bytes are left)", t->n, size - at);
        return -1;
    }
    return tki_index_pieces(t, error);
}

/* The whole file in memory that the caller frees; NULL with the reason. */
static unsigned char *tki_read_file(const char *path, size_t *size, tokenizer_error *error) {
    size_t capacity = 1 << 16, most = (size_t)1 << 30;
    FILE *file = fopen(path, "rb");
    unsigned char *data = file ? (unsigned char *)malloc(capacity) : NULL;
    *size = 0;
    while (data) {
        *size += fread(data + *size, 1, capacity - *size, file);
        if (*size < capacity || capacity >= most) break;
        unsigned char *larger = (unsigned char *)realloc(data, capacity * 2);
        if (larger == NULL) free(data);
        data = larger;
        capacity *= 2;
    }
    if (file == NULL) {
        tki_fail(error, "cannot open: %s", strerror(errno));
    } else if (data == NULL) {
        tki_fail(error, "out of memory");
    } else if (ferror(file) || *size == most) {
        tki_fail(error, ferror(file) ? "cannot read" : "too large for a tokenizer");
        free(data);
        data = NULL;
    }
    if (file) fclose(file);
    return data;
}

/* ---- open and close ---- */

tokenizer *tokenizer_open_memory(const void *data, size_t size, int vocab_size,
                                 tokenizer_error *error) {
    if (data == NULL || vocab_size < 0) {
        tki_fail(error, "data is NULL or vocab_size is negative");
        return NULL;
    }
    tokenizer *t = (tokenizer *)calloc(1, sizeof *t);
    if (t == NULL) {
        tki_fail(error, "out of memory");
        return NULL;
    }
    if (tki_read_llama2c(t, (const unsigned char *)data, size, vocab_size, error) != 0) {
        tokenizer_close(t);
        return NULL;
    }
    return t;
}

tokenizer *tokenizer_open(const char *path, int vocab_size, tokenizer_error *error) {
    size_t size;
    unsigned char *data = tki_read_file(path, &size, error);
    if (data == NULL) return NULL;
    tokenizer *t = tokenizer_open_memory(data, size, vocab_size, error);
    if (t) t->file = data;
    else free(data);
    return t;
}

void tokenizer_close(tokenizer *t) {
    if (t == NULL) return;
    free(t->pieces);
    free(t->slots);
    free(t->file);
    free(t);
}

int tokenizer_kind(const tokenizer *t) { return t->kind; }
int tokenizer_vocab_size(const tokenizer *t) { return t->n; }
int tokenizer_bos(const tokenizer *t) { return t->bos; }
int tokenizer_eos(const tokenizer *t) { return t->eos; }

const char *tokenizer_piece(const tokenizer *t, int token, int *size) {
    if (token < 0 || token >= t->n) return NULL;
    *size = t->pieces[token].size;
    return t->pieces[token].text;
}

/* ---- encoding ---- */

/* A run of text that is one token, in a doubly linked list.  Merging two makes the left one longer
 * and takes the right one out (size 0). */
typedef struct tki_symbol {
    int start, size; /* bytes of the text */
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

typedef struct tki_encoder {
    const tokenizer *t;
    const char *text;
    tki_symbol *symbols;
    tki_merge *heap; /* each i comes before 2i+1 and 2i+2 */
    int n_symbols, n_heap;
} tki_encoder;

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

/* Notes the merge of two neighbours if it makes a piece. */
static void tki_consider(tki_encoder *e, int left, int right) {
    if (left < 0 || right < 0) return;
    const tki_symbol *a = &e->symbols[left], *b = &e->symbols[right];
    if (!a->merges || !b->merges || a->size + b->size > e->t->longest) return;
    int token = tki_find(e->t, e->text + a->start, a->size + b->size);
    if (token < 0) return;
    tki_merge merge;
    merge.score = e->t->pieces[token].score;
    merge.left = left;
    merge.right = right;
    merge.size = a->size + b->size;
    merge.token = token;
    tki_push(e, merge);
}

static void tki_add_symbol(tki_encoder *e, int start, int size, int token, int merges) {
    int i = e->n_symbols++;
    e->symbols[i].start = start;
    e->symbols[i].size = size;
    e->symbols[i].previous = i - 1;
    e->symbols[i].next = i + 1;
    e->symbols[i].token = token;
    e->symbols[i].merges = merges;
}

/* One symbol per character that is a piece, else one per byte; <unk> where a byte has no token. */
static void tki_split(tki_encoder *e, int length) {
    for (int at = 0, size; at < length; at += size) {
        size = tki_utf8((const unsigned char *)e->text + at, (size_t)(length - at));
        if (size < 1) /* not UTF-8: byte by byte */
            size = 1;
        int token = tki_find(e->t, e->text + at, size);
        if (token >= 0) {
            tki_add_symbol(e, at, size, token, 1);
            continue;
        }
        for (int i = at; i < at + size; i++) {
            token = e->t->byte_ids[(unsigned char)e->text[i]];
            tki_add_symbol(e, i, 1, token >= 0 ? token : e->t->unk, 0);
        }
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

int tokenizer_encode(const tokenizer *t, const char *text, size_t length, int flags,
                     int32_t *tokens, size_t capacity, tokenizer_error *error) {
    size_t count = 0, space = length > 0 && !(flags & TOKENIZER_NO_SPACE) ? 1 : 0;
    if (length > INT_MAX / 64) {
        tki_fail(error, "a text of %zu bytes is too long", length);
        return -1;
    }
    size_t n = length + space;
    tki_encoder e = {t, NULL, NULL, NULL, 0, 0};
    char *copy = (char *)malloc(n + 1);
    e.symbols = (tki_symbol *)malloc((n + 1) * sizeof *e.symbols);
    e.heap = (tki_merge *)malloc((n + 1) * 2 * sizeof *e.heap); /* a merge takes 1 and adds <= 2 */
    if (copy && e.symbols && e.heap) {
        if (space) copy[0] = ' ';
        if (length > 0) memcpy(copy + space, text, length);
        e.text = copy;
        tki_split(&e, (int)n);
        tki_merge_all(&e);
        if (flags & TOKENIZER_BOS && ++count <= capacity) tokens[0] = t->bos;
        for (int i = e.n_symbols > 0 ? 0 : -1; i >= 0; i = e.symbols[i].next)
            if (++count <= capacity) tokens[count - 1] = e.symbols[i].token;
    }
    int ok = copy && e.symbols && e.heap && count <= capacity;
    if (!ok && count > capacity)
        tki_fail(error, "the text has %zu tokens, there is room for %zu", count, capacity);
    else if (!ok) tki_fail(error, "out of memory for a text of %zu bytes", length);
    free(copy);
    free(e.symbols);
    free(e.heap);
    return ok ? (int)count : -1;
}

/* ---- decoding ---- */

size_t tokenizer_decode_bound(const tokenizer *t) {
    return 3 * ((size_t)t->longest + 4); /* each byte may become U+FFFD, three bytes */
}

int tokenizer_decode_end(tokenizer_stream *stream, char *out) {
    int n = stream->n_held > 0 ? 3 : 0;
    memcpy(out, "\xEF\xBF\xBD", (size_t)n); /* U+FFFD */
    memset(stream, 0, sizeof *stream);
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

int tokenizer_decode(const tokenizer *t, tokenizer_stream *stream, int token, char *out) {
    if (token < 0 || token >= t->n) return -1;
    if (token == t->bos || token == t->eos) {
        stream->started = token != t->bos;
        return 0;
    }
    const tki_piece *piece = &t->pieces[token];
    int written = 0, byte = tki_byte_value(piece);
    if (byte >= 0) {
        written = tki_decode_byte(stream, (char)byte, out);
    } else {
        int skip = !stream->started && piece->size > 0 && piece->text[0] == ' ';
        for (int i = skip; i < piece->size; i++)
            written += tki_decode_byte(stream, piece->text[i], out + written);
    }
    stream->started = 1;
    return written;
}

#ifdef __cplusplus
}
#endif
#endif /* TOKENIZER_IMPLEMENTED */
#endif /* TOKENIZER_IMPLEMENTATION */

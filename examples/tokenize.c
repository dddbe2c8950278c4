/* tokenize.c - text to token ids and back, with the tokenizer of any model.
 *
 *     cc -O2 examples/tokenize.c -o build/tokenize
 *     echo "Hello world" | build/tokenize MODEL
 *     echo "15496 995" | build/tokenize MODEL --decode
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENIZER_IMPLEMENTATION
#include "tokenizer.h"

static const char usage[] =
    "usage: tokenize MODEL [options]\n"
    "MODEL is a directory, a .gguf, a tokenizer.json, .model or .bin.  Text comes from stdin; "
    "each\n"
    "line gives one line of ids, separated by spaces.\n"
    "  --decode     from ids to text\n"
    "  --special    names of special tokens in the text are these tokens; with --decode they are\n"
    "               written\n"
    "  --no-bos     only the text's own tokens, nothing before or after them\n"
    "  --whole      all of stdin is one text\n";

typedef struct program {
    const char *model;
    int decode, special, no_bos, whole, help;
    tokenizer *t;
    int32_t *tokens;
    size_t capacity;
} program;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static void *resize(void *memory, size_t size) {
    void *moved = realloc(memory, size > 0 ? size : 1);
    if (moved == NULL) fail("memory", "there is not enough");
    return moved;
}

static void parse_arguments(int argc, char **argv, program *p) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--decode") == 0) p->decode = 1;
        else if (strcmp(argv[i], "--special") == 0) p->special = 1;
        else if (strcmp(argv[i], "--no-bos") == 0) p->no_bos = 1;
        else if (strcmp(argv[i], "--whole") == 0) p->whole = 1;
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) p->help = 1;
        else if (argv[i][0] != '-' && p->model == NULL) p->model = argv[i];
        else fail(argv[i], "unknown argument");
    }
    if (p->model && !p->help) return;
    fputs(usage, p->help ? stdout : stderr);
    exit(!p->help);
}

/* All of stdin. */
static char *read_all(size_t *size) {
    size_t capacity = 1 << 16, n = 0, got;
    char *text = (char *)resize(NULL, capacity);
    while ((got = fread(text + n, 1, capacity - n, stdin)) > 0) {
        n += got;
        if (n == capacity) text = (char *)resize(text, capacity *= 2);
    }
    if (ferror(stdin)) fail("stdin", strerror(errno));
    *size = n;
    return text;
}

/* Decimal, for which printf is slow. */
static char *put_number(char *out, unsigned value) {
    char digits[16];
    int n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    while (n > 0) *out++ = digits[--n];
    return out;
}

/* Text is tokenized into room for as many tokens as it has bytes, or else as it may need. */
static void encode(program *p, const char *text, size_t size) {
    tokenizer_error error;
    int flags = (p->special ? TOKENIZER_SPECIAL : 0) | (p->no_bos ? 0 : TOKENIZER_AUTO), n = -1;
    size_t bound = tokenizer_encode_bound(p->t, size);
    size_t rooms[2] = {size + 16 < bound ? size + 16 : bound, bound};
    for (int i = 0; i < 2 && n < 0; i++) {
        if (rooms[i] > p->capacity) {
            p->capacity = rooms[i];
            p->tokens = (int32_t *)resize(p->tokens, p->capacity * sizeof *p->tokens);
        }
        n = tokenizer_encode(p->t, text, size, flags, p->tokens, p->capacity, &error);
    }
    if (n < 0) fail("text", error.text);
    char line[4096], *out = line;
    for (int i = 0; i < n; i++) {
        if (out - line > 4000) {
            fwrite(line, 1, (size_t)(out - line), stdout);
            out = line;
        }
        if (i > 0) *out++ = ' ';
        out = put_number(out, (unsigned)p->tokens[i]);
    }
    *out++ = '\n';
    fwrite(line, 1, (size_t)(out - line), stdout);
}

/* The ids in [text, end), which is followed by a byte that is no digit. */
static void decode(program *p, const char *text, const char *end) {
    tokenizer_stream stream;
    char *out = (char *)resize(NULL, tokenizer_decode_bound(p->t));
    memset(&stream, 0, sizeof stream);
    stream.special = p->special;
    for (;;) {
        char *behind;
        while (text < end && strchr(" \t\r\n", *text)) text++;
        if (text >= end) break;
        errno = 0;
        long id = strtol(text, &behind, 10);
        int n = behind == text || errno || id > INT_MAX || id < 0
                    ? -1
                    : tokenizer_decode(p->t, &stream, (int)id, out);
        if (n < 0) {
            char shown[32];
            snprintf(shown, sizeof shown, "%.*s", end - text > 24 ? 24 : (int)(end - text), text);
            fail(shown, "there is no such token");
        }
        fwrite(out, 1, (size_t)n, stdout);
        text = behind;
    }
    fwrite(out, 1, (size_t)tokenizer_decode_end(&stream, out), stdout);
    if (!p->whole) fputc('\n', stdout);
    free(out);
}

int main(int argc, char **argv) {
    program p;
    tokenizer_error error;
    size_t size;
    memset(&p, 0, sizeof p);
    parse_arguments(argc, argv, &p);
    p.t = tokenizer_open(p.model, 0, &error);
    if (p.t == NULL) fail(p.model, error.text);
    char *text = read_all(&size);
    text = (char *)resize(text, size + 1);
    text[size] = '\0';
    for (size_t at = 0, end; at < size || (p.whole && at == 0); at = end + 1) {
        char *newline = p.whole || at == size ? NULL : (char *)memchr(text + at, '\n', size - at);
        end = newline ? (size_t)(newline - text) : size;
        if (p.decode) decode(&p, text + at, text + end);
        else encode(&p, text + at, end - at);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) fail("stdout", strerror(errno));
    free(text);
    free(p.tokens);
    tokenizer_close(p.t);
    return 0;
}

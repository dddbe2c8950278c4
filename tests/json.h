/* Is a text JSON (RFC 8259)?  A parser of the tests' own, for texts that end with a zero byte. */
#ifndef JSON_H
#define JSON_H
#include <string.h>

/* Bytes of the UTF-8 character at p by the table in RFC 3629, section 4; 0 if it is none. */
static inline int json_character(const char *p) {
    static const unsigned char table[9][5] = {
        /* first byte from, to; second byte from, to; further bytes */
        {0x00, 0x7f, 0, 0, 0},       {0xc2, 0xdf, 0x80, 0xbf, 0}, {0xe0, 0xe0, 0xa0, 0xbf, 1},
        {0xe1, 0xec, 0x80, 0xbf, 1}, {0xed, 0xed, 0x80, 0x9f, 1}, {0xee, 0xef, 0x80, 0xbf, 1},
        {0xf0, 0xf0, 0x90, 0xbf, 2}, {0xf1, 0xf3, 0x80, 0xbf, 2}, {0xf4, 0xf4, 0x80, 0x8f, 2}};
    const unsigned char *s = (const unsigned char *)p;
    for (int i = 0; i < 9; i++) {
        const unsigned char *row = table[i];
        int good = s[0] >= row[0] && s[0] <= row[1];
        if (good && i == 0) return 1;
        good = good && s[1] >= row[2] && s[1] <= row[3];
        for (int k = 2; good && k < 2 + row[4]; k++) good = s[k] >= 0x80 && s[k] <= 0xbf;
        if (good) return 2 + row[4];
    }
    return 0;
}

static inline const char *json_blank(const char *p) { return p + strspn(p, " \t\r\n"); }

static inline const char *json_string(const char *p) {
    if (*p != '"') return NULL;
    for (p++; *p != '"'; p++) {
        int size = json_character(p);
        if ((unsigned char)*p < 32 || size == 0) return NULL;
        if (*p != '\\') {
            p += size - 1;
            continue;
        }
        p++;
        if (*p == 'u') {
            if (strspn(p + 1, "0123456789abcdefABCDEF") < 4) return NULL;
            p += 4;
        } else if (!*p || !strchr("\"\\/bfnrt", *p)) {
            return NULL;
        }
    }
    return p + 1;
}

static inline const char *json_number(const char *p) {
    const char *digits = "0123456789";
    size_t n;
    p += *p == '-';
    n = strspn(p, digits);
    if (n == 0 || (n > 1 && *p == '0')) return NULL;
    p += n;
    if (*p == '.') {
        n = strspn(p + 1, digits);
        if (n == 0) return NULL;
        p += 1 + n;
    }
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '+' || p[1] == '-');
        n = strspn(p, digits);
        if (n == 0) return NULL;
        p += n;
    }
    return p;
}

static inline const char *json_value(const char *p, int depth) {
    static const char *const words[] = {"true", "false", "null"};
    char closing = *p == '{' ? '}' : ']';
    int first = 1;
    if (depth > 60) return NULL;
    for (size_t i = 0; i < 3; i++)
        if (strncmp(p, words[i], strlen(words[i])) == 0) return p + strlen(words[i]);
    if (*p == '"') return json_string(p);
    if (*p != '{' && *p != '[') return json_number(p);
    for (p = json_blank(p + 1); p && *p != closing; p = p ? json_blank(p) : NULL, first = 0) {
        if (!first && *p++ != ',') return NULL;
        p = json_blank(p);
        if (closing == '}') {
            p = json_string(p);
            p = p ? json_blank(p) : NULL;
            if (!p || *p++ != ':') return NULL;
            p = json_blank(p);
        }
        p = json_value(p, depth + 1);
        if (!p) return NULL;
    }
    return p ? p + 1 : NULL;
}
#endif

/* A directory for the files that a test writes. */
#ifndef FILES_H
#define FILES_H
#include "test.h"

#include <unistd.h>

static char dir[256];

static inline const char *path_of(const char *name) {
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static inline void make_dir(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/transformer.XXXXXX", tmp && strlen(tmp) < 200 ? tmp : "/tmp");
    if (mkdtemp(dir)) return;
    printf("cannot make %s\n0 passed, 1 failed\n", dir);
    exit(1);
}

static inline void remove_file(const char *name) { unlink(path_of(name)); }

/* Unlinked first: some file systems wait for the disk when a file is overwritten. */
static inline void write_file(const char *name, const void *data, size_t n) {
    unlink(path_of(name));
    FILE *f = fopen(path_of(name), "wb");
    if (f && fwrite(data, 1, n, f) == n && fclose(f) == 0) return;
    printf("cannot write %s\n0 passed, 1 failed\n", path_of(name));
    exit(1);
}

static inline void write_text(const char *name, const char *text) {
    write_file(name, text, strlen(text));
}
#endif

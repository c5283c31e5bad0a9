/* Preloaded into a test's process: the n-th call that changes a file below a folder goes wrong.

   Counted are writes, flushes, truncations, renames, removals, links, and files and folders that are
   made, by whatever library calls: Python's, SQLite's, Tantivy's. See tests/faults.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, FULL, FAIL };

static char prefix[PATH_MAX];
static int mode = OFF;
static long fatal = 0;
static atomic_long calls = 0;
static int trace = -1;

void fault_arm(const char *folder, int how, long at) {
    strncpy(prefix, folder, sizeof prefix - 1);
    calls = 0;
    fatal = at;
    mode = how;
}

long fault_calls(void) { return calls; }

/* Write a line for each counted call to an open file: its name and the path it is about. */
void fault_trace(int descriptor) { trace = descriptor; }

static void note(const char *call, const char *path) {
    char line[2 * PATH_MAX + 32];
    if (trace < 0) return;
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    syscall(SYS_write, trace, line, length);
}

static int is_inside(const char *call, int directory, const char *path) {
    char whole[2 * PATH_MAX];
    if (path[0] == '/' || directory == AT_FDCWD) {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    if (strncmp(whole, prefix, strlen(prefix)) != 0) return 0;
    note(call, whole);
    return 1;
}

static int is_open_inside(const char *call, int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, prefix, strlen(prefix)) != 0) return 0;
    note(call, path);
    return 1;
}

/* Whether the call that is just being made goes wrong. `grows`: it wants room on the disk. */
static int goes_wrong(int grows) {
    long call = ++calls;
    if (mode == FULL && grows && call >= fatal) return ENOSPC;
    if (mode == FAIL && call == fatal) return EIO;
    return mode == KILL && call == fatal ? -1 : 0;
}

static void die(void) { kill(getpid(), SIGKILL); }

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define GUARD(inside, grows)                                   \
    if (mode != OFF && (inside)) {                             \
        int wrong = goes_wrong(grows);                         \
        if (wrong < 0) die();                                  \
        if (wrong > 0) { errno = wrong; return -1; }           \
    }
/* A write that is killed leaves half of its bytes. */
#define GUARD_WRITE(half)                                      \
    if (mode != OFF && is_open_inside(__func__, descriptor)) { \
        int wrong = goes_wrong(1);                             \
        if (wrong < 0) { (void)!(half); die(); }               \
        if (wrong > 0) { errno = wrong; return -1; }           \
    }

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(write);
    GUARD_WRITE(real(descriptor, data, size / 2))
    return real(descriptor, data, size);
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    GUARD_WRITE(real(descriptor, data, size / 2, at))
    return real(descriptor, data, size, at);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    GUARD_WRITE(real(descriptor, data, size / 2, at))
    return real(descriptor, data, size, at);
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(writev);
    GUARD_WRITE(real(descriptor, parts, count / 2))
    return real(descriptor, parts, count);
}
/* The machine stays up, so nothing is gained by waiting for the disk. */
int fsync(int descriptor) {
    GUARD(is_open_inside(__func__, descriptor), 0)
    return 0;
}
int fdatasync(int descriptor) {
    GUARD(is_open_inside(__func__, descriptor), 0)
    return 0;
}
int ftruncate(int descriptor, off_t size) {
    REAL(ftruncate);
    GUARD(is_open_inside(__func__, descriptor), 0)
    return real(descriptor, size);
}
int ftruncate64(int descriptor, off64_t size) {
    REAL(ftruncate64);
    GUARD(is_open_inside(__func__, descriptor), 0)
    return real(descriptor, size);
}
int rename(const char *from, const char *to) {
    REAL(rename);
    GUARD(is_inside("from", AT_FDCWD, from) && is_inside(__func__, AT_FDCWD, to), 0)
    return real(from, to);
}
int renameat(int one, const char *from, int two, const char *to) {
    REAL(renameat);
    GUARD(is_inside("from", one, from) && is_inside(__func__, two, to), 0)
    return real(one, from, two, to);
}
int renameat2(int one, const char *from, int two, const char *to, unsigned flags) {
    REAL(renameat2);
    GUARD(is_inside("from", one, from) && is_inside(__func__, two, to), 0)
    return real(one, from, two, to, flags);
}
int linkat(int one, const char *from, int two, const char *to, int flags) {
    REAL(linkat);
    GUARD(is_inside(__func__, two, to), 1)
    return real(one, from, two, to, flags);
}
int unlink(const char *path) {
    REAL(unlink);
    GUARD(is_inside(__func__, AT_FDCWD, path), 0)
    return real(path);
}
int unlinkat(int directory, const char *path, int flags) {
    REAL(unlinkat);
    GUARD(is_inside(__func__, directory, path), 0)
    return real(directory, path, flags);
}
int rmdir(const char *path) {
    REAL(rmdir);
    GUARD(is_inside(__func__, AT_FDCWD, path), 0)
    return real(path);
}
int mkdir(const char *path, mode_t rights) {
    REAL(mkdir);
    GUARD(is_inside(__func__, AT_FDCWD, path), 1)
    return real(path, rights);
}
int mkdirat(int directory, const char *path, mode_t rights) {
    REAL(mkdirat);
    GUARD(is_inside(__func__, directory, path), 1)
    return real(directory, path, rights);
}

#define OPEN(name)                                                         \
    int name(const char *path, int flags, ...) {                           \
        REAL(name);                                                        \
        va_list rest; va_start(rest, flags);                               \
        mode_t rights = flags & O_CREAT ? va_arg(rest, mode_t) : 0;        \
        va_end(rest);                                                      \
        GUARD((flags & (O_CREAT | O_TRUNC)) && is_inside(__func__, AT_FDCWD, path), 1) \
        return real(path, flags, rights);                                  \
    }
#define OPENAT(name)                                                       \
    int name(int directory, const char *path, int flags, ...) {            \
        REAL(name);                                                        \
        va_list rest; va_start(rest, flags);                               \
        mode_t rights = flags & O_CREAT ? va_arg(rest, mode_t) : 0;        \
        va_end(rest);                                                      \
        GUARD((flags & (O_CREAT | O_TRUNC)) && is_inside(__func__, directory, path), 1) \
        return real(directory, path, flags, rights);                       \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

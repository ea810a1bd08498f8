/*
 * Stands between a program and the disk: LD_PRELOAD this, and every call that changes something
 * below one directory is written to a log, or made to fail.
 *
 *   SHIM_DIR   the directory, absolute; without it nothing happens
 *   SHIM_LOG   record: the log file, outside of the directory
 *   SHIM_FAIL  fail: CLASS:NUMBER:ERRNO:once|on, as in write:3:28:once; `on` fails all from then on
 *   SHIM_HIT   fail: a file that gets one line for each call that failed
 *
 * One lock is held over each call and its record, so the log has the order in which things
 * happened. The test that reads the log proves that it is complete: replayed, it gives the
 * directory byte for byte (tests/it/media/log.rs, which also has the layout of a record).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum op {
    OP_ROOT, OP_CREATE, OP_MKDIR, OP_WRITE, OP_TRUNCATE, OP_FSYNC, OP_FDATASYNC, OP_RENAME,
    OP_UNLINK, OP_FALLOCATE, OP_FOREIGN
};
enum class { C_WRITE, C_FSYNC, C_RENAME, C_MKDIR, C_CREATE, C_FALLOCATE, C_UNLINK, C_TRUNCATE, C_ALL };
static const char *const CLASSES[C_ALL] = {
    "write", "fsync", "rename", "mkdir", "create", "fallocate", "unlink", "truncate"
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *dir;
static size_t dir_len;
static int log_fd = -1;
static int fail_class = C_ALL, fail_errno, fail_on;
static long fail_at, seen;
static const char *hit_path;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        static const char text[] = "shim: a libc function is missing\n";
        ssize_t ignored = REAL(write)(2, text, sizeof text - 1);
        (void)ignored;
        abort();
    }
    return found;
}

static void record(enum op op, uint64_t ino, uint64_t offset, const char *one, const char *two,
                   const struct iovec *data, int count);

static void begin(void) {
    dir = getenv("SHIM_DIR");
    if (!dir)
        return;
    dir_len = strlen(dir);
    const char *fail = getenv("SHIM_FAIL");
    char name[32], how[8];
    if (fail) {
        if (sscanf(fail, "%31[^:]:%ld:%d:%7s", name, &fail_at, &fail_errno, how) != 4)
            abort();
        for (fail_class = 0; fail_class < C_ALL && strcmp(CLASSES[fail_class], name); fail_class++)
            ;
        if (fail_class == C_ALL)
            abort();
        fail_on = !strcmp(how, "on");
        hit_path = getenv("SHIM_HIT");
    }
    const char *path = getenv("SHIM_LOG");
    if (path) {
        log_fd = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        struct stat st;
        if (log_fd < 0 || stat(dir, &st))
            abort();
        record(OP_ROOT, st.st_ino, 0, "", "", NULL, 0);
    }
}

/* One record: op, lengths of two paths, 0, inode, offset, length of data; paths; data. */
static void record(enum op op, uint64_t ino, uint64_t offset, const char *one, const char *two,
                   const struct iovec *data, int count) {
    if (log_fd < 0)
        return;
    struct iovec parts[3 + 16];
    uint32_t small[4] = {op, (uint32_t)strlen(one), (uint32_t)strlen(two), 0};
    uint64_t large[3] = {ino, offset, 0};
    for (int i = 0; i < count; i++)
        large[2] += data[i].iov_len;
    char head[40];
    memcpy(head, small, 16);
    memcpy(head + 16, large, 24);
    parts[0] = (struct iovec){head, sizeof head};
    parts[1] = (struct iovec){(void *)one, small[1]};
    parts[2] = (struct iovec){(void *)two, small[2]};
    if (count > 16)
        abort();
    for (int i = 0; i < count; i++)
        parts[3 + i] = data[i];
    size_t all = sizeof head + small[1] + small[2] + large[2];
    if (REAL(writev)(log_fd, parts, 3 + count) != (ssize_t)all)
        abort();
}

static int inside(const char *path) {
    pthread_once(&once, begin);
    return dir && !strncmp(path, dir, dir_len) && (path[dir_len] == '/' || !path[dir_len]);
}

static int inside_fd(int fd) {
    pthread_once(&once, begin);
    if (!dir)
        return 0;
    char link[64], path[PATH_MAX];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (len < 0)
        return 0;
    path[len] = 0;
    return inside(path);
}

/* The lock is held. True: the call fails, errno is set. */
static int fails(enum class class, const char *what) {
    if ((int)class != fail_class)
        return 0;
    seen++;
    if (seen != fail_at && !(fail_on && seen > fail_at))
        return 0;
    if (hit_path) {
        char line[PATH_MAX + 64];
        int len = snprintf(line, sizeof line, "%s %ld %s\n", CLASSES[class], seen, what);
        int fd = REAL(open)(hit_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || REAL(write)(fd, line, (size_t)len) != len)
            abort();
        close(fd);
    }
    errno = fail_errno;
    return 1;
}

static uint64_t inode_of(int fd) {
    struct stat st;
    return fstat(fd, &st) ? 0 : st.st_ino;
}

static void enter(void) { pthread_mutex_lock(&lock); }

#define LEAVE(result)                                                                             \
    do {                                                                                          \
        int kept_ = errno;                                                                        \
        pthread_mutex_unlock(&lock);                                                              \
        errno = kept_;                                                                            \
        return result;                                                                            \
    } while (0)

/* ---- names */

static int open_any(int (*call)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!(flags & (O_CREAT | O_TRUNC)) || !inside(path))
        return call(path, flags, mode);
    enter();
    struct stat st;
    int is_new = lstat(path, &st) != 0;
    if (is_new && fails(C_CREATE, path))
        LEAVE(-1);
    int fd = call(path, flags, mode);
    if (fd >= 0 && is_new)
        record(OP_CREATE, inode_of(fd), 0, path, "", NULL, 0);
    else if (fd >= 0 && (flags & O_TRUNC))
        record(OP_TRUNCATE, inode_of(fd), 0, path, "", NULL, 0);
    LEAVE(fd);
}

#define OPEN(name)                                                                                \
    int name(const char *path, int flags, ...) {                                                  \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                   \
        va_end(rest);                                                                             \
        return open_any(REAL(name), path, flags, mode);                                           \
    }
OPEN(open)
OPEN(open64)

FILE *fopen(const char *path, const char *mode) {
    if (inside(path) && mode[0] != 'r') {
        enter();
        record(OP_FOREIGN, 0, 0, "fopen", path, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return REAL(fopen)(path, mode);
}

int mkdir(const char *path, mode_t mode) {
    if (!inside(path))
        return REAL(mkdir)(path, mode);
    enter();
    struct stat st;
    if (lstat(path, &st) && fails(C_MKDIR, path))
        LEAVE(-1);
    int done = REAL(mkdir)(path, mode);
    if (!done && !stat(path, &st))
        record(OP_MKDIR, st.st_ino, 0, path, "", NULL, 0);
    LEAVE(done);
}

int rename(const char *from, const char *to) {
    if (!inside(from) && !inside(to))
        return REAL(rename)(from, to);
    enter();
    if (fails(C_RENAME, to))
        LEAVE(-1);
    int done = REAL(rename)(from, to);
    if (!done)
        record(OP_RENAME, 0, 0, from, to, NULL, 0);
    LEAVE(done);
}

static int unlink_any(int (*call)(const char *), const char *path) {
    if (!inside(path))
        return call(path);
    enter();
    struct stat st;
    if (!lstat(path, &st) && fails(C_UNLINK, path))
        LEAVE(-1);
    int done = call(path);
    if (!done)
        record(OP_UNLINK, 0, 0, path, "", NULL, 0);
    LEAVE(done);
}

int unlink(const char *path) { return unlink_any(REAL(unlink), path); }
int rmdir(const char *path) { return unlink_any(REAL(rmdir), path); }

int unlinkat(int at, const char *name, int flags) {
    if (!inside_fd(at))
        return REAL(unlinkat)(at, name, flags);
    char link[64], path[PATH_MAX * 2];
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0)
        return -1;
    snprintf(path + len, sizeof path - (size_t)len, "/%s", name);
    enter();
    if (fails(C_UNLINK, path))
        LEAVE(-1);
    int done = REAL(unlinkat)(at, name, flags);
    if (!done)
        record(OP_UNLINK, 0, 0, path, "", NULL, 0);
    LEAVE(done);
}

int link(const char *from, const char *to) {
    if (inside(to)) {
        enter();
        record(OP_FOREIGN, 0, 0, "link", to, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return REAL(link)(from, to);
}

/* ---- bytes */

static void wrote(int fd, uint64_t offset, const struct iovec *data, int count, ssize_t done) {
    struct iovec cut[16];
    int used = 0;
    size_t left = done > 0 ? (size_t)done : 0;
    if (log_fd < 0 || !left)
        return;
    for (int i = 0; i < count && left; i++) {
        size_t len = data[i].iov_len < left ? data[i].iov_len : left;
        if (used == 16)
            abort();
        cut[used++] = (struct iovec){data[i].iov_base, len};
        left -= len;
    }
    record(OP_WRITE, inode_of(fd), offset, "", "", cut, used);
}

/* Where a write without an offset went: the position after it less what was written. */
static uint64_t before(int fd, ssize_t done) {
    off_t now = lseek(fd, 0, SEEK_CUR);
    return done > 0 ? (uint64_t)(now - done) : 0;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    if (!inside_fd(fd))
        return REAL(write)(fd, bytes, len);
    enter();
    if (fails(C_WRITE, "write"))
        LEAVE(-1);
    ssize_t done = REAL(write)(fd, bytes, len);
    struct iovec one = {(void *)bytes, len};
    wrote(fd, before(fd, done), &one, 1, done);
    LEAVE(done);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!inside_fd(fd))
        return REAL(writev)(fd, parts, count);
    enter();
    if (fails(C_WRITE, "writev"))
        LEAVE(-1);
    ssize_t done = REAL(writev)(fd, parts, count);
    wrote(fd, before(fd, done), parts, count, done);
    LEAVE(done);
}

#define PWRITE(name)                                                                              \
    ssize_t name(int fd, const void *bytes, size_t len, off_t offset) {                           \
        if (!inside_fd(fd))                                                                       \
            return REAL(name)(fd, bytes, len, offset);                                            \
        enter();                                                                                  \
        if (fails(C_WRITE, #name))                                                                \
            LEAVE(-1);                                                                            \
        ssize_t done = REAL(name)(fd, bytes, len, offset);                                        \
        struct iovec one = {(void *)bytes, len};                                                  \
        wrote(fd, (uint64_t)offset, &one, 1, done);                                               \
        LEAVE(done);                                                                              \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SYNC(name, op)                                                                            \
    int name(int fd) {                                                                            \
        if (!inside_fd(fd))                                                                       \
            return REAL(name)(fd);                                                                \
        enter();                                                                                  \
        if (fails(C_FSYNC, #name))                                                                \
            LEAVE(-1);                                                                            \
        int done = REAL(name)(fd);                                                                \
        if (!done)                                                                                \
            record(op, inode_of(fd), 0, "", "", NULL, 0);                                         \
        LEAVE(done);                                                                              \
    }
SYNC(fsync, OP_FSYNC)
SYNC(fdatasync, OP_FDATASYNC)

#define TRUNCATE(name)                                                                            \
    int name(int fd, off_t len) {                                                                 \
        if (!inside_fd(fd))                                                                       \
            return REAL(name)(fd, len);                                                           \
        enter();                                                                                  \
        if (fails(C_TRUNCATE, #name))                                                             \
            LEAVE(-1);                                                                            \
        int done = REAL(name)(fd, len);                                                           \
        if (!done)                                                                                \
            record(OP_TRUNCATE, inode_of(fd), (uint64_t)len, "", "", NULL, 0);                    \
        LEAVE(done);                                                                              \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int fallocate(int fd, int mode, off_t offset, off_t len) {
    if (!inside_fd(fd))
        return REAL(fallocate)(fd, mode, offset, len);
    enter();
    if (fails(C_FALLOCATE, "fallocate"))
        LEAVE(-1);
    int done = REAL(fallocate)(fd, mode, offset, len);
    /* Room beyond the end changes no byte and no length; anything else would. */
    int harmless = mode & FALLOC_FL_KEEP_SIZE;
    struct stat st;
    if (!done && !fstat(fd, &st) && (mode & FALLOC_FL_PUNCH_HOLE) && offset < st.st_size)
        harmless = 0;
    if (!done)
        record(harmless ? OP_FALLOCATE : OP_FOREIGN, inode_of(fd), (uint64_t)offset,
               harmless ? "" : "fallocate", "", NULL, 0);
    LEAVE(done);
}

int posix_fallocate(int fd, off_t offset, off_t len) {
    if (inside_fd(fd)) {
        enter();
        record(OP_FOREIGN, inode_of(fd), 0, "posix_fallocate", "", NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return REAL(posix_fallocate)(fd, offset, len);
}

#define MMAP(name)                                                                                \
    void *name(void *at, size_t len, int prot, int flags, int fd, off_t offset) {                 \
        if ((prot & PROT_WRITE) && (flags & MAP_SHARED) && fd >= 0 && inside_fd(fd)) {            \
            enter();                                                                              \
            record(OP_FOREIGN, inode_of(fd), 0, "mmap", "", NULL, 0);                             \
            pthread_mutex_unlock(&lock);                                                          \
        }                                                                                         \
        return REAL(name)(at, len, prot, flags, fd, offset);                                      \
    }
MMAP(mmap)
MMAP(mmap64)

/* Between fsx and its file: opens it with O_DIRECT, and has the volume mounted anew between closing
   and opening it again. fsx itself can do neither.

   FSX_FILE     path that is meant, as fsx was given it
   FSX_DIRECT   if set, open it with O_DIRECT
   FSX_EVERY    at each so many openings of an existing file ...
   FSX_BETWEEN  ... run this command first; when it fails, fsx ends with 99 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long opened;

static int open_it(const char *path, int flags, mode_t mode)
{
    const char *file = getenv("FSX_FILE");
    if (file && !strcmp(path, file)) {
        const char *every = getenv("FSX_EVERY"), *between = getenv("FSX_BETWEEN");
        if (getenv("FSX_DIRECT"))
            flags |= O_DIRECT;
        if (every && between && !(flags & O_CREAT) && ++opened % strtoul(every, 0, 10) == 0
            && system(between) != 0)
            _exit(99);
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        mode_t mode = 0;                                                                           \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                       \
            va_list more;                                                                          \
            va_start(more, flags);                                                                 \
            mode = va_arg(more, mode_t);                                                           \
            va_end(more);                                                                          \
        }                                                                                          \
        return open_it(path, flags, mode);                                                         \
    }

OPEN(open)
OPEN(open64)

/* Makes calls on chosen files fail, in processes that were started with it in LD_PRELOAD.
 *
 * The file named by DFS_FAULTS has one fault a line, read anew at every call:
 *
 *     CALL ERRNO PREFIX
 *
 * CALL is read, write or sync; a call of that kind on a file whose path begins with PREFIX fails
 * with that errno; with ENOSPC only one that makes the file longer. An empty or missing file: no
 * faults. This is how a test gives one server of a
 * running cluster a disk that cannot read, or write, or sync, without a switch in the product.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <fcntl.h>

static int grows(int fd, off_t end)
{
    struct stat status;
    return fstat(fd, &status) == 0 && end > status.st_size;
}

static off_t end_of(const struct iovec *v, int n, off_t at)
{
    for (int i = 0; i < n; i++)
        at += v[i].iov_len;
    return at;
}

static int fault_of(int fd, const char *call, off_t end)
{
    const char *faults = getenv("DFS_FAULTS");
    char text[4096], link[64], path[PATH_MAX];
    if (faults == NULL)
        return 0;
    int file = syscall(SYS_openat, AT_FDCWD, faults, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t got = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    if (got <= 0)
        return 0;
    text[got] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        char kind[16], prefix[PATH_MAX];
        int number;
        if (sscanf(line, "%15s %d %4095s", kind, &number, prefix) == 3 &&
            strcmp(kind, call) == 0 && (number != ENOSPC || grows(fd, end)) &&
            strncmp(path, prefix, strlen(prefix)) == 0)
            return number;
    }
    return 0;
}

#define FAIL_OR_CALL(call, fd, end, name, type, ...)            \
    do {                                                        \
        int saved = errno, fault = fault_of(fd, call, end);     \
        errno = saved;                                          \
        if (fault) {                                            \
            errno = fault;                                      \
            return -1;                                          \
        }                                                       \
        static type honest;                                     \
        if (honest == NULL)                                     \
            honest = (type)dlsym(RTLD_NEXT, name);              \
        return honest(__VA_ARGS__);                             \
    } while (0)

typedef ssize_t (*vector_at)(int, const struct iovec *, int, off_t);
typedef ssize_t (*vector_at_flags)(int, const struct iovec *, int, off_t, int);
typedef ssize_t (*read_at)(int, void *, size_t, off_t);
typedef ssize_t (*write_at)(int, const void *, size_t, off_t);
typedef int (*on_file)(int);
typedef int (*cut_file)(int, off_t);

#define VECTOR(name, call)                                                            \
    ssize_t name(int fd, const struct iovec *v, int n, off_t at)                      \
    {                                                                                 \
        FAIL_OR_CALL(call, fd, end_of(v, n, at), #name, vector_at, fd, v, n, at);     \
    }
#define VECTOR_FLAGS(name, call)                                                      \
    ssize_t name(int fd, const struct iovec *v, int n, off_t at, int flags)           \
    {                                                                                 \
        FAIL_OR_CALL(call, fd, end_of(v, n, at), #name, vector_at_flags, fd, v, n, at, flags); \
    }
#define FILE_CALL(name, call)                                                         \
    int name(int fd)                                                                  \
    {                                                                                 \
        FAIL_OR_CALL(call, fd, 0, #name, on_file, fd);                                \
    }
#define CUT(name)                                                                     \
    int name(int fd, off_t length)                                                    \
    {                                                                                 \
        FAIL_OR_CALL("write", fd, length, #name, cut_file, fd, length);               \
    }

VECTOR(preadv, "read")
VECTOR(preadv64, "read")
VECTOR_FLAGS(preadv2, "read")
VECTOR_FLAGS(preadv64v2, "read")
VECTOR(pwritev, "write")
VECTOR(pwritev64, "write")
VECTOR_FLAGS(pwritev2, "write")
VECTOR_FLAGS(pwritev64v2, "write")
FILE_CALL(fdatasync, "sync")
FILE_CALL(fsync, "sync")
CUT(ftruncate)
CUT(ftruncate64)

ssize_t pread(int fd, void *to, size_t size, off_t at)
{
    FAIL_OR_CALL("read", fd, at + size, "pread", read_at, fd, to, size, at);
}
ssize_t pread64(int fd, void *to, size_t size, off_t at)
{
    FAIL_OR_CALL("read", fd, at + size, "pread64", read_at, fd, to, size, at);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at)
{
    FAIL_OR_CALL("write", fd, at + size, "pwrite", write_at, fd, from, size, at);
}
ssize_t pwrite64(int fd, const void *from, size_t size, off_t at)
{
    FAIL_OR_CALL("write", fd, at + size, "pwrite64", write_at, fd, from, size, at);
}

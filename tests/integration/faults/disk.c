/* Makes the disk of a process fail: LD_PRELOAD it, with a file named DISK_FAULT.
 *
 * While that file is there, each write or sync of a file whose path has "outbox.db" in it, but for the reserve, does what
 * the file says: "write N" and "sync N" fail with errno N, "sync hang" waits until the file is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_database(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "outbox.db") != NULL && strstr(path, ".reserve") == NULL;
}

/* The errno to fail with, 0 for none. */
static int fault(int fd, const char *call) {
    const char *name = getenv("DISK_FAULT");
    char said[32] = "";
    if (name == NULL || access(name, F_OK) != 0 || !is_database(fd)) return 0;
    FILE *file = fopen(name, "r");
    if (file == NULL) return 0;
    if (fgets(said, sizeof said, file) == NULL) said[0] = 0;
    fclose(file);
    size_t length = strlen(call);
    if (strncmp(said, call, length) != 0 || said[length] != ' ') return 0;
    if (strncmp(said + length + 1, "hang", 4) != 0) return atoi(said + length + 1);
    while (access(name, F_OK) == 0) usleep(10000);
    return 0;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)
#define FAIL(fd, call) do { int error = fault(fd, call); if (error) { errno = error; return -1; } } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    FAIL(fd, "write");
    return real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    FAIL(fd, "write");
    return real(fd, data, size, place);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    FAIL(fd, "write");
    return real(fd, data, size, place);
}

int fsync(int fd) {
    REAL(int, fsync, int);
    FAIL(fd, "sync");
    return real(fd);
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    FAIL(fd, "sync");
    return real(fd);
}

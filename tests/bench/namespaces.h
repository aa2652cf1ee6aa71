/* Shared by the programs that measure connections between network namespaces; a thread is in one of them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { APP = 1000 };

static void fail(const char *what) {
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

static void enter(const char *netns) {
    int fd = open(netns, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
        fail(netns);
    close(fd);
}

/* Makes this thread the application's; the library's function would change every thread. */
static void become_app(void) {
    if (syscall(SYS_setresuid, APP, APP, APP) != 0)
        fail("setresuid");
}

static struct sockaddr_in address_of(const char *ip, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, ip, &address.sin_addr) != 1)
        fail(ip);
    return address;
}

static int listen_on(const char *port) {
    struct sockaddr_in address = address_of("0.0.0.0", port);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0)
        fail(port);
    return listener;
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Room for this many durations. */
static long long *results(long count) {
    long long *took = calloc(count, sizeof *took);
    if (took == NULL)
        fail("calloc");
    return took;
}

static void print_all(const long long *took, long count) {
    for (long i = 0; i < count; i++)
        printf("%lld\n", took[i]);
}

/*
 * Usage: roundtrip COUNT CLIENT ADDRESS PORT SERVER LISTENER
 * Sends a byte COUNT times over one connection, each after the answer to the one before, as the user 1000 in the network
 * namespace CLIENT (a path), to an IPv4 address and port. The connection must arrive at the port LISTENER in the
 * namespace SERVER.
 *
 * Prints how long each round trip took, in nanoseconds, one a line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
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
    fprintf(stderr, "roundtrip: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void enter(const char *netns) {
    int fd = open(netns, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
        fail(netns);
    close(fd);
}

static struct sockaddr_in address_of(const char *ip, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, ip, &address.sin_addr) != 1)
        fail(ip);
    return address;
}

static void without_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Sends every byte back until the client is gone. */
static void *serve(void *argument) {
    int fd = accept(*(int *)argument, NULL, NULL);
    char byte;
    if (fd < 0)
        fail("accept");
    without_delay(fd);
    while (read(fd, &byte, 1) == 1)
        if (write(fd, &byte, 1) != 1)
            fail("an answer");
    return NULL;
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **arguments) {
    if (count != 7)
        return 2;
    struct sockaddr_in any = address_of("0.0.0.0", arguments[6]), to = address_of(arguments[3], arguments[4]);
    enter(arguments[5]);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) != 0 || listen(listener, 1) != 0)
        fail(arguments[6]);
    pthread_t thread;
    pthread_create(&thread, NULL, serve, &listener);

    long trips = atol(arguments[1]);
    long long *took = calloc(trips, sizeof *took);
    enter(arguments[2]);
    /* Of this thread alone; the library's function would change every thread. */
    if (took == NULL || syscall(SYS_setresuid, APP, APP, APP) != 0)
        fail("preparing");
    int client = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client, (const struct sockaddr *)&to, sizeof to) != 0)
        fail("connect");
    without_delay(client);
    for (long i = 0; i < trips; i++) {
        char byte = 0;
        long long begin = now();
        if (write(client, &byte, 1) != 1 || read(client, &byte, 1) != 1)
            fail("a round trip");
        took[i] = now() - begin;
    }
    close(client);
    pthread_join(thread, NULL);
    for (long i = 0; i < trips; i++)
        printf("%lld\n", took[i]);
    return 0;
}

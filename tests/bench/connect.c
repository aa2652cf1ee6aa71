/*
 * Usage: connect COUNT CLIENT ADDRESS PORT SERVER PORT [SERVER PORT]...
 * Opens COUNT connections one after another, as the user 1000 in the network namespace CLIENT (a path), to an IPv4
 * address and port, and listens in each namespace SERVER on the port given with it.
 *
 * Prints how many connections arrived at each server, on one line, and then how long each connect(2) took, in
 * nanoseconds, one a line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { APP = 1000, MOST_SERVERS = 4, PATIENCE = 50 /* ms */ };

static atomic_bool calls_are_over;

struct server {
    int listener;
    long arrived;
};

static void fail(const char *what) {
    fprintf(stderr, "connect: %s: %s\n", what, strerror(errno));
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

static int listen_on(const char *port) {
    struct sockaddr_in address = address_of("0.0.0.0", port);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0)
        fail(port);
    return listener;
}

/* Accepts until the calls are over and none is pending. */
static void *serve(void *argument) {
    struct server *server = argument;
    struct pollfd waiting = {.fd = server->listener, .events = POLLIN};
    while (poll(&waiting, 1, PATIENCE) > 0 || !calls_are_over) {
        if (!(waiting.revents & POLLIN))
            continue;
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0)
            fail("accept");
        close(fd);
        server->arrived++;
    }
    return NULL;
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long connect_once(const struct sockaddr_in *address) {
    /* A reset ends the connection at once, and its port can be used again. */
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int client = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    long long begin = now();
    if (connect(client, (const struct sockaddr *)address, sizeof *address) != 0)
        fail("connect");
    long long end = now();
    close(client);
    return end - begin;
}

int main(int count, char **arguments) {
    int servers_count = (count - 5) / 2;
    if (count < 7 || count % 2 == 0 || servers_count > MOST_SERVERS)
        return 2;
    struct server servers[MOST_SERVERS] = {0};
    pthread_t threads[MOST_SERVERS];
    for (int i = 0; i < servers_count; i++) {
        enter(arguments[5 + 2 * i]);
        servers[i].listener = listen_on(arguments[6 + 2 * i]);
        pthread_create(&threads[i], NULL, serve, &servers[i]);
    }

    long connections = atol(arguments[1]);
    long long *took = calloc(connections, sizeof *took);
    struct sockaddr_in address = address_of(arguments[3], arguments[4]);
    enter(arguments[2]);
    /* Of this thread alone; the library's function would change every thread. */
    if (took == NULL || syscall(SYS_setresuid, APP, APP, APP) != 0)
        fail("preparing");
    for (long i = 0; i < connections; i++)
        took[i] = connect_once(&address);

    calls_are_over = true;
    for (int i = 0; i < servers_count; i++) {
        pthread_join(threads[i], NULL);
        printf("%ld%c", servers[i].arrived, i + 1 < servers_count ? ' ' : '\n');
    }
    for (long i = 0; i < connections; i++)
        printf("%lld\n", took[i]);
    return 0;
}

/*
 * Usage: connect COUNT CLIENT ADDRESS PORT SERVER PORT [SERVER PORT]...
 * Opens COUNT connections one after another, as the user 1000 in the network namespace CLIENT (a path), to an IPv4
 * address and port, and listens in each namespace SERVER on the port given with it.
 *
 * Prints how many connections arrived at each server, on one line, and then how long each connect(2) took, in
 * nanoseconds, one a line.
 */
#include "namespaces.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { MAX_SERVERS = 4, POLL_TIMEOUT = 50 /* ms */ };

static atomic_bool calls_are_over;

struct server {
    int listener;
    long arrived;
};

/* Accepts until the calls are over and none is pending. */
static void *serve(void *argument) {
    struct server *server = argument;
    struct pollfd waiting = {.fd = server->listener, .events = POLLIN};
    while (poll(&waiting, 1, POLL_TIMEOUT) > 0 || !calls_are_over) {
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
    if (count < 7 || count % 2 == 0 || servers_count > MAX_SERVERS)
        return 2;
    struct server servers[MAX_SERVERS] = {0};
    pthread_t threads[MAX_SERVERS];
    for (int i = 0; i < servers_count; i++) {
        enter(arguments[5 + 2 * i]);
        servers[i].listener = listen_on(arguments[6 + 2 * i]);
        pthread_create(&threads[i], NULL, serve, &servers[i]);
    }

    long connections = atol(arguments[1]);
    long long *took = results(connections);
    struct sockaddr_in address = address_of(arguments[3], arguments[4]);
    enter(arguments[2]);
    become_app();
    for (long i = 0; i < connections; i++)
        took[i] = connect_once(&address);

    calls_are_over = true;
    for (int i = 0; i < servers_count; i++) {
        pthread_join(threads[i], NULL);
        printf("%ld%c", servers[i].arrived, i + 1 < servers_count ? ' ' : '\n');
    }
    print_all(took, connections);
    return 0;
}

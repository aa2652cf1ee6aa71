/*
 * Usage: roundtrip COUNT CLIENT ADDRESS PORT SERVER LISTENER
 * Sends a byte COUNT times over one connection, each after the answer to the one before, as the user 1000 in the network
 * namespace CLIENT (a path), to an IPv4 address and port. The connection must arrive at the port LISTENER in the
 * namespace SERVER.
 *
 * Prints how long each round trip took, in nanoseconds, one a line.
 */
#include "namespaces.h"

#include <netinet/tcp.h>
#include <pthread.h>

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

int main(int count, char **arguments) {
    if (count != 7)
        return 2;
    struct sockaddr_in to = address_of(arguments[3], arguments[4]);
    enter(arguments[5]);
    int listener = listen_on(arguments[6]);
    pthread_t thread;
    pthread_create(&thread, NULL, serve, &listener);

    long trips = atol(arguments[1]);
    long long *took = results(trips);
    enter(arguments[2]);
    become_app();
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
    print_all(took, trips);
    return 0;
}

/*
 * Usage: send FILE
 * Sends the bytes of FILE to nf_tables as they are, in one message, and reads the answer to the last of them: the least
 * that any program must do to install the rules.
 */
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const char *what) {
    perror(what);
    return 1;
}

int main(int count, char **arguments) {
    if (count != 2)
        return 2;
    int file = open(arguments[1], O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0)
        return failed(arguments[1]);
    void *bytes = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (bytes == MAP_FAILED)
        return failed("mmap");

    int netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (netlink < 0)
        return failed("socket");
    int room = 2 * status.st_size; /* the kernel counts its own overhead, too */
    if (status.st_size > 100 * 1024 && setsockopt(netlink, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0)
        return failed("SO_SNDBUFFORCE");
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (sendto(netlink, bytes, status.st_size, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        return failed("sendto");

    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[1024];
    } answer;
    if (recv(netlink, &answer, sizeof answer, MSG_DONTWAIT) < 0)
        return failed("recv");
    if (answer.header.nlmsg_type != NLMSG_ERROR || answer.error.error != 0) {
        fprintf(stderr, "the kernel refused: %s\n", strerror(-answer.error.error));
        return 1;
    }
    return 0;
}

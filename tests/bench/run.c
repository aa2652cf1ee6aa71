/*
 * Usage: run NETNS STEPS
 * Runs the commands of the file STEPS one after another in a network namespace, as soon as standard input ends, and
 * prints when the first began and the last ended (nanoseconds of CLOCK_MONOTONIC), how much processor time they took
 * together (microseconds), and how much memory the largest of them (KiB).
 *
 * A step is a line of words, separated by tabs: a file for its standard input, the program, its arguments. What it
 * prints is thrown away. NETNS is a path, or - for the namespace that this process is in.
 *
 * It is static and does next to nothing itself, as a child's largest size counts from before the exec: from this one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 64, MAX_STEPS = 128 };

static char *steps[MAX_STEPS][MAX_WORDS + 1];

static void fail(const char *what) {
    fprintf(stderr, "run: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int read_steps(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0)
        fail(path);
    char *text = malloc(status.st_size + 1);
    if (text == NULL || read(file, text, status.st_size) != status.st_size)
        fail(path);
    text[status.st_size] = 0;
    int count = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (count == MAX_STEPS)
            fail("too many steps");
        int words = 0;
        for (char *word; (word = strsep(&line, "\t")) != NULL;) {
            if (words == MAX_WORDS)
                fail("too many words");
            steps[count][words++] = word;
        }
        count++;
    }
    return count;
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void say_what_failed(char **step, int status) {
    fprintf(stderr, "run: status %d of:", status);
    for (; *step != NULL; step++)
        fprintf(stderr, " %s", *step);
    fputc('\n', stderr);
    exit(1);
}

static void run(char **step, int null) {
    pid_t child = vfork();
    if (child < 0)
        fail("vfork");
    if (child == 0) {
        int input = open(step[0], O_RDONLY);
        if (input < 0 || dup2(input, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
            _exit(126);
        close(input);
        execvp(step[1], step + 1);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) < 0)
        fail("waitpid");
    if (status != 0)
        say_what_failed(step + 1, WEXITSTATUS(status));
}

int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    int steps_count = read_steps(arguments[2]);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (strcmp(arguments[1], "-") != 0) {
        int netns = open(arguments[1], O_RDONLY | O_CLOEXEC);
        if (netns < 0 || setns(netns, CLONE_NEWNET) != 0)
            fail(arguments[1]);
    }

    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    long long begin = now();
    for (int i = 0; i < steps_count; i++)
        run(steps[i], null);
    long long end = now();

    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    long long processor = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL;
    processor += usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    printf("%lld %lld %lld %ld\n", begin, end, processor, usage.ru_maxrss);
    return 0;
}

/* The wire of `make bench`: plays the providers (`wire upstream`) and their callers (`wire load`), one thread each,
 * epoll, 127.0.0.1 only. `wire run CORE COMMAND ...` becomes COMMAND, on one core. All end with whoever started them.
 */
#include "wire.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void die(const char *what)
{
    perror(what);
    exit(2);
}

int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int listen_on(int *port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(*port);
    socklen_t size = sizeof address;
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return fd;
}

int connect_to(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(port);
    if (fd < 0)
        die("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) { /* on loopback it does not block */
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

const char *head_end(const char *p, size_t n)
{
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    return end ? end + 4 : NULL;
}

const char *header(const char *head, const char *end, const char *name)
{
    size_t size = strlen(name);
    for (const char *line = memchr(head, '\n', (size_t)(end - head)); line && ++line + size < end;
         line = memchr(line, '\n', (size_t)(end - line)))
        if (!strncasecmp(line, name, size)) {
            for (line += size; *line == ' ';)
                line++;
            return line;
        }
    return NULL;
}

static int run_main(int argc, char **argv)
{
    cpu_set_t cores;
    if (argc < 3)
        return 2;
    CPU_ZERO(&cores);
    CPU_SET(atoi(argv[1]), &cores);
    if (sched_setaffinity(0, sizeof cores, &cores))
        die("core");
    execvp(argv[2], argv + 2);
    die(argv[2]);
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc > 1 && !strcmp(argv[1], "run"))
        return run_main(argc - 1, argv + 1);
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && !strcmp(argv[1], "upstream"))
        return upstream_main(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "load"))
        return load_main(argc - 1, argv + 1);
    fputs("usage: wire upstream [PORT] | wire load PORT REQUEST CONNECTIONS SECONDS [REQUESTS] [EVENTS] [SERIAL] | "
          "wire run CORE COMMAND ...\n", stderr);
    return 2;
}

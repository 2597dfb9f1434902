/* The fake provider: keep-alive, whole replies at once, streams of chunks at a pace, on three vendors' wires.
 *
 * GET /control?pace=MICROSECONDS&chunks=N sets how later streams run (0: as fast as they are taken) and, like
 * GET /stats, answers what was done so far. Paced streams start out of step with each other, as real ones are.
 */
#include "wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "wire_replies.h"

#define MAX_FD 16384
#define MAX_REQUEST (4 << 20)

struct piece {
    char *data;
    size_t size;
};
/* One vendor's wire; last[1] is how a stream ends whose caller asked for usage. */
struct dialect {
    struct piece whole, first, next, last[2];
};
struct conn {
    char *in;
    size_t used, room;
    char *rest; /* what the kernel did not take yet */
    size_t rest_size;
    const struct dialect *wire; /* of the stream that runs, else NULL */
    int usage, sent, place;
    int64_t due, pace;
};

static struct dialect openai, anthropic, gemini;
static struct conn conns[MAX_FD];
static int live[MAX_FD], live_count, epoll;
static int64_t pace;
static int chunks = 100;
static unsigned phase;
static struct {
    long long requests, streams, chunks, ended, aborted, connections;
} done;

static struct piece chunk(const char *head, const char *text, int end)
{
    struct piece made;
    made.data = malloc(strlen(head) + strlen(text) + 32);
    made.size = (size_t)sprintf(made.data, "%s%zx\r\n%s\r\n%s", head, strlen(text), text, end ? "0\r\n\r\n" : "");
    return made;
}

static struct dialect dialect(const char *whole, const char *first, const char *next, const char *last, const char *with_usage)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
                               "x-request-id: req_7d1f00c2a94b\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct dialect made;
    made.whole.data = malloc(strlen(whole) + 256);
    made.whole.size = (size_t)sprintf(
        made.whole.data,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_7d1f00c2a94b\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(whole), whole);
    if (*first)
        made.first = chunk(head, first, 0);
    else
        made.first = (struct piece){strdup(head), strlen(head)};
    made.next = chunk("", next, 0);
    made.last[0] = chunk("", last, 1);
    made.last[1] = chunk("", with_usage, 1);
    return made;
}

static void end_stream(struct conn *c)
{
    c->wire = NULL;
    live[c->place] = live[--live_count];
    conns[live[c->place]].place = c->place;
}

static void hang_up(int fd)
{
    struct conn *c = &conns[fd];
    if (c->wire) {
        end_stream(c);
        done.aborted++;
    }
    close(fd);
    free(c->in);
    free(c->rest);
    memset(c, 0, sizeof *c);
}

static void watch(int fd, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll, operation, fd, &event);
}

/* Send, keeping what does not fit; return -1 if the peer has left. */
static int put(int fd, const char *data, size_t size)
{
    struct conn *c = &conns[fd];
    ssize_t n = c->rest ? 0 : send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return -1;
    if (n < 0)
        n = 0;
    if ((size_t)n < size) {
        if (!c->rest)
            watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
        c->rest = realloc(c->rest, c->rest_size + size - (size_t)n);
        memcpy(c->rest + c->rest_size, data + n, size - (size_t)n);
        c->rest_size += size - (size_t)n;
    }
    return 0;
}

static int put_rest(int fd)
{
    struct conn *c = &conns[fd];
    ssize_t n = send(fd, c->rest, c->rest_size, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    c->rest_size -= (size_t)n;
    memmove(c->rest, c->rest + n, c->rest_size);
    if (!c->rest_size) {
        free(c->rest);
        c->rest = NULL;
        watch(fd, EPOLLIN, EPOLL_CTL_MOD);
    }
    return 0;
}

static int control(int fd, const char *line)
{
    char body[400], reply[600];
    const char *found;
    if (!strncmp(line, "GET /control", 12)) {
        if ((found = strstr(line, "pace=")))
            pace = atoll(found + 5);
        if ((found = strstr(line, "chunks=")))
            chunks = atoi(found + 7);
    }
    if (!strncmp(line, "GET /control", 12) || !strncmp(line, "GET /stats", 10))
        sprintf(body,
                "{\"requests\":%lld,\"streams\":%lld,\"chunks\":%lld,\"ended\":%lld,\"aborted\":%lld,\"connections\":%lld,"
                "\"live\":%d}",
                done.requests, done.streams, done.chunks, done.ended, done.aborted, done.connections, live_count);
    else
        strcpy(body, "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4o-mini\",\"object\":\"model\",\"created\":1,\"owned_by\":"
                     "\"openai\"}]}");
    int size = sprintf(reply, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       strlen(body), body);
    return put(fd, reply, (size_t)size);
}

static int says(const char *body, size_t size, const char *name)
{
    size_t length = strlen(name);
    const char *found = memmem(body, size, name, length);
    if (!found)
        return 0;
    found += length;
    if (*found == ' ')
        found++;
    return found + 4 <= body + size && !memcmp(found, "true", 4);
}

static int answer(int fd, const char *line, const char *body, size_t size)
{
    struct conn *c = &conns[fd];
    const char *path_end = strchr(line, '\r');
    size_t path = (size_t)(path_end - line);
    const struct dialect *wire = &openai;
    int streamed;
    if (memmem(line, path, "enerateContent", 14)) {
        wire = &gemini;
        streamed = memmem(line, path, ":streamGenerate", 15) != NULL;
    } else {
        if (memmem(line, path, "/messages", 9))
            wire = &anthropic;
        streamed = says(body, size, "\"stream\":");
    }
    done.requests++;
    if (!streamed)
        return put(fd, wire->whole.data, wire->whole.size);
    done.streams++;
    c->wire = wire;
    c->usage = says(body, size, "\"include_usage\":");
    c->sent = 0;
    c->pace = pace;
    /* The golden ratio spreads the starts evenly over one interval. */
    phase += 2654435769u;
    c->due = now_us() + (int64_t)((double)phase / 4294967296.0 * (double)pace);
    c->place = live_count;
    live[live_count++] = fd;
    return put(fd, wire->first.data, wire->first.size);
}

/* Answer the requests that have arrived in full; return -1 to hang up. */
static int serve(int fd)
{
    struct conn *c = &conns[fd];
    while (c->used && !c->wire) {
        const char *body = head_end(c->in, c->used), *length, *found;
        size_t size;
        if (!body)
            return 0;
        size_t head = (size_t)(body - c->in), have = c->used - head;
        if ((found = header(c->in, body, "transfer-encoding:")) && !strncasecmp(found, "chunked", 7)) {
            const char *end = memmem(body - 2, have + 2, "\r\n0\r\n\r\n", 7);
            if (end)
                size = (size_t)(end + 7 - body);
            else
                size = have + 1;
        } else {
            length = header(c->in, body, "content-length:");
            size = length ? strtoul(length, NULL, 10) : 0;
        }
        if (have < size) {
            if (!have && header(c->in, body, "expect:") && put(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25))
                return -1;
            return size > MAX_REQUEST ? -1 : 0;
        }
        if (!strncmp(c->in, "POST", 4) ? answer(fd, c->in, body, size) : control(fd, c->in))
            return -1;
        c->used -= head + size;
        memmove(c->in, c->in + head + size, c->used);
    }
    return 0;
}

static int receive(int fd)
{
    struct conn *c = &conns[fd];
    if (c->room - c->used < 16384) {
        if (c->room > 2 * MAX_REQUEST)
            return -1;
        c->room = c->room ? c->room * 2 : 32768;
        c->in = realloc(c->in, c->room + 1);
    }
    ssize_t n = recv(fd, c->in + c->used, c->room - c->used, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    c->used += (size_t)n;
    c->in[c->used] = 0;
    return serve(fd);
}

static void greet(int listener)
{
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        done.connections++;
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Send the chunks that are due; return when the next one is, 0 for at once, -1 for never. */
static int64_t play(void)
{
    int64_t soonest = -1;
    for (int i = 0; i < live_count; i++) {
        int fd = live[i];
        struct conn *c = &conns[fd];
        int failed = 0, over = c->sent >= chunks;
        if (c->rest)
            continue; /* its reader is slow: go on once the kernel took the rest */
        int64_t now = now_us();
        if (c->due <= now) {
            if (!over) {
                failed = put(fd, c->wire->next.data, c->wire->next.size);
                c->sent++;
                done.chunks++;
                c->due = c->pace ? c->due + c->pace : now;
                if (c->due < now - 100000) /* we cannot keep up: do not burst later */
                    c->due = now;
            } else {
                const struct piece *last = &c->wire->last[c->usage];
                end_stream(c);
                i--;
                failed = put(fd, last->data, last->size);
                done.ended++;
                failed = failed || serve(fd);
            }
            if (failed) {
                if (!over)
                    i--;
                hang_up(fd);
            }
            if (failed || !c->wire)
                continue;
        }
        if (soonest < 0 || c->due < soonest)
            soonest = c->due;
    }
    return soonest;
}

int upstream_main(int argc, char **argv)
{
    struct epoll_event events[256];
    int port = argc > 1 ? atoi(argv[1]) : 0, listener = listen_on(&port);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int64_t armed = -1;
    openai = dialect(OPENAI_WHOLE, OPENAI_FIRST, OPENAI_NEXT, OPENAI_LAST OPENAI_DONE, OPENAI_LAST OPENAI_COUNTS OPENAI_DONE);
    anthropic = dialect(ANTHROPIC_WHOLE, ANTHROPIC_FIRST, ANTHROPIC_NEXT, ANTHROPIC_LAST, ANTHROPIC_LAST);
    gemini = dialect(GEMINI_WHOLE, "", GEMINI_NEXT, GEMINI_LAST, GEMINI_LAST);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(timer, EPOLLIN, EPOLL_CTL_ADD);
    printf("%d\n", port);
    fflush(stdout);
    for (;;) {
        int64_t next = play(), now = now_us();
        if (next > now && next != armed) {
            struct itimerspec when = {.it_value = {next / 1000000, next % 1000000 * 1000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
            armed = next;
        }
        int count = epoll_wait(epoll, events, 256, next >= 0 && next <= now ? 0 : -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd, failed = 0;
            if (fd == listener) {
                greet(listener);
            } else if (fd == timer) {
                uint64_t expired;
                armed = -1;
                if (read(timer, &expired, sizeof expired) < 0)
                    continue;
            } else {
                if (events[i].events & EPOLLOUT)
                    failed = put_rest(fd);
                if (!failed && events[i].events & ~(uint32_t)EPOLLOUT)
                    failed = receive(fd);
                if (failed)
                    hang_up(fd);
            }
        }
    }
}

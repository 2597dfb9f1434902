/* The callers: C connections, each with one request on its way at any time, until the time or the count is up.
 *
 * REQUEST is a file with the raw bytes to send; sixteen `#` in it become a number that no two requests share. Prints
 * one JSON line: what came back, how long it took, and what went wrong. A stream with fewer events than EVENTS is
 * counted as `short`.
 */
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MARK "################"
#define WORDS "~~~~~~~~~~~~~~~~"
#define MAX_HEAD 32768
#define PATIENCE INT64_C(15000000)

enum body { HEAD, LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, TO_END };
struct caller {
    int fd, busy, status, closes, line, used;
    enum body state;
    size_t sent, left;
    long events;
    int64_t began;
    char *request, head[MAX_HEAD];
};
struct times {
    uint32_t *us;
    size_t count, room;
};

static int port, epoll, busy, in_words;
static char *template, sample[161];
static size_t template_size, mark;
static struct caller *callers;
static struct times whole, first;
static long limit, wanted_events, begun;
static unsigned long long serial;
static int64_t until;
static long ok, non2xx, cut, broken, timeouts, reconnects, first_status;
static long long events, bytes;

static void note(struct times *t, int64_t us)
{
    if (t->count == t->room) {
        t->room = t->room ? t->room * 2 : 4096;
        t->us = realloc(t->us, t->room * sizeof *t->us);
    }
    t->us[t->count++] = (uint32_t)us;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t quantile(const struct times *t, double q)
{
    return t->count ? t->us[(size_t)((double)(t->count - 1) * q)] : 0;
}

static void watch(struct caller *c, uint32_t what, int operation)
{
    struct epoll_event event = {.events = what, .data.ptr = c};
    epoll_ctl(epoll, operation, c->fd, &event);
}

static void dial(struct caller *c)
{
    c->fd = connect_to(port);
    if (c->fd < 0) {
        fprintf(stderr, "nobody listens on 127.0.0.1:%d\n", port);
        exit(3);
    }
    watch(c, EPOLLIN, EPOLL_CTL_ADD);
}

static void redial(struct caller *c)
{
    close(c->fd);
    reconnects++;
    dial(c);
}

static int push(struct caller *c)
{
    ssize_t n = send(c->fd, c->request + c->sent, template_size - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return -1;
    if (n > 0)
        c->sent += (size_t)n;
    watch(c, c->sent < template_size ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    return 0;
}

static void lost(struct caller *c, long *why);

static void spell(char *words, unsigned long long number)
{
    for (int i = 15; i >= 0; i--) {
        words[i] = i % 5 == 4 ? ' ' : (char)('a' + number % 26);
        if (i % 5 != 4)
            number /= 26;
    }
}

static void begin(struct caller *c)
{
    if ((limit && begun >= limit) || now_us() >= until)
        return;
    if (mark) {
        char digits[17];
        if (in_words)
            spell(digits, serial++);
        else
            sprintf(digits, "%016llu", serial++);
        memcpy(c->request + mark, digits, 16);
    }
    begun++;
    busy++;
    c->busy = 1;
    c->state = HEAD;
    c->used = c->status = c->closes = c->line = 0;
    c->events = 0;
    c->sent = 0;
    c->began = now_us();
    ssize_t n = send(c->fd, c->request, template_size, MSG_NOSIGNAL);
    c->sent = n > 0 ? (size_t)n : 0;
    if (n < 0 && errno != EAGAIN)
        lost(c, &broken);
    else if (c->sent < template_size)
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
}

static void end(struct caller *c)
{
    c->busy = 0;
    busy--;
    note(&whole, now_us() - c->began);
    if (c->status / 100 != 2)
        non2xx++;
    else if (c->events < wanted_events)
        cut++;
    else
        ok++;
    if (c->closes)
        redial(c);
    begin(c);
}

static void lost(struct caller *c, long *why)
{
    if (c->busy) {
        c->busy = 0;
        busy--;
        (*why)++;
    }
    if (*why > 1000 && ok == 0) {
        fprintf(stderr, "nothing but lost connections on 127.0.0.1:%d\n", port);
        exit(3);
    }
    redial(c);
    begin(c);
}

/* Count events by the lines that begin with `data:`, however the body is cut. */
static void read_events(struct caller *c, const char *p, size_t n)
{
    static const char word[] = "data:";
    bytes += (long long)n;
    for (const char *stop = p + n; p < stop; p++) {
        if (c->line > 5) {
            p = memchr(p, '\n', (size_t)(stop - p));
            if (!p)
                return;
        }
        if (*p == '\n') {
            c->line = 0;
        } else if (c->line < 5 && *p == word[c->line]) {
            if (++c->line == 5) {
                c->line = 6;
                events++;
                if (++c->events == 1)
                    note(&first, now_us() - c->began);
            }
        } else {
            c->line = 6;
        }
    }
}

static int read_head(struct caller *c)
{
    const char *stop = head_end(c->head, (size_t)c->used), *found;
    if (!stop)
        return c->used == MAX_HEAD ? -1 : 0;
    c->status = atoi(c->head + 9);
    found = header(c->head, stop, "connection:");
    c->closes = found && !strncasecmp(found, "close", 5);
    c->state = TO_END;
    if ((found = header(c->head, stop, "transfer-encoding:")) && !strncasecmp(found, "chunked", 7)) {
        c->state = CHUNK_SIZE;
        c->left = 0;
    } else if ((found = header(c->head, stop, "content-length:"))) {
        c->state = LENGTH;
        c->left = strtoul(found, NULL, 10);
    }
    if (c->status / 100 != 2 && !first_status) {
        first_status = c->status;
        snprintf(sample, sizeof sample, "%.*s", (int)(c->head + c->used - stop), stop);
    }
    return (int)(stop - c->head);
}

/* Read on in the reply; return 1 at its end, 0 if there is more to come, -1 if it makes no sense. */
static int feed(struct caller *c, const char *p, size_t n)
{
    const char *stop = p + n;
    if (c->state == HEAD) {
        size_t room = (size_t)(MAX_HEAD - c->used), take = n < room ? n : room;
        int before = c->used;
        memcpy(c->head + c->used, p, take);
        c->used += (int)take;
        int size = read_head(c);
        if (size <= 0)
            return size;
        p += size - before;
    }
    if (c->state == LENGTH && !c->left)
        return 1;
    while (p < stop) {
        size_t have = (size_t)(stop - p), take = have < c->left ? have : c->left;
        switch (c->state) {
        case LENGTH:
        case CHUNK:
            read_events(c, p, take);
            p += take;
            c->left -= take;
            if (!c->left) {
                if (c->state == LENGTH)
                    return p == stop ? 1 : -1;
                c->state = CHUNK_END;
            }
            break;
        case CHUNK_SIZE:
            if (*p == '\n') {
                c->state = c->left ? CHUNK : TRAILER;
                c->line = c->state == TRAILER ? 0 : c->line;
            } else if (*p != '\r') {
                int digit = *p <= '9' ? *p - '0' : (*p | 32) - 'a' + 10;
                if (digit < 0 || digit > 15)
                    return -1;
                c->left = c->left * 16 + (size_t)digit;
            }
            p++;
            break;
        case CHUNK_END:
            if (*p++ == '\n')
                c->state = CHUNK_SIZE;
            break;
        case TRAILER: /* lines up to an empty one */
            if (*p == '\n') {
                if (!c->line)
                    return p + 1 == stop ? 1 : -1;
                c->line = 0;
            } else if (*p != '\r') {
                c->line = 1;
            }
            p++;
            break;
        default:
            read_events(c, p, have);
            p = stop;
        }
    }
    return 0;
}

static void receive(struct caller *c)
{
    static char buffer[262144];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (c->busy && c->state == TO_END && !n) {
            c->closes = 1;
            end(c);
        } else {
            lost(c, &broken);
        }
        return;
    }
    int result = c->busy ? feed(c, buffer, (size_t)n) : -1;
    if (result < 0)
        lost(c, &broken);
    else if (result)
        end(c);
}

static void read_template(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    template = malloc(8 << 20);
    template_size = fread(template, 1, 8 << 20, file);
    fclose(file);
    char *found = memmem(template, template_size, MARK, 16);
    if (!found && (found = memmem(template, template_size, WORDS, 16)))
        in_words = 1;
    mark = found ? (size_t)(found - template) : 0;
}

static void report(double seconds)
{
    qsort(whole.us, whole.count, sizeof *whole.us, by_size);
    qsort(first.us, first.count, sizeof *first.us, by_size);
    for (char *p = sample; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < 32 || (unsigned char)*p > 126)
            *p = '\'';
    printf("{\"requests\":%ld,\"ok\":%ld,\"non2xx\":%ld,\"short\":%ld,\"broken\":%ld,\"timeouts\":%ld,\"reconnects\":%ld,"
           "\"events\":%lld,\"bytes\":%lld,\"seconds\":%.6f,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"first_p50_us\":%u,"
           "\"first_p99_us\":%u,\"first_status\":%ld,\"sample\":\"%s\"}\n",
           begun, ok, non2xx, cut, broken, timeouts, reconnects, events, bytes, seconds, quantile(&whole, 0.5),
           quantile(&whole, 0.99), quantile(&whole, 1), quantile(&first, 0.5), quantile(&first, 0.99), first_status, sample);
}

int load_main(int argc, char **argv)
{
    struct epoll_event ready[256];
    if (argc < 5)
        return 2;
    port = atoi(argv[1]);
    read_template(argv[2]);
    int count = atoi(argv[3]);
    limit = argc > 5 ? atol(argv[5]) : 0;
    wanted_events = argc > 6 ? atol(argv[6]) : 0;
    serial = argc > 7 ? strtoull(argv[7], NULL, 10) : 0;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    callers = calloc((size_t)count, sizeof *callers);
    alarm((unsigned)(atof(argv[4]) + 60)); /* whatever happens, this ends */
    for (int i = 0; i < count; i++) {
        callers[i].request = malloc(template_size);
        memcpy(callers[i].request, template, template_size);
        dial(&callers[i]);
    }
    int64_t start = now_us(), scanned = start;
    until = start + (int64_t)(atof(argv[4]) * 1e6);
    for (int i = 0; i < count; i++)
        begin(&callers[i]);
    while (busy) {
        int n = epoll_wait(epoll, ready, 256, 100);
        for (int i = 0; i < n; i++) {
            struct caller *c = ready[i].data.ptr;
            if (ready[i].events & EPOLLOUT && c->busy && push(c)) {
                lost(c, &broken);
                continue;
            }
            if (ready[i].events & ~(uint32_t)EPOLLOUT)
                receive(c);
        }
        int64_t now = now_us();
        for (int i = 0; now - scanned > 100000 && i < count; i++)
            if (callers[i].busy && now - callers[i].began > PATIENCE)
                lost(&callers[i], &timeouts);
        if (now - scanned > 100000)
            scanned = now;
    }
    report((double)(now_us() - start) / 1e6);
    return 0;
}

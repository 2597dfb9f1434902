/* What the two halves of the wire share: loopback sockets, the clock, and finding things in HTTP heads. */
#ifndef WIRE_H
#define WIRE_H

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>

/* Return microseconds of the monotonic clock. */
int64_t now_us(void);
/* Return a non-blocking listener on 127.0.0.1:port (0: any) and set *port; exit with a message if there is none. */
int listen_on(int *port);
/* Return a non-blocking connection to 127.0.0.1:port, -1 if it is refused. */
int connect_to(int port);
/* Return where the head that begins at p ends (behind its blank line), NULL if it is not whole. */
const char *head_end(const char *p, size_t n);
/* Return where the value of a header begins (name in lower case with its colon), NULL if the head lacks it. */
const char *header(const char *head, const char *end, const char *name);
/* End with a message. */
void die(const char *what) __attribute__((noreturn));

int upstream_main(int argc, char **argv);
int load_main(int argc, char **argv);

#endif

/* The load generator of the benchmarks: one thread, epoll, keep-alive connections, closed loop.

   load MODE HOST PORT PATH CONNECTIONS STREAMS TEXTS END [HEADER...] < BODY      prints one line of JSON.
   MODE: load, ask STREAMS times, each connection as soon as its stream has ended · hold, print the line when STREAMS
   streams have their first text or have failed, and keep them.
   A text has one `~`. A stream is good when its status is 200, its texts are TEXTS or a multiple of it (some dialects
   say all again at the end), END stands in it, and its body ends as its HTTP form proves. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 18, HEAD_BYTES = 1 << 14, KEPT_BYTES = 64, EVENTS = 512, OPENING_MOST = 64 };
enum place { HEAD, SIZE, DATA, DATA_END, TRAILER, LENGTH, UNTIL_CLOSE };

struct stream {
    int fd; /* -1: no connection */
    bool good, ended, closes;
    enum place place;
    size_t left, texts, head_length, line_length, kept_length; /* left: bytes of this chunk or of the body */
    double asked_s;
    char head[HEAD_BYTES], kept[KEPT_BYTES]; /* kept: the end of the payload, where END may begin */
};

static struct sockaddr_in address;
static char request[1 << 20];
static const char *end_mark;
static size_t request_length, texts_expected, streams_most, begun, done, failed, texts, opening, firsts;
static double *first_s;
static bool holds;
static int poller;

static double clock_s(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- one answer -------------------------------------------------------------------------------------------------- */

static void take_in(struct stream *stream, const char *bytes, size_t length) { /* the payload of one read */
    if (!length)
        return;
    const char *found = bytes, *end = bytes + length;
    size_t before = stream->texts;
    for (; (found = memchr(found, '~', (size_t)(end - found))); found++)
        stream->texts++;
    if (!before && stream->texts) {
        first_s[firsts++] = clock_s(CLOCK_MONOTONIC) - stream->asked_s;
        opening--;
    }
    char *joined = (char *)bytes - stream->kept_length; /* there is room before: see read_on */
    memcpy(joined, stream->kept, stream->kept_length);
    length += stream->kept_length;
    stream->ended |= memmem(joined, length, end_mark, strlen(end_mark)) != NULL;
    stream->kept_length = length < KEPT_BYTES ? length : KEPT_BYTES;
    memcpy(stream->kept, joined + length - stream->kept_length, stream->kept_length);
}

static size_t read_head(struct stream *stream, const char *bytes, size_t length) {
    size_t room = HEAD_BYTES - 1 - stream->head_length, before = stream->head_length;
    memcpy(stream->head + before, bytes, length < room ? length : room);
    stream->head_length += length < room ? length : room;
    stream->head[stream->head_length] = 0;
    char *end = strstr(stream->head, "\r\n\r\n");
    if (!end)
        return length;
    end[2] = 0;
    stream->good = strncmp(stream->head + 8, " 200", 4) == 0;
    stream->closes = strcasestr(stream->head, "\r\nconnection: close") != NULL;
    char *size = strcasestr(stream->head, "\r\ncontent-length:");
    stream->left = size ? strtoul(size + 17, NULL, 10) : 0;
    stream->place = strcasestr(stream->head, "\r\ntransfer-encoding: chunked") ? SIZE : size ? LENGTH : UNTIL_CLOSE;
    return (size_t)(end + 4 - stream->head) - before;
}

/* Takes the HTTP form off in place: `bytes` becomes the payload alone. Returns whether the answer is whole. */
static bool read_on(struct stream *stream, char *bytes, size_t length) {
    char *from = bytes, *end = bytes + length, *to = bytes;
    bool whole = false;
    while (from < end && !whole) {
        size_t here = (size_t)(end - from), part = here < stream->left ? here : stream->left;
        switch (stream->place) {
        case HEAD:
            from += read_head(stream, from, here);
            whole = stream->place == LENGTH && !stream->left;
            break;
        case SIZE: /* its hexadecimal digits; extensions are passed over */
            if (*from == '\n') {
                stream->place = stream->left ? DATA : TRAILER;
                stream->line_length = 0;
            } else if (*from != '\r')
                stream->left = stream->left * 16 + (size_t)(*from <= '9' ? *from - '0' : (*from | 32) - 'a' + 10);
            from++;
            break;
        case DATA:
        case LENGTH:
        case UNTIL_CLOSE:
            part = stream->place == UNTIL_CLOSE ? here : part;
            memmove(to, from, part);
            to += part;
            from += part;
            stream->left -= stream->place == UNTIL_CLOSE ? 0 : part;
            whole = stream->place == LENGTH && !stream->left;
            stream->place = stream->place == DATA && !stream->left ? DATA_END : stream->place;
            break;
        case DATA_END:
            stream->place = *from++ == '\n' ? SIZE : DATA_END;
            break;
        case TRAILER: /* ends with an empty line */
            whole = *from == '\n' && !stream->line_length;
            stream->line_length = *from == '\n' ? 0 : stream->line_length + (*from != '\r');
            from++;
        }
    }
    take_in(stream, bytes, (size_t)(to - bytes));
    return whole;
}

/* --- a connection ------------------------------------------------------------------------------------------------ */

static void end(struct stream *stream, bool whole);

static void ask(struct stream *stream) {
    if (begun == streams_most)
        return;
    begun++;
    opening++;
    int fd = stream->fd;
    memset(stream, 0, offsetof(struct stream, head));
    stream->fd = fd;
    stream->asked_s = clock_s(CLOCK_MONOTONIC);
    if (fd < 0) {
        stream->fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (connect(stream->fd, (struct sockaddr *)&address, sizeof address))
            return end(stream, false);
        epoll_ctl(poller, EPOLL_CTL_ADD, stream->fd, &(struct epoll_event){EPOLLIN, {.ptr = stream}});
    }
    for (size_t sent = 0; sent < request_length;) {
        ssize_t wrote = send(stream->fd, request + sent, request_length - sent, MSG_NOSIGNAL);
        if (wrote < 0)
            return end(stream, false);
        sent += (size_t)wrote;
    }
}

static void end(struct stream *stream, bool whole) {
    bool all = stream->texts && stream->texts % texts_expected == 0;
    bool good = whole && stream->good && all && (stream->ended || !*end_mark);
    done++;
    failed += !good;
    opening -= !stream->texts;
    texts += good ? texts_expected : 0;
    if (!good && failed <= 3)
        fprintf(stderr, "load: whole %d, good %d, texts %zu, end %d: %.300s\n", whole, stream->good, stream->texts,
                stream->ended, stream->head);
    if (!whole || stream->closes || stream->place == UNTIL_CLOSE) {
        close(stream->fd);
        stream->fd = -1;
    }
    if (!holds)
        ask(stream);
}

static void hear(struct stream *stream) {
    static char bytes[KEPT_BYTES + READ_BYTES];
    ssize_t got = recv(stream->fd, bytes + KEPT_BYTES, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        return end(stream, got == 0 && stream->place == UNTIL_CLOSE);
    if (read_on(stream, bytes + KEPT_BYTES, (size_t)got))
        end(stream, true);
}

static int by_size(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static void say(double started_s) {
    qsort(first_s, firsts, sizeof *first_s, by_size);
    printf("{\"streams\":%zu,\"failed\":%zu,\"texts\":%zu,\"seconds\":%.6f,\"cpu_s\":%.6f,\"first_p50_us\":%.1f,"
           "\"first_p99_us\":%.1f}\n",
           begun, failed, texts, clock_s(CLOCK_MONOTONIC) - started_s, clock_s(CLOCK_PROCESS_CPUTIME_ID),
           firsts ? first_s[firsts / 2] * 1e6 : 0, firsts ? first_s[firsts * 99 / 100] * 1e6 : 0);
    fflush(stdout);
}

int main(int count, char **words) {
    if (count < 9)
        return fprintf(stderr, "usage: load load|hold HOST PORT PATH CONNECTIONS STREAMS TEXTS END [HEADER...]\n"), 2;
    holds = *words[1] == 'h';
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[3]))};
    inet_pton(AF_INET, words[2], &address.sin_addr);
    size_t connections = strtoul(words[5], NULL, 10);
    streams_most = strtoul(words[6], NULL, 10);
    texts_expected = strtoul(words[7], NULL, 10);
    end_mark = words[8];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){files.rlim_max, files.rlim_max});

    static char body[1 << 19];
    size_t body_length = fread(body, 1, sizeof body, stdin);
    request_length = (size_t)sprintf(request, "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/json\r\n"
                                     "Content-Length: %zu\r\n", words[4], words[2], words[3], body_length);
    for (int header = 9; header < count; header++)
        request_length += (size_t)sprintf(request + request_length, "%s\r\n", words[header]);
    memcpy(request + request_length, "\r\n", 2);
    memcpy(request + request_length + 2, body, body_length);
    request_length += 2 + body_length;

    poller = epoll_create1(0);
    first_s = calloc(streams_most, sizeof *first_s);
    struct stream *streams = calloc(connections, sizeof *streams);
    size_t opened = 0;
    double started_s = clock_s(CLOCK_MONOTONIC);
    while (done < streams_most && !(holds && firsts + failed >= streams_most)) {
        for (; opened < connections && (!holds || opening < OPENING_MOST); opened++) {
            streams[opened].fd = -1;
            ask(&streams[opened]);
        }
        struct epoll_event events[EVENTS];
        for (int found = epoll_wait(poller, events, EVENTS, -1); found-- > 0;)
            hear(events[found].data.ptr);
    }
    say(started_s);
    while (holds)
        pause();
}

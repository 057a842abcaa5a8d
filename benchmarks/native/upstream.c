/* The upstream of the benchmarks: one thread, epoll, bytes made beforehand. It checks nothing.

   upstream MODE TEXTS INTERVAL_MS CROWD      prints its origin, serves until stdin closes, prints its CPU seconds.
   MODE: burst, all at once · each, one write a text · cadence, a text each INTERVAL_MS · hold, the first and no more.
   A stream waits after its first text until CROWD streams do. Bodies with `warm up` in them are answered at once.
   Paths: /v1/chat/completions, OpenAI's events (whole without "stream":true) · /v1/models · any other, FlowGPT's lines
   (docs/protocol.md#response). Each text is an HTTP chunk of its own. Keep-alive; no pipelining. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_BYTES = 1 << 20, SLOTS_MOST = 1000, EVENTS = 512 };
enum mode { BURST, EACH, CADENCE, HOLD };

struct script { /* one whole HTTP answer; end[i] is where its text i ends, and the last end is that of the answer */
    char *bytes;
    size_t *end, count;
    bool at_once; /* whatever the mode */
};

struct stream { /* a connection; `script` is NULL between two answers */
    int fd;
    bool linked, polls_out;
    enum mode mode;
    const struct script *script;
    size_t at, next; /* bytes written; texts that may be */
    size_t request_length;
    char *request;
    LIST_ENTRY(stream) link; /* in the crowd that waits, or in a slot of the wheel */
};

LIST_HEAD(list, stream);
static struct list wheel[SLOTS_MOST], crowd;
static size_t slots, slot_now, slot_next, crowd_size, crowd_waits, texts;
static enum mode mode;
static int poller;

/* --- what is said ------------------------------------------------------------------------------------------------ */

static const char *PIECES[] = {" the", " light", "ción", " über", ", ", "\\n", " \\\"so\\\" ", " …"};
static const char LINE[] = "{\"event\":\"text\",\"data\":\"%s~%zu\"}\n\n";
#define HEAD "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000," \
             "\"model\":\"gpt-3.5-turbo\",\"choices\":[{\"index\":0,\"delta\":{"
static const char DELTA[] = HEAD "\"role\":\"assistant\",\"content\":\"%s~%zu\"},\"finish_reason\":null}]}\n\n";
static const char STOP[] = HEAD "},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

static const char WHOLE[] = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":"
                            "\"gpt-3.5-turbo\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
static const char USAGE[] = "\"},\"finish_reason\":\"stop\"}],"
                            "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}";
static const char MODELS[] = "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-3.5-turbo\",\"object\":\"model\","
                             "\"created\":1700000000,\"owned_by\":\"benchmarks\"}]}";

static size_t add(char *to, const char *bytes, size_t length) { /* as a chunk; one without bytes would be the last */
    if (!length)
        return 0;
    size_t head = (size_t)sprintf(to, "%zx\r\n", length);
    memcpy(to + head, bytes, length);
    memcpy(to + head + length, "\r\n", 2);
    return head + length + 2;
}

static const struct script *made(const char *type, const char *first, const char *form, size_t count, const char *last) {
    struct script *made = malloc(sizeof *made);
    *made = (struct script){malloc(2048 + count * (strlen(form) + 48)), malloc((count + 1) * sizeof(size_t)), count,
                            strcmp(type, "application/json") == 0};
    size_t length = (size_t)sprintf(
        made->bytes, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", type);
    length += add(made->bytes + length, first, strlen(first));
    for (size_t number = 0; number < count; number++) {
        char one[512];
        int size = snprintf(one, sizeof one, form, PIECES[number % 8], number);
        made->end[number] = length += add(made->bytes + length, one, (size_t)size);
    }
    length += add(made->bytes + length, last, strlen(last));
    memcpy(made->bytes + length, "0\r\n\r\n", 5);
    made->end[count ? count - 1 : 0] = length + 5;
    return made;
}

static const struct script *script_for(const char *request) { /* its head and body, ended by a zero byte */
    static const struct script *lines, *events, *whole, *models;
    const char *path = strchr(request, ' ') + 1, *json = "application/json";
    if (strncmp(path, "/v1/models", 10) == 0)
        return models ? models : (models = made(json, MODELS, "", 0, ""));
    if (strncmp(path, "/v1/chat/completions", 20) != 0)
        return lines ? lines : (lines = made("application/x-ndjson; charset=utf-8", "", LINE, texts, ""));
    if (strstr(request, "\"stream\":true") || strstr(request, "\"stream\": true"))
        return events ? events : (events = made("text/event-stream; charset=utf-8", "", DELTA, texts, STOP));
    return whole ? whole : (whole = made(json, WHOLE, "%s~%zu", texts, USAGE));
}

/* --- a stream ---------------------------------------------------------------------------------------------------- */

static void wait_for(struct stream *stream, bool out) {
    if (stream->polls_out == out)
        return;
    stream->polls_out = out;
    struct epoll_event event = {EPOLLIN | (out ? EPOLLOUT : 0), {.ptr = stream}};
    epoll_ctl(poller, EPOLL_CTL_MOD, stream->fd, &event);
}

static void put(struct stream *stream, struct list *list) {
    LIST_INSERT_HEAD(list, stream, link);
    stream->linked = true;
}

static void take(struct stream *stream) {
    if (stream->linked)
        LIST_REMOVE(stream, link);
    stream->linked = false;
}

static void write_on(struct stream *stream) { /* what may be written; a broken connection is closed by its own event */
    while (stream->script && stream->next) {
        const struct script *script = stream->script;
        size_t until = script->end[stream->next - 1];
        while (stream->at < until) {
            ssize_t wrote = send(stream->fd, script->bytes + stream->at, until - stream->at, MSG_NOSIGNAL);
            if (wrote < 0)
                return wait_for(stream, errno == EAGAIN);
            stream->at += (size_t)wrote;
        }
        if (stream->next >= script->count) {
            stream->script = NULL;
            take(stream);
        } else if (stream->mode == EACH)
            stream->next++;
        else
            break;
    }
    wait_for(stream, false);
}

static void begin(struct stream *stream, enum mode how) {
    stream->mode = how;
    stream->next = how == BURST && stream->script->count ? stream->script->count : 1;
    if (how == CADENCE)
        put(stream, &wheel[slot_next++ % slots]);
    write_on(stream);
}

static void answer(struct stream *stream) {
    stream->script = script_for(stream->request);
    stream->at = stream->request_length = 0;
    if (stream->script->at_once || strstr(stream->request, "warm up"))
        return begin(stream, BURST);
    if (crowd_size == 1)
        return begin(stream, mode);
    begin(stream, HOLD);
    put(stream, &crowd);
    if (++crowd_waits < crowd_size)
        return;
    crowd_waits = 0;
    for (struct stream *one; (one = LIST_FIRST(&crowd));) {
        take(one);
        begin(one, mode);
    }
}

static bool asked(struct stream *stream) { /* whether the request is whole */
    stream->request[stream->request_length] = 0;
    char *body = strstr(stream->request, "\r\n\r\n"), *length = strcasestr(stream->request, "\r\ncontent-length:");
    size_t expected = length && length < body ? strtoul(length + 17, NULL, 10) : 0;
    return body && stream->request_length >= (size_t)(body + 4 - stream->request) + expected;
}

static void hear(struct stream *stream) {
    size_t room = REQUEST_BYTES - 1 - stream->request_length;
    ssize_t got = recv(stream->fd, stream->request + stream->request_length, room, 0);
    if (got <= 0 && !(got < 0 && errno == EAGAIN)) {
        crowd_waits -= stream->linked && stream->mode == HOLD;
        take(stream);
        close(stream->fd);
        free(stream->request);
        free(stream);
        return;
    }
    stream->request_length += got > 0 ? (size_t)got : 0;
    if (!stream->script && asked(stream))
        answer(stream);
}

static void welcome(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct stream *stream = calloc(1, sizeof *stream);
        stream->fd = fd;
        stream->request = malloc(REQUEST_BYTES);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct epoll_event event = {EPOLLIN, {.ptr = stream}};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static void tick(int timer) {
    unsigned long long ticks;
    for (ticks = read(timer, &ticks, 8) == 8 ? ticks : 0; ticks; ticks--) {
        struct stream *stream = LIST_FIRST(&wheel[slot_now = (slot_now + 1) % slots]), *after;
        for (; stream; stream = after) {
            after = LIST_NEXT(stream, link);
            stream->next += stream->next < stream->script->count;
            write_on(stream);
        }
    }
}

int main(int count, char **words) {
    if (count != 5)
        return fprintf(stderr, "usage: upstream burst|each|cadence|hold TEXTS INTERVAL_MS CROWD\n"), 2;
    mode = *words[1] == 'b' ? BURST : *words[1] == 'e' ? EACH : *words[1] == 'c' ? CADENCE : HOLD;
    texts = strtoul(words[2], NULL, 10);
    double interval_ms = strtod(words[3], NULL);
    crowd_size = strtoul(words[4], NULL, 10);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){files.rlim_max, files.rlim_max});

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 8192))
        return perror("upstream"), 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    slots = interval_ms < 1 ? 1 : interval_ms > SLOTS_MOST ? SLOTS_MOST : (size_t)interval_ms; /* one a millisecond */
    long nanoseconds = (long)(interval_ms * 1e6 / (double)slots);
    struct timespec each = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    if (mode == CADENCE)
        timerfd_settime(timer, 0, &(struct itimerspec){each, each}, NULL);
    poller = epoll_create1(0);
    int sources[] = {STDIN_FILENO, listener, timer};
    for (int *source = sources; source < sources + 3; source++)
        epoll_ctl(poller, EPOLL_CTL_ADD, *source, &(struct epoll_event){EPOLLIN, {.ptr = source}});
    printf("http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);

    for (bool ended = false; !ended;) {
        struct epoll_event events[EVENTS];
        int found = epoll_wait(poller, events, EVENTS, -1);
        for (int one = 0; one < found; one++) {
            void *mark = events[one].data.ptr;
            if (mark == sources)
                ended = true;
            else if (mark == sources + 1)
                welcome(listener);
            else if (mark == sources + 2)
                tick(timer);
            else {
                if (events[one].events & EPOLLOUT)
                    write_on(mark);
                if (events[one].events & ~(unsigned)EPOLLOUT)
                    hear(mark);
            }
        }
    }
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    printf("%.6f\n", (double)used.tv_sec + (double)used.tv_nsec / 1e9);
}

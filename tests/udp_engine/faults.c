// Stands before the kernel's recvmmsg and sendmmsg (LD_PRELOAD) and does to them what a test has planned; before
// clock_gettime, too.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>

enum { RECEIVE, SEND };
enum {
    PASS,       // as the kernel does
    AT_MOST,    // so many messages of one call
    FAIL,       // with this errno
    FAIL_GROUP, // with this errno where a message is to be cut up; those before it go
    FAIL_PORT,  // with EPERM where a message goes to this port; those before it go
};

#define STEPS 64
typedef struct { int kind, value, times; } Step;

static Step steps[2][STEPS];
static int first[2], last[2], calls[2], stale;

void faults_plan(int call, int kind, int value, int times) { steps[call][last[call]++ % STEPS] = (Step){kind, value, times}; }
int faults_calls(int call) { return calls[call]; }
int faults_stale(void) { return stale; } // entries that were handed to recvmmsg as the kernel had left them

void faults_forget(void) {
    for (int call = RECEIVE; call <= SEND; call++) first[call] = last[call] = calls[call] = 0;
    stale = 0;
}

static Step next_step(int call) {
    calls[call]++;
    if (first[call] == last[call]) return (Step){PASS, 0, 0};
    Step* step = &steps[call][first[call] % STEPS];
    if (step->times > 0 && --step->times == 0) first[call]++;
    return *step;
}

static unsigned port_of(const struct msghdr* message) {
    const struct sockaddr_in* name = message->msg_name; // the port of IPv6 stands at the same place
    return ntohs(name->sin_port);
}

static int is_hit(const Step* step, const struct msghdr* message) {
    return step->kind == FAIL_GROUP ? message->msg_iovlen > 1 : port_of(message) == (unsigned)step->value;
}

int recvmmsg(int fd, struct mmsghdr* messages, unsigned count, int flags, struct timespec* timeout) {
    static int (*real)(int, struct mmsghdr*, unsigned, int, struct timespec*);
    if (!real) real = dlsym(RTLD_NEXT, "recvmmsg");
    Step step = next_step(RECEIVE);
    for (unsigned i = 0; i < count; i++) {
        const struct msghdr* message = &messages[i].msg_hdr;
        stale += message->msg_namelen < sizeof(struct sockaddr_in6) || message->msg_flags;
        stale += message->msg_control && message->msg_controllen < 64;
    }
    if (step.kind == FAIL) return errno = step.value, -1;
    if (step.kind == AT_MOST && (unsigned)step.value < count) count = step.value;
    return real(fd, messages, count, flags, timeout);
}

static int reads_to_pause;
static long pause_ns;

// Have whoever reads a clock for the which-th time from now (1: the next) lose the processor right after it.
void faults_pause(int which, long ns) { reads_to_pause = which, pause_ns = ns; }

int clock_gettime(clockid_t clock, struct timespec* now) {
    static int (*real)(clockid_t, struct timespec*);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (reads_to_pause > 0 && --reads_to_pause == 0) nanosleep(&(struct timespec){0, pause_ns}, NULL);
    return result;
}

int sendmmsg(int fd, struct mmsghdr* messages, unsigned count, int flags) {
    static int (*real)(int, struct mmsghdr*, unsigned, int);
    if (!real) real = dlsym(RTLD_NEXT, "sendmmsg");
    Step step = next_step(SEND);
    if (step.kind == FAIL) return errno = step.value, -1;
    if (step.kind == AT_MOST && (unsigned)step.value < count) count = step.value;
    if (step.kind == FAIL_GROUP || step.kind == FAIL_PORT)
        for (unsigned i = 0; i < count; i++)
            if (is_hit(&step, &messages[i].msg_hdr)) {
                if (!i) return errno = step.kind == FAIL_PORT ? EPERM : step.value, -1;
                count = i;
            }
    return real(fd, messages, count, flags);
}

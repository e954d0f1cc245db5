# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The load of the stress client: many sockets to one address, kept busy by one thread that holds no lock.

First the sockets, then what one of them sends and receives, then the loop, then what Python sees.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EAGAIN, ECONNREFUSED, ECONNRESET, EINPROGRESS, EINTR, ENOBUFS, EPIPE, ETIMEDOUT, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

import os
from collections import namedtuple

cdef extern from "_replies.h":
    enum: ID_DIGITS, BUCKETS, OUTCOMES, OUTCOME_GOOD, OUTCOME_OTHER, OUTCOME_CLOSED, OUTCOME_RESET, OUTCOME_UNREADABLE
    const char* outcome_codes[9]
    ctypedef struct Response:
        uint16_t status
        uint8_t last
    void write_id(char* text, uint32_t id) noexcept nogil
    bint read_id(const char* reply, size_t length, uint32_t* id) noexcept nogil
    int judge_reply(const char* reply, size_t length) noexcept nogil
    void response_begin(Response* response) noexcept nogil
    int response_read(Response* response, const char* data, size_t length, size_t* used) noexcept nogil
    int bucket_of(uint64_t ns) noexcept nogil
    uint64_t bucket_middle(int bucket) noexcept nogil

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
    int SOL_SOCKET, SO_RCVBUF, SO_ERROR, IPPROTO_TCP, MSG_DONTWAIT, MSG_NOSIGNAL
    ctypedef unsigned int socklen_t
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_family, sin_port
        uint32_t sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family, sin6_port
        uint32_t sin6_addr
    struct sockaddr_storage:
        pass
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int socket(int, int, int)
    int connect(int, const sockaddr*, socklen_t)
    int setsockopt(int, int, int, const void*, socklen_t)
    int getsockopt(int, int, int, void*, socklen_t*)
    ssize_t send(int, const void*, size_t, int)
    ssize_t recv(int, void*, size_t, int)
    int sendmmsg(int, mmsghdr*, unsigned int, int)
    int recvmmsg(int, mmsghdr*, unsigned int, int, timespec*)
    int inet_pton(int, const char*, void*)
    uint16_t htons(uint16_t)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY

cdef extern from "<poll.h>" nogil:
    short POLLIN
    struct pollfd:
        int fd
        short events
    int ppoll(pollfd*, unsigned long, const timespec*, const void*)

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLLIN, EPOLLOUT, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_TIMERSLACK, PR_GET_TIMERSLACK
    int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)

cdef extern from * nogil:
    int ctz "__builtin_ctzll" (uint64_t)
    int popcount "__builtin_popcountll" (uint64_t)

UDP, HTTP = 0, 1
ID_PLACEHOLDER = b'"id":"00000000"'
MAX_WINDOW, MAX_REQUEST = 64, 2048
cdef enum:
    WINDOWS = 64             # MAX_WINDOW
    ROOM = 2048              # MAX_REQUEST, and more than any reply in a datagram
    EVENTS = 512
    AT_ONCE = 64             # requests that are sent before replies are looked at again, connections opened at once
    BUFFER_BYTES = 1 << 20
    TICK_NS = 20_000_000     # how often late requests are looked for, and stop()
    GROUP_NS = 50_000        # above 20,000 a second, what is due in so long is due together
    SPIN_NS = 60_000         # shorter waits are not slept through: waking up takes as long

cdef enum LineState:
    CLOSED, CONNECTING, OPEN, DRAINING    # draining: has lost a request; sends no more, and is replaced when empty

cdef struct Slot:            # one request in flight
    uint64_t due_ns, sent_ns, number

cdef struct Line:            # one socket
    int fd
    uint8_t state
    bint queued              # stands in the queue of those with room
    uint64_t busy            # a bit for each slot in flight
    Response response

cdef struct Tally:           # written by the loop, read by Python meanwhile: each number is whole
    uint64_t sent, answered, errors, lost, unsent, unexpected, unreachable, reconnects, timely, longest_ns
    uint64_t began_ns, ended_ns
    uint64_t outcomes[OUTCOMES]
    uint64_t latencies[BUCKETS]

Reading = namedtuple(
    "Reading",
    "sent answered errors lost in_flight unsent unexpected unreachable reconnects timely sending_ns longest_ns"
    " latencies",
    module="udp_engine._load",    # it travels between processes
)


cdef uint64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1_000_000_000 + <uint64_t>t.tv_nsec


cdef class Load:
    cdef bint is_http, running, is_open    # open: epoll_fd is ours, which it is not before, whatever its number
    cdef volatile bint stopping
    cdef int epoll_fd, window, opened, most, waiting
    cdef uint64_t all_slots, timeout_ns, turn, in_flight
    cdef sockaddr_storage server
    cdef socklen_t server_bytes
    cdef Line* lines
    cdef Slot* slots
    cdef uint32_t* queue              # a ring of lines with room, for paced sending
    cdef uint64_t queue_begin, queue_end
    cdef object kept                  # holds the bytes that requests points into
    cdef int request_count
    cdef const char** requests
    cdef size_t* lengths
    cdef int64_t* id_places           # -1: no id
    cdef char* buffers                # WINDOWS of ROOM bytes
    cdef mmsghdr messages[WINDOWS]
    cdef iovec pieces[WINDOWS]
    cdef epoll_event events[EVENTS]
    cdef Tally tally
    # of the run under way
    cdef bint sending, paced
    cdef double interval_ns
    cdef uint64_t began_ns, scheduled

    # ---- sockets

    cdef int open_line(self, uint32_t place) noexcept nogil:
        """Return 0 or an errno."""
        cdef Line* line = &self.lines[place]
        cdef epoll_event event
        cdef int one = 1, size = BUFFER_BYTES, error = 0
        cdef int kind = SOCK_STREAM if self.is_http else SOCK_DGRAM
        cdef int fd = socket((<sockaddr*>&self.server).sa_family, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0:
            return errno
        if self.is_http:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        else:
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size))
        if connect(fd, <sockaddr*>&self.server, self.server_bytes) and errno != EINPROGRESS:
            error = errno
        event.events = EPOLLIN | (EPOLLOUT if self.is_http else 0)
        event.data.u32 = place
        if not error and epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event):
            error = errno
        if error:
            close(fd)
            return error
        line.fd, line.busy, line.queued = fd, 0, False
        line.state = CONNECTING if self.is_http else OPEN
        self.waiting += self.is_http
        return 0

    cdef void close_line(self, Line* line) noexcept nogil:
        self.waiting -= line.state == CONNECTING
        self.in_flight -= popcount(line.busy)
        close(line.fd)    # takes it out of the epoll set, too
        line.fd, line.busy, line.state = -1, 0, CLOSED

    cdef int reopen(self, uint32_t place) noexcept nogil:
        """Replace a socket; one that will not open now is tried again at the next tick."""
        if self.lines[place].state != CLOSED:
            self.close_line(&self.lines[place])
        self.tally.reconnects += 1
        cdef int error = self.open_line(place)
        if error == ECONNREFUSED or error == EAGAIN:
            self.tally.unreachable += 1
            return 0
        return error or self.has_room(place)

    cdef int connected(self, uint32_t place) noexcept nogil:
        """Finish connecting; return 0 or the errno with which it failed."""
        cdef Line* line = &self.lines[place]
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        cdef epoll_event event
        getsockopt(line.fd, SOL_SOCKET, SO_ERROR, &error, &size)
        if error:
            self.close_line(line)
            return error
        event.events, event.data.u32 = EPOLLIN, place
        epoll_ctl(self.epoll_fd, EPOLL_CTL_MOD, line.fd, &event)
        line.state = OPEN
        self.waiting -= 1
        response_begin(&line.response)
        return 0

    # ---- sending

    cdef int has_room(self, uint32_t place) noexcept nogil:
        """Use the room that a socket has: fill it at once, or note it for the next request that is due."""
        cdef Line* line = &self.lines[place]
        if line.state != OPEN or line.busy == self.all_slots or not self.sending:
            return 0
        if not self.paced:
            return self.transmit(place, self.window, now())
        if not line.queued:
            line.queued = True
            self.queue[self.queue_end % self.most] = place
            self.queue_end += 1
        return 0

    cdef int transmit(self, uint32_t place, int count, uint64_t moment) noexcept nogil:
        """Send up to *count* requests on a socket, as far as it has room; return 0 or an errno."""
        cdef Line* line = &self.lines[place]
        cdef uint64_t free = self.all_slots & ~line.busy
        cdef int prepared = 0, done, error, which
        cdef uint64_t number
        cdef char* text
        cdef Slot* slot
        count = min(count, popcount(free))
        for prepared in range(count):
            which = ctz(free)
            free &= free - 1
            number = self.turn + prepared
            text = self.prepare(prepared, number, which)
        if count == 0:
            return 0
        if count == 1:
            done = -1 if send(line.fd, text, self.pieces[0].iov_len, MSG_NOSIGNAL) < 0 else 1
        else:
            done = sendmmsg(line.fd, self.messages, count, 0)
        if done < 0:
            error = errno
            done = 0
            if error == ECONNREFUSED:
                self.tally.unreachable += 1    # an earlier datagram's; the next look finds the room again
            elif self.is_http and (error == EPIPE or error == ECONNRESET):
                return self.reopen(place)      # closed while idle: no request has gone out
            elif error != EAGAIN and error != ENOBUFS and error != EINTR:
                return error
        free = self.all_slots & ~line.busy
        for prepared in range(done):
            which = ctz(free)
            free &= free - 1
            slot = &self.slots[<size_t>place * self.window + which]
            slot.number = self.turn
            slot.sent_ns = moment
            slot.due_ns = moment
            if self.paced:
                slot.due_ns = self.due_time(self.scheduled)
                self.scheduled += 1
            line.busy |= <uint64_t>1 << which
            self.turn += 1
        self.in_flight += done
        self.tally.sent += done
        return 0

    cdef char* prepare(self, int message, uint64_t number, int which) noexcept nogil:
        """Write the request with this number, for this slot, into a buffer; return it."""
        cdef int turn = <int>(number % self.request_count)
        cdef char* text = self.buffers + message * ROOM
        memcpy(text, self.requests[turn], self.lengths[turn])
        if self.id_places[turn] >= 0:
            write_id(text + self.id_places[turn], id_of(number, which))
        self.pieces[message].iov_base, self.pieces[message].iov_len = text, self.lengths[turn]
        return text

    # ---- receiving

    cdef int settle(self, uint32_t place, int which, int outcome, uint64_t moment) noexcept nogil:
        """Count what became of a request and free its slot."""
        cdef Slot* slot = &self.slots[<size_t>place * self.window + which]
        cdef uint64_t took_ns = moment - slot.due_ns if moment > slot.due_ns else 0
        self.lines[place].busy &= ~(<uint64_t>1 << which)
        self.in_flight -= 1
        self.tally.outcomes[outcome] += 1
        if outcome == OUTCOME_GOOD or 200 <= outcome < 300:
            self.tally.answered += 1
            self.tally.latencies[bucket_of(took_ns)] += 1
            self.tally.longest_ns = max(self.tally.longest_ns, took_ns)
        else:
            self.tally.errors += 1
        self.tally.timely += self.sending
        return 0

    cdef int find(self, uint32_t place, const char* reply, size_t length) noexcept nogil:
        """Return the slot that a reply answers, or -1."""
        cdef Line* line = &self.lines[place]
        cdef Slot* slots = &self.slots[<size_t>place * self.window]
        cdef uint64_t rest = line.busy
        cdef uint32_t id
        cdef int which, oldest = -1
        if self.id_places[0] >= 0:
            if not read_id(reply, length, &id):
                return -1
            which = id % WINDOWS
            return which if rest >> which & 1 and id_of(slots[which].number, which) == id else -1
        while rest:
            which = ctz(rest)
            rest &= rest - 1
            if oldest < 0 or slots[which].number < slots[oldest].number:
                oldest = which
        return oldest

    cdef int receive_datagrams(self, uint32_t place) noexcept nogil:
        cdef Line* line = &self.lines[place]
        cdef int message, got, which
        cdef uint64_t moment
        cdef const char* reply
        for message in range(self.window):
            self.pieces[message].iov_base, self.pieces[message].iov_len = self.buffers + message * ROOM, ROOM
        if self.window == 1:
            got = <int>recv(line.fd, self.buffers, ROOM, MSG_DONTWAIT)
            if got >= 0:
                self.messages[0].msg_len, got = got, 1
        else:
            got = recvmmsg(line.fd, self.messages, self.window, MSG_DONTWAIT, NULL)
        if got < 0:
            self.tally.unreachable += errno == ECONNREFUSED
            return 0
        moment = now()
        for message in range(got):
            reply = self.buffers + message * ROOM
            which = self.find(place, reply, self.messages[message].msg_len)
            if which < 0:
                self.tally.unexpected += 1
            else:
                self.settle(place, which, judge_reply(reply, self.messages[message].msg_len), moment)
        if line.state == DRAINING and not line.busy:
            return self.reopen(place)
        return self.has_room(place)

    cdef int receive_response(self, uint32_t place) noexcept nogil:
        cdef Line* line = &self.lines[place]
        cdef size_t used = 0
        cdef int state, outcome
        cdef ssize_t got = recv(line.fd, self.buffers, WINDOWS * ROOM, MSG_DONTWAIT)
        if got < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        if got <= 0:
            return self.broken(place, OUTCOME_CLOSED if got == 0 else OUTCOME_RESET)
        if not line.busy:
            self.tally.unexpected += 1
            return self.reopen(place)
        state = response_read(&line.response, self.buffers, got, &used)
        if state == 0:
            return 0
        if state < 0:
            return self.broken(place, OUTCOME_UNREADABLE)
        self.settle(place, 0, line.response.status, now())
        if line.response.last or used < <size_t>got:
            self.tally.unexpected += used < <size_t>got
            return self.reopen(place)
        response_begin(&line.response)
        return self.has_room(place)

    cdef int broken(self, uint32_t place, int outcome) noexcept nogil:
        """Count the request that was under way on a connection, and open another."""
        if self.lines[place].busy:
            self.settle(place, 0, outcome, now())
        return self.reopen(place)

    # ---- the loop

    cdef int look(self, uint64_t wait_ns) noexcept nogil:
        """Handle what is ready, or wait so long for something to be; return 0 or an errno."""
        cdef int ready = epoll_wait(self.epoll_fd, self.events, EVENTS, 0), number, error
        cdef uint32_t place
        cdef pollfd poll
        cdef timespec limit
        if ready == 0 and wait_ns >= SPIN_NS:
            poll.fd, poll.events = self.epoll_fd, POLLIN
            limit.tv_sec, limit.tv_nsec = 0, min(wait_ns, <uint64_t>TICK_NS)
            ppoll(&poll, 1, &limit, NULL)    # epoll's own wait counts in milliseconds
            ready = epoll_wait(self.epoll_fd, self.events, EVENTS, 0)
        for number in range(ready):
            place = self.events[number].data.u32
            if self.lines[place].state == CONNECTING:
                error = self.connected(place)
                if error:
                    self.tally.unreachable += 1
                    error = 0
                else:
                    error = self.has_room(place)
            elif self.lines[place].state == CLOSED:
                continue
            elif self.is_http:
                error = self.receive_response(place)
            else:
                error = self.receive_datagrams(place)
            if error:
                return error
        return 0

    cdef int tick(self, uint64_t moment) noexcept nogil:
        """Give up on what is late, open what is closed, use what room there is; return 0 or an errno."""
        cdef uint32_t place
        cdef Line* line
        cdef uint64_t rest
        cdef int which, error
        for place in range(<uint32_t>self.opened):
            line = &self.lines[place]
            rest = line.busy
            while rest:
                which = ctz(rest)
                rest &= rest - 1
                if moment > self.slots[<size_t>place * self.window + which].sent_ns + self.timeout_ns:
                    line.busy &= ~(<uint64_t>1 << which)
                    line.state = DRAINING
                    self.in_flight -= 1
                    self.tally.lost += 1
            if line.state == CLOSED or (line.state == DRAINING and not line.busy):
                error = self.reopen(place)
            else:
                error = self.has_room(place)
            if error:
                return error
        return 0

    cdef int send_due(self, uint64_t due, double* allowance) noexcept nogil:
        """Send what is due, as far as it is allowed and sockets have room; return 0 or an errno."""
        cdef uint32_t place
        cdef int error, count = <int>min(due - self.scheduled, <uint64_t>AT_ONCE, <uint64_t>allowance[0])
        cdef uint64_t before
        while count > 0 and self.queue_begin < self.queue_end:
            place = self.queue[self.queue_begin % self.most]
            self.queue_begin += 1
            self.lines[place].queued = False
            if self.lines[place].state != OPEN:
                continue
            before = self.scheduled
            error = self.transmit(place, count, now())
            if error:
                return error
            count -= <int>(self.scheduled - before)
            allowance[0] -= self.scheduled - before
            if self.scheduled == before:
                return 0      # the socket takes no more now; the tick puts it in the queue again
            self.has_room(place)
        return 0

    cdef uint64_t due_time(self, uint64_t number) noexcept nogil:
        cdef uint64_t after_ns = <uint64_t>(number * self.interval_ns)
        # A system call for each would make the client the limit: a group goes out on one socket.
        return self.began_ns + after_ns - (after_ns % GROUP_NS if self.interval_ns < GROUP_NS else 0)

    cdef int pace(self, uint64_t moment, uint64_t last, uint64_t total, double* allowance, uint64_t* wait_ns) noexcept nogil:
        """One step of sending at a rate; set how long there is nothing to do. Return 0 or an errno."""
        cdef uint64_t elapsed_ns = moment - self.began_ns, due, next_ns
        cdef int error
        if self.interval_ns < GROUP_NS:
            elapsed_ns += GROUP_NS - 1 - elapsed_ns % GROUP_NS
        due = min(total, <uint64_t>(elapsed_ns / self.interval_ns) + 1)
        # Twice the rate, so that what is behind is caught up without a burst; a millisecond's worth at most.
        allowance[0] = min(allowance[0] + 2 * (moment - last) / self.interval_ns, max(<double>AT_ONCE, 1e6 / self.interval_ns))
        error = self.send_due(due, allowance)
        if self.scheduled < due:
            wait_ns[0] = SPIN_NS if self.queue_begin == self.queue_end else 0
        else:
            next_ns = self.due_time(self.scheduled)
            wait_ns[0] = next_ns - moment if next_ns > moment else 0
        return error

    cdef int drive(self, uint64_t length_ns) noexcept nogil:
        """Send for so long, and wait for what is in flight; return 0 or an errno."""
        cdef uint64_t moment = now(), last = moment, ticked = moment, wait_ns, total
        cdef uint64_t until = moment + length_ns
        cdef double allowance = AT_ONCE
        cdef uint32_t place = 0, group
        cdef int error
        self.began_ns = self.tally.began_ns = moment
        total = <uint64_t>(length_ns / self.interval_ns + 0.5) if self.paced else 0
        while self.sending or self.in_flight:
            wait_ns = TICK_NS
            if place < <uint32_t>self.opened:          # the beginning: some sockets, then a look at the replies
                for group in range(max(1, AT_ONCE // self.window)):
                    error = self.has_room(place) if place < <uint32_t>self.opened else 0
                    if error:
                        return error
                    place += 1
                wait_ns = 0
            if self.paced and self.sending:
                error = self.pace(moment, last, total, &allowance, &wait_ns)
                if error:
                    return error
                last = moment
            error = self.look(wait_ns)
            if error:
                return error
            moment = now()
            if self.sending and (self.stopping or (
                moment >= until and (not self.paced or self.scheduled >= total or moment > until + self.timeout_ns)
            )):
                self.sending = False
                self.tally.ended_ns = moment
                if self.paced and not self.stopping:
                    self.tally.unsent = total - min(total, self.scheduled)
            if moment - ticked >= TICK_NS:
                ticked = moment
                error = self.tick(moment)
                if error:
                    return error
        return 0

    # ---- what Python sees

    def __cinit__(self, int protocol, tuple address, requests, *, int most, int window=1, int timeout_ms=2_000):
        if protocol not in (UDP, HTTP) or not 1 <= window <= WINDOWS or most < 1 or timeout_ms < 1:
            raise ValueError("a protocol, 1 to 64 requests in flight and at least one socket are needed")
        if protocol == HTTP and window != 1:
            raise ValueError("a connection has one request in flight")
        self.kept = [bytes(request) for request in requests]
        if not self.kept or not all(0 < len(request) <= ROOM for request in self.kept):
            raise ValueError(f"requests of 1 to {ROOM} bytes are needed")
        self.is_http, self.window, self.most = protocol == HTTP, window, most
        self.timeout_ns = <uint64_t>timeout_ms * 1_000_000
        self.all_slots = ~<uint64_t>0 >> (WINDOWS - window)
        self.set_address(address)
        self.lines = <Line*>allocate(most, sizeof(Line))
        self.slots = <Slot*>allocate(<size_t>most * window, sizeof(Slot))
        self.queue = <uint32_t*>allocate(most, sizeof(uint32_t))
        self.buffers = <char*>allocate(WINDOWS, ROOM)
        self.take_requests()
        for message in range(WINDOWS):
            self.messages[message].msg_hdr.msg_iov = &self.pieces[message]
            self.messages[message].msg_hdr.msg_iovlen = 1
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise failure(errno)
        self.is_open = True

    cdef set_address(self, tuple address):
        host, port = address
        cdef bytes text = host.encode()
        cdef sockaddr_in* v4 = <sockaddr_in*>&self.server
        cdef sockaddr_in6* v6 = <sockaddr_in6*>&self.server
        if inet_pton(AF_INET, text, &v4.sin_addr) == 1:
            v4.sin_family, v4.sin_port, self.server_bytes = AF_INET, htons(port), sizeof(sockaddr_in)
        elif inet_pton(AF_INET6, text, &v6.sin6_addr) == 1:
            v6.sin6_family, v6.sin6_port, self.server_bytes = AF_INET6, htons(port), sizeof(sockaddr_in6)
        else:
            raise ValueError(f"{host!r} is not a numeric address")

    cdef take_requests(self):
        self.request_count = len(self.kept)
        self.requests = <const char**>allocate(self.request_count, sizeof(char*))
        self.lengths = <size_t*>allocate(self.request_count, sizeof(size_t))
        self.id_places = <int64_t*>allocate(self.request_count, sizeof(int64_t))
        for place, request in enumerate(self.kept):
            self.requests[place], self.lengths[place] = <const char*>(<bytes>request), len(request)
            found = -1 if self.is_http else request.find(ID_PLACEHOLDER)
            self.id_places[place] = found if found < 0 else found + ID_PLACEHOLDER.index(b"0")
        if len({self.id_places[place] < 0 for place in range(self.request_count)}) > 1:
            raise ValueError("either all requests or none of them have an id")

    def __dealloc__(self):
        self.close_all()
        PyMem_Free(self.lines)
        PyMem_Free(self.slots)
        PyMem_Free(self.queue)
        PyMem_Free(self.buffers)
        PyMem_Free(self.requests)
        PyMem_Free(self.lengths)
        PyMem_Free(self.id_places)

    cdef void close_all(self) noexcept:
        cdef int place
        for place in range(self.opened):
            if self.lines[place].state != CLOSED:
                self.close_line(&self.lines[place])
        self.opened = 0
        if self.is_open:
            close(self.epoll_fd)
            self.is_open = False

    @property
    def sockets(self):
        return self.opened

    def grow(self, int sockets, int timeout_ms=30_000):
        cdef int error = 0
        cdef uint64_t deadline = now() + <uint64_t>timeout_ms * 1_000_000
        self.begin_work()
        try:
            if sockets > self.most:
                raise ValueError(f"room was made for {self.most} sockets")
            with nogil:
                error = self.look_after_idle()
                while self.opened < sockets and not error:
                    error = self.open_line(self.opened)
                    self.opened += not error
                    while not error and self.waiting >= AT_ONCE:
                        error = self.wait_for_connections(deadline)
                while not error and self.waiting:
                    error = self.wait_for_connections(deadline)
        finally:
            self.running = False
        if error:
            raise failure(error)

    cdef int look_after_idle(self) noexcept nogil:
        """Replace what the server has closed since the last run, read what came late; return 0 or an errno."""
        cdef int turn, error = self.tick(now())
        for turn in range(self.opened // EVENTS + 1):
            error = error or self.look(0)
        return error

    cdef int wait_for_connections(self, uint64_t deadline) noexcept nogil:
        cdef uint64_t unreachable = self.tally.unreachable
        if now() > deadline:
            return ETIMEDOUT
        cdef int error = self.look(TICK_NS)
        return error or (ECONNREFUSED if self.tally.unreachable > unreachable else 0)

    def run(self, double seconds, double rate=0.0):
        cdef int error, slack
        if seconds <= 0 or seconds > 1e6 or rate < 0 or rate > 1e7:
            raise ValueError("seconds must be more than 0, a rate 0 to 10 million")
        self.begin_work()
        self.stopping = False
        memset(&self.tally, 0, sizeof(Tally))
        self.paced, self.interval_ns, self.scheduled = rate > 0, 1e9 / rate if rate > 0 else 0, 0
        self.queue_begin = self.queue_end = 0
        for place in range(self.opened):
            self.lines[place].queued = False
        try:
            with nogil:
                slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
                prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)      # wake when due, not 50 µs later
                self.sending = True
                error = self.drive(<uint64_t>(seconds * 1e9))
                self.sending = False
                prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0)
        finally:
            self.running = False
        if error:
            raise failure(error)

    cdef begin_work(self):
        if not self.is_open:
            raise ValueError("the load is closed")
        if self.running:
            raise RuntimeError("the load is running")
        self.running = True

    def stop(self):
        self.stopping = True

    def reading(self):
        cdef Tally* t = &self.tally
        cdef uint64_t until = t.ended_ns or (now() if t.began_ns else 0)
        errors = {outcome_name(place): t.outcomes[place] for place in range(1, OUTCOMES)
                  if t.outcomes[place] and not 200 <= place < 300}
        latencies = PyBytes_FromStringAndSize(<char*>t.latencies, sizeof(t.latencies))
        return Reading(t.sent, t.answered, errors, t.lost, self.in_flight, t.unsent, t.unexpected, t.unreachable,
                       t.reconnects, t.timely, until - t.began_ns, t.longest_ns, latencies)

    def close(self):
        if self.running:
            raise RuntimeError("the load is running")
        self.close_all()


cdef inline uint32_t id_of(uint64_t number, int which) noexcept nogil:
    return <uint32_t>(number * WINDOWS + which)


cdef void* allocate(size_t count, size_t size) except NULL:
    cdef void* memory = PyMem_Calloc(count, size)
    if memory is NULL:
        raise MemoryError
    return memory


cdef failure(int error):
    return OSError(error, os.strerror(error))


cdef outcome_name(int place):
    if place < OUTCOME_OTHER:
        return outcome_codes[place].decode()
    special = {OUTCOME_OTHER: "other", OUTCOME_CLOSED: "closed", OUTCOME_RESET: "reset", OUTCOME_UNREADABLE: "unreadable"}
    return special.get(place, str(place))


def latency_ns(bytes latencies, double share):
    cdef const uint64_t* counts = <const uint64_t*><const char*>latencies
    cdef uint64_t total = 0, seen = 0
    cdef int bucket
    if len(latencies) != BUCKETS * sizeof(uint64_t):
        raise ValueError("not a histogram of this module")
    for bucket in range(BUCKETS):
        total += counts[bucket]
    for bucket in range(BUCKETS):
        seen += counts[bucket]
        if seen and seen >= share * total:
            return bucket_middle(bucket)
    return 0

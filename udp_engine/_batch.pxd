"""The batch: what one recvmmsg brings, answered and sent together. One context owns every array; nothing is allocated."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from billing._gate cimport Gate, GateVerdict
from pricing._board cimport PriceCopy
from pricing._finder cimport Finder
from telemetry._counters cimport Counters
from telemetry._spool cimport Appender, Record
from udp_engine._datagram cimport DATAGRAM_BYTES, Request

cdef extern from *:
    """
    #include <errno.h>
    #include <netinet/in.h>
    #include <sys/socket.h>
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103            /* linux/udp.h, since 4.18 */
    #endif

    typedef union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } batch_name;
    """
    ctypedef unsigned int socklen_t
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    ctypedef union Name "batch_name":
        sockaddr any
        sockaddr_in v4
        sockaddr_in6 v6
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout) noexcept nogil
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags) noexcept nogil
    uint16_t ntohs(uint16_t port) noexcept nogil
    cmsghdr* CMSG_FIRSTHDR(msghdr* message) noexcept nogil
    cmsghdr* CMSG_NXTHDR(msghdr* message, cmsghdr* at) noexcept nogil
    unsigned char* CMSG_DATA(cmsghdr* at) noexcept nogil
    size_t CMSG_LEN(size_t length) noexcept nogil
    size_t CMSG_SPACE(size_t length) noexcept nogil
    int errno
    uint16_t htons(uint16_t port) noexcept nogil
    int AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IP_PKTINFO, IPV6_PKTINFO, MSG_DONTWAIT, SOL_UDP "IPPROTO_UDP", UDP_SEGMENT
    int EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, EOPNOTSUPP

cdef enum:
    BATCH = 64                         # datagrams of one recvmmsg
    IN_BYTES = 1_216                   # room for one byte more than is read, so that a longer one shows
    REPLY_BYTES = 1_024                # more than the longest reply that is made here
    CONTROL_BYTES = 64                 # for IP_PKTINFO or IPV6_PKTINFO, and UDP_SEGMENT
    PLACES = 256
    PADDING = 64                       # the most spaces after a reply, so that it is as long as its neighbours
    SEGMENTS_BYTES = 60_000            # the most that one send carries

cdef struct Run:                       # replies to one address, which leave together
    unsigned int first
    unsigned int last
    unsigned int segments
    unsigned int place                 # of the first one in `out_places`
    size_t size                        # of the longest
    size_t shortest

cdef struct Context:
    mmsghdr incoming[BATCH]
    iovec in_places[BATCH]
    Name names[BATCH]                  # who has sent it
    char controls[BATCH][CONTROL_BYTES]   # to which of our addresses, where that is not one alone
    char datagrams[BATCH][IN_BYTES]
    Request requests[BATCH]            # into `datagrams`
    uint8_t digests[BATCH][32]         # of the key
    bint hashed[BATCH]                 # whether there is one
    GateVerdict verdicts[BATCH]        # whose request it is, where it was judged
    size_t lengths[BATCH]              # of the reply; 0: there is none, or not yet
    bint proven[BATCH]                 # whether it goes to a good key
    char replies[BATCH][REPLY_BYTES]
    unsigned int slow[BATCH]           # which ones must be answered from elsewhere
    unsigned int slow_count
    mmsghdr outgoing[BATCH]            # one for each run of replies to one address
    iovec out_places[BATCH]
    char out_controls[BATCH][CONTROL_BYTES]
    Run runs[BATCH]                    # what `outgoing` is made of
    unsigned int next[BATCH]           # by reply: the next one of its run
    uint8_t run_places[PLACES]         # by hash of an address: the number of its latest run + 1
    unsigned int out_count
    unsigned int out_done

cdef struct Bucket:                    # of refusals to one network, or of summaries to one account
    int64_t full_ns                    # when it will be, by CLOCK_MONOTONIC (GCRA)


cdef class Question:
    cdef readonly object asset, assets, exchange, max_age_ms, id
    cdef readonly int32_t key_row
    cdef readonly uint64_t key_id
    cdef readonly uint64_t account_id
    cdef readonly uint32_t month
    cdef readonly size_t request_bytes
    cdef readonly int64_t received_ns
    cdef bytes name
    cdef readonly bytes control


cdef class Batch:
    cdef Context* context
    cdef Bucket* buckets
    cdef Bucket* turns                 # likewise of accounts; NULL where prices are asked for
    cdef Finder finder                 # None: summaries are asked for
    cdef Gate gate
    cdef Counters counters
    cdef Appender appender
    cdef int fd
    cdef unsigned int budget           # batches before others have their turn
    cdef bint tells_address            # the socket says to which of our addresses a datagram came
    cdef uint8_t own_address[16]
    cdef uint16_t own_port             # 0: not one address alone
    cdef int64_t took_ns               # since the batch was received, as last read: for the usage records
    cdef uint64_t bucket_mask
    cdef uint64_t secret               # so that nobody can choose who shares a bucket
    cdef int64_t refusal_ns            # between two refusals to one network
    cdef int64_t refusal_burst_ns
    cdef bint groups                   # whether replies to one address may go out as one send
    cdef int64_t ungrouped_until_ns    # the kernel or the path has refused such a send
    cdef readonly uint64_t grouped     # replies that went out so
    cdef readonly uint64_t refused_groups
    cdef int last_errno
    cdef unsigned int was_received     # datagrams that the context holds

    cdef int receive(self) noexcept nogil
    cdef bint read_source(self, unsigned int i, uint8_t* address) noexcept nogil
    cdef void answer_all(self, unsigned int number, int64_t mono_ns, int64_t wall_ns) noexcept nogil
    cdef void decide(self, unsigned int i, int64_t mono_ns, int64_t wall_ns, bint is_filled) noexcept nogil
    cdef void answer_key(self, unsigned int i, const uint8_t* address, int64_t mono_ns, int64_t wall_ns) noexcept nogil
    cdef void admit_summary(
        self, unsigned int i, const uint8_t* address, int64_t mono_ns, int64_t wall_ns
    ) noexcept nogil
    cdef void refuse_key(self, unsigned int i, const uint8_t* address, int64_t mono_ns, int64_t wall_ns) noexcept nogil
    cdef void record(self, const Record* record) noexcept nogil
    cdef void refuse(
        self, unsigned int i, const char* code, int64_t retry_ms, const uint8_t* address, int64_t mono_ns
    ) noexcept nogil
    cdef bint may_refuse(self, const uint8_t* address, int64_t mono_ns) noexcept nogil
    cdef bint take_turn(self, Bucket* buckets, uint64_t who, int64_t mono_ns) noexcept nogil
    cdef void prepare(self, bint may_group) noexcept nogil
    cdef bint join(self, Run* run, unsigned int i) noexcept nogil
    cdef void make_send(self, unsigned int at) noexcept nogil
    cdef unsigned int places_before(self, unsigned int at) noexcept nogil
    cdef void was_sent(self, unsigned int at) noexcept nogil
    cdef bint send(self, int64_t mono_ns) noexcept nogil
    cdef void note_refusal(self, int64_t mono_ns) noexcept nogil
    cdef unsigned int replies_of(self, unsigned int number) noexcept nogil
    cdef int hand_over(self, list questions, int64_t received_ns) except -1
    cdef Question question_of(self, unsigned int i, int64_t received_ns)

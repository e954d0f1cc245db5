# cython: language_level=3, boundscheck=False, wraparound=False
"""The node's 24 counters in memory that processes share, with reasons and latencies: summed by whoever reads."""
import time

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memset

from telemetry.exceptions import LayoutError

cdef uint64_t MAGIC = 0x3154_4E55_4F43_5254    # "TRCOUNT1" where the low byte comes first

NAMES = (
    "tcp_requests", "udp_requests", "lrs_requests", "syncmap_hits", "elasticache_hits", "cache_misses",
    "udp_packets_received", "udp_packets_dropped", "udp_packets_sent",
    "bg_work_submitted", "bg_work_dropped", "bg_work_completed", "batch_rows_queued",
    "db_open_conns", "db_in_use_conns", "db_wait_count",
    "auth_failures", "rate_limited", "quota_exceeded", "rest_fallbacks", "feed_ticks", "feed_reconnects",
    "stale_refusals", "governor_delays",
)
DROP_REASONS = (
    "kernel", "bad_source", "empty", "oversized", "not_utf8", "malformed", "truncated", "too_deep", "bad_escape",
    "duplicate_field", "reply_shaped", "too_short", "limited", "shed", "unsent", "stopped",
)
LATENCY_NAMES = ("http", "udp")


cdef int check_layout(const char* base, Py_ssize_t length) except -1:
    """Refuse memory that does not hold counters of this version, byte order and size."""
    cdef const Header* header = <const Header*>base
    if <size_t>base % sizeof(uint64_t):
        raise LayoutError("the alignment", "8 bytes", f"{<size_t>base % sizeof(uint64_t)} bytes off")
    if length < <Py_ssize_t>sizeof(Header):
        raise LayoutError("the size in bytes", sizeof(Table), length)
    if counters_load(&header.magic, COUNTERS_ACQUIRE) != MAGIC:
        raise LayoutError("the magic", f"{MAGIC:#018x}", f"{header.magic:#018x}")
    if header.version != LAYOUT_VERSION:
        raise LayoutError("the layout version", LAYOUT_VERSION, header.version)
    if header.workers != MAX_WORKERS or header.size != sizeof(Table):
        raise LayoutError(f"the recorded size for {header.workers} workers", sizeof(Table), header.size)
    if <size_t>length != sizeof(Table):
        raise LayoutError("the size in bytes", sizeof(Table), length)
    return 0


cdef Table* attach(object buffer, int flags, Py_buffer* view) except NULL:
    PyObject_GetBuffer(buffer, view, flags)
    try:
        check_layout(<const char*>view.buf, view.len)
    except LayoutError:
        PyBuffer_Release(view)
        raise
    return <Table*>view.buf


@cython.no_gc_clear  # clearing would drop the buffer's owner without releasing the buffer
cdef class Counters:
    def __cinit__(self):
        self.row = &self.nowhere

    def __init__(self, buffer=None, int worker=0):
        if buffer is not None:
            self.attach(buffer, worker)

    def attach(self, buffer, int worker):
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"a worker's number is 0 to {MAX_WORKERS - 1}, not {worker}")
        self.close()
        cdef Table* table = attach(buffer, PyBUF_WRITABLE, &self.view)
        self.held = True
        self.row = &table.rows[worker]
        counters_store(&self.row.claims, self.row.claims + 1, COUNTERS_RELEASE)

    def __dealloc__(self):
        self.close()

    def close(self):
        self.row = &self.nowhere
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)

    def add(self, unsigned int index, uint64_t n=1):
        if index >= COUNTERS:
            raise IndexError(f"there is no counter {index}")
        count(self, index, n)

    def drop(self, unsigned int reason, uint64_t n=1):
        if reason >= REASONS:
            raise IndexError(f"there is no reason {reason}")
        drop(self, reason, n)

    def latency(self, unsigned int kind, uint64_t ns, uint64_t n=1):
        if kind >= LATENCIES:
            raise IndexError(f"there are no latencies {kind}")
        note_latency(self, kind, ns, n)

    def unrecorded(self, uint64_t refused, uint64_t shed):
        counters_store(&self.row.refused, self.row.refused + refused, COUNTERS_RELAXED)
        counters_store(&self.row.shed, self.row.shed + shed, COUNTERS_RELAXED)

    def open_socket(self, uint64_t cookie, uint64_t rcvbuf_bytes, uint64_t sndbuf_bytes):
        cdef Row* row = self.row
        if row.socket != cookie:
            counters_store(&row.kernel_drops, 0, COUNTERS_RELAXED)
            counters_store(&row.socket, cookie, COUNTERS_RELAXED)
        counters_store(&row.rcvbuf_bytes, rcvbuf_bytes, COUNTERS_RELAXED)
        counters_store(&row.sndbuf_bytes, sndbuf_bytes, COUNTERS_RELAXED)

    def kernel_dropped(self, uint32_t so_far):
        cdef uint32_t more = so_far - <uint32_t>self.row.kernel_drops
        if more:
            counters_store(&self.row.kernel_drops, so_far, COUNTERS_RELAXED)
            count(self, UDP_PACKETS_RECEIVED, more)
            drop(self, DROPPED_KERNEL, more)
        return more


@cython.no_gc_clear  # clearing would drop the buffer's owner without releasing the buffer
cdef class CounterReader:
    cdef const Table* table
    cdef Py_buffer view
    cdef bint held

    def __init__(self, buffer):
        self.close()
        self.table = attach(buffer, PyBUF_SIMPLE, &self.view)
        self.held = True

    def __dealloc__(self):
        self.close()

    def close(self):
        self.table = NULL
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)

    cdef int check_open(self) except -1:
        if self.table is NULL:
            raise ValueError("the counters are closed")
        return 0

    def totals(self):
        cdef uint64_t sums[COUNTERS]
        cdef unsigned int worker, index
        self.check_open()
        memset(sums, 0, sizeof(sums))
        for worker in range(MAX_WORKERS):
            for index in range(COUNTERS):
                sums[index] += counters_load(&self.table.rows[worker].values[index], COUNTERS_RELAXED)
        return {NAMES[index]: sums[index] for index in range(COUNTERS)}

    def drops(self):
        cdef uint64_t sums[REASONS]
        cdef unsigned int worker, reason
        self.check_open()
        memset(sums, 0, sizeof(sums))
        for worker in range(MAX_WORKERS):
            for reason in range(REASONS):
                sums[reason] += counters_load(&self.table.rows[worker].drops[reason], COUNTERS_RELAXED)
        return {DROP_REASONS[reason]: sums[reason] for reason in range(REASONS)}

    def unrecorded(self):
        cdef uint64_t refused = 0, shed = 0
        cdef unsigned int worker
        self.check_open()
        for worker in range(MAX_WORKERS):
            refused += counters_load(&self.table.rows[worker].refused, COUNTERS_RELAXED)
            shed += counters_load(&self.table.rows[worker].shed, COUNTERS_RELAXED)
        return {"refused": refused, "shed": shed}

    def latencies(self):
        cdef uint64_t sums[LATENCY_BUCKETS]
        cdef unsigned int worker, kind, bucket
        self.check_open()
        found = {}
        for kind in range(LATENCIES):
            memset(sums, 0, sizeof(sums))
            for worker in range(MAX_WORKERS):
                if counters_load(&self.table.rows[worker].claims, COUNTERS_RELAXED):
                    for bucket in range(LATENCY_BUCKETS):
                        sums[bucket] += counters_load(
                            &self.table.rows[worker].latency[kind][bucket], COUNTERS_RELAXED
                        )
            found[LATENCY_NAMES[kind]] = [sums[bucket] for bucket in range(LATENCY_BUCKETS)]
        return found

    def took_ns(self):
        cdef unsigned int worker, kind
        cdef uint64_t sum
        self.check_open()
        found = {}
        for kind in range(LATENCIES):
            sum = 0
            for worker in range(MAX_WORKERS):
                sum += counters_load(&self.table.rows[worker].took_ns[kind], COUNTERS_RELAXED)
            found[LATENCY_NAMES[kind]] = sum
        return found

    def sockets(self):
        cdef unsigned int worker
        cdef const Row* row
        self.check_open()
        found = {}
        for worker in range(MAX_WORKERS):
            row = &self.table.rows[worker]
            if counters_load(&row.socket, COUNTERS_RELAXED):
                found[worker] = (
                    counters_load(&row.rcvbuf_bytes, COUNTERS_RELAXED),
                    counters_load(&row.sndbuf_bytes, COUNTERS_RELAXED),
                )
        return found

    @property
    def epoch_ns(self):
        self.check_open()
        return counters_load(&self.table.header.epoch, COUNTERS_RELAXED)

    @property
    def epoch_mono_ns(self):
        self.check_open()
        return counters_load(&self.table.header.mono_epoch, COUNTERS_RELAXED)

    def workers(self):
        cdef unsigned int worker
        self.check_open()
        return [
            worker
            for worker in range(MAX_WORKERS)
            if counters_load(&self.table.rows[worker].claims, COUNTERS_ACQUIRE)
        ]

    def rows(self):
        cdef unsigned int worker, index, used
        used = max(self.workers(), default=-1) + 1
        return [
            {
                NAMES[index]: counters_load(&self.table.rows[worker].values[index], COUNTERS_RELAXED)
                for index in range(COUNTERS)
            }
            for worker in range(used)
        ]


def counters_size():
    return sizeof(Table)


def format_counters(buffer):
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    cdef Table* table = <Table*>view.buf
    try:
        if <size_t>view.buf % sizeof(uint64_t) or <size_t>view.len != sizeof(Table):
            raise LayoutError("the size in bytes", sizeof(Table), view.len)
        memset(view.buf, 0, view.len)
        table.header.version = LAYOUT_VERSION
        table.header.workers = MAX_WORKERS
        table.header.size = sizeof(Table)
        table.header.epoch = time.time_ns()
        table.header.mono_epoch = time.monotonic_ns()
        counters_store(&table.header.magic, MAGIC, COUNTERS_RELEASE)
    finally:
        PyBuffer_Release(&view)

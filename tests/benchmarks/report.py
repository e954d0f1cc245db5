"""docs/benchmarks.md out of what the benchmarks have found."""

import platform
import string
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from udp_engine.report import Level, row

TEMPLATE = Path(__file__).parent / "report.md"
_PEERS = (
    ("ours", "`/price`, keyed, gate and counters on"),
    ("limit", "nginx, a fixed reply"),
    ("go", "Go net/http, sync.Map"),
)


def machine() -> str:
    """Describe the machine in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = sum(line.startswith("processor") for line in lines)
    system = f"{platform.system()} {platform.release()}, CPython {platform.python_version()}"
    return f"{models[0] if models else platform.machine()}, {cores} cores, {system}"


def report(results: dict[str, Any]) -> str:
    """Return docs/benchmarks.md."""
    socket, visible = results["socket"], results["visible"]
    socket_row = [socket["exchange"], f"{socket['frames']:,}", f"{socket['frames_per_s']:,}"]
    socket_row += [socket["cpu_us_per_frame"], f"{socket['frames_per_s_of_one_core']:,}"]
    frames = [
        _row([name, row["us_per_frame"], f"{row['frames_per_s']:,}"])
        for name, row in results["frames"].items()
    ]
    boards = [_board_row(board, kind) for board in results["board"]["boards"] for kind in ("hot", "cold")]
    return string.Template(TEMPLATE.read_text()).substitute(
        machine=machine(),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        frames="\n".join(frames),
        socket=_row(socket_row),
        visible="\n".join(
            _row([label, *(visible[name][key] for key in ("p50_us", "p99_us", "p999_us", "count"))])
            for name, label in (("visible", "frame sent → seen in `/price`"), ("request", "one request"))
        ),
        board="\n".join(boards),
        gate="\n".join(
            _gate_row(gate, kind) for gate in results["gate"]["gates"] for kind in ("hot", "random")
        ),
        http="\n".join(_http_lines(results["http"])),
        keys="\n".join(_keys_lines(results["keys"])),
        udp="\n".join(_udp_lines(results["udp"])),
        usage="\n".join(_usage_lines(results["spool"], results["usage"])),
        shipper="\n".join(_shipper_lines(results["shipper"])),
        rows="\n".join(_rows_row(load) for load in results["rows"]["loads"]),
        reports="\n".join(_reports_lines(results["reports"])),
        second="\n".join(_second_lines(results["second"])),
        soak=_soak_text(results["soak"]),
        levels="\n".join(_level_row(level) for level in results["levels"]["levels"]),
    )


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _board_row(board: dict[str, Any], kind: str) -> str:
    figures = board[f"{kind}_ns"]
    names = ("memory_access", "c_read", "c_best", "python_get", "python_best", "python_write")
    return (
        f"| {board['slots']:,} | {kind} | " + " | ".join(f"{figures[name]['best']}" for name in names) + " |"
    )


def _gate_row(gate: dict[str, Any], kind: str) -> str:
    figures = gate[f"{kind}_ns"]
    names = ("memory_access", "c_admit", "c_admit_digest", "python_admit")
    return _row([f"{gate['keys']:,}", kind, *(figures[name]["best"] for name in names)])


def _keys_lines(keys: dict[str, Any]) -> list[str]:
    if "skipped" in keys:
        return [f"Not measured: {keys['skipped']}."]
    rows = [
        _row([f"{one['keys']:,}", one["cpu_us_per_answer"], f"{one['answers_per_s']:,}"])
        for one in keys["gates"]
    ]
    return [
        "| keys in the gate | CPU µs per answer | answers per second |",
        "|---|---|---|",
        *rows,
        "",
        f"Ratio {keys['ratio']}.",
    ]


def _http_lines(http: dict[str, Any]) -> list[str]:
    if "skipped" in http:
        return [f"Not measured: {http['skipped']}."]
    cost = http["cpu_us_per_answer"]
    rows = [
        _row([label, f"{cost[name]:.1f}", _middle(http, name), _tail(http, name)])
        for name, label in _PEERS
        if name in cost
    ]
    return [
        "One worker on one core, 64 kept-alive connections from wrk on the other, medians of one run",
        "(`bench_http.py` with `yardsticks/bench.py`): user and system time over answered requests.",
        "",
        "| server | CPU µs per answer | answers per second | p99 |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Ratio to nginx {http['ratio_to_limit']}, to Go {http['ratio_to_go']}.",
    ]


def _udp_lines(udp: dict[str, Any]) -> list[str]:
    if "skipped" in udp:
        return [f"Not measured: {udp['skipped']}."]
    clients = [_udp_row(window, report) for window, report in udp["clients"].items()]
    counts = ("keys", "assets", "answers_per_s")
    sizes = [
        _row([*(f"{one[name]:,}" for name in counts), one["cpu_us_per_answer"]])
        for one in udp["rows"]["sizes"]
    ]
    return [
        "| in flight on a socket | ours | limit | Go | to limit | to Go | answers per second | p99 |",
        "|---|---|---|---|---|---|---|---|",
        *clients,
        "",
        "Two workers in one run, 8 in flight; each request has another key and another asset.",
        "",
        "| keys in the gate | assets | answers per second | CPU µs per answer |",
        "|---|---|---|---|",
        *sizes,
        "",
        f"Ratio {udp['rows']['ratio']}.",
    ]


def _usage_lines(spool: dict[str, Any], usage: dict[str, Any]) -> list[str]:
    append, worker, backlog = spool["append"], spool["worker"], spool["backlog"]
    grown_mib = backlog["peak_rss_mib"] - backlog["rss_before_mib"]
    ways = {way: usage[way] for way in ("http", "udp")}
    return [
        "| | |",
        "|---|---|",
        _row(["an append from C, to memory that is there", f"{append['append_ns']} ns"]),
        _row(["of which filling the record in", f"{append['fill_ns']} ns"]),
        _row(["an append as a worker has it, files and syncs included", f"{worker['append_ns']} ns"]),
        _row(["records a second of one worker", f"{worker['records_per_s']:,}"]),
        _row(["a backlog of 8 GiB is opened in", f"{backlog['open_s']} s"]),
        _row(["and its reader's memory grows by", f"{grown_mib:.1f} MiB"]),
        "",
        f"Rounds of {usage['seconds']} s, {usage['rounds']} of them; the ratio is the median of theirs, and "
        "beside it stands where the middle half of them lies:",
        "",
        "| answer | CPU µs with a record | without | ratio | from | to |",
        "|---|---|---|---|---|---|",
        *(
            _row([way.upper(), one["with_us"], one["without_us"], one["ratio"], *one["quartiles"]])
            for way, one in ways.items()
        ),
    ]


def _shipper_lines(shipper: dict[str, Any]) -> list[str]:
    backlog, queue = shipper["backlog"], shipper["queue"]
    lines = [
        f"A backlog of {backlog['bytes'] / 2**30:.1f} GiB: the first rows are in PostgreSQL "
        f"{backlog['first_s']} s after the shipper was started; it needs {backlog['peak_rss_mib']} MiB, "
        f"and writes {backlog['rows_per_s']:,} rows a second by itself.",
        "",
    ]
    if "skipped" in queue[0]:
        return [*lines, f"SQS was not measured: {queue[0]['skipped']}."]
    names = ("batch", "messages_per_billion", "requests_per_billion", "longest_bytes")
    return [
        *lines,
        "| records to a message | messages | billed requests | longest message, bytes | dollars |",
        "|---|---|---|---|---|",
        *(_row([*(f"{one[name]:,}" for name in names), one["dollars_per_billion"]]) for one in queue),
        _row(["1, in batches of ten", "1,000,000,000", "300,000,000", "–", queue[0]["dollars_in_tens"]]),
        _row(["1", "1,000,000,000", "3,000,000,000", "–", queue[0]["dollars_one_each"]]),
    ]


def _rows_row(load: dict[str, Any]) -> str:
    counts = (
        "records_per_transaction",
        "keys",
        "assets",
        "sums_per_transaction",
        "bare_rows_per_s",
        "rows_per_s",
    )
    return _row([*(f"{load[name]:,}" for name in counts), load["share"], load["share_folded"]])


def _reports_lines(reports: dict[str, Any]) -> list[str]:
    csv = reports["csv"]
    return [
        f"{csv['rows']:,} records of one key as CSV: {csv['mb']:,} MB in {csv['seconds']} s,",
        f"the first byte after {csv['first_ms']} ms. The worker's memory was {csv['idle_mb']} MB before",
        f"and {csv['most_mb']} MB at most.",
        "",
        "| summary of the month | ms |",
        "|---|---|",
        *(_row([f"`{question}`", took_ms]) for question, took_ms in reports["summary_ms"].items()),
    ]


def _udp_row(window: str, report: dict[str, Any]) -> str:
    cost, runs = report["cpu_us_per_answer"], report["runs"]["ours"]
    middle = sorted(runs, key=lambda run: run["rps"])[len(runs) // 2]
    costs = [f"{cost[name]:.2f}" if name in cost else "–" for name in ("ours", "limit", "go")]
    ratios = [report["ratio_to_limit"], report["ratio_to_go"] or "–"]
    return _row([window, *costs, *ratios, f"{middle['rps']:,.0f}", f"{middle['p99_us'] / 1000:.2f} ms"])


def _second_lines(second: dict[str, Any]) -> list[str]:
    if "skipped" in second:
        return [f"Not measured: {second['skipped']}."]
    rows = [
        _row([count, ", ".join(f"{rate:,}" for rate in rates)])
        for count, rates in second["answers_per_s"].items()
    ]
    return [
        "| workers | answers per second |",
        "|---|---|",
        *rows,
        "",
        f"Ratio of the medians {second['ratio']}.",
    ]


def _soak_text(soak: dict[str, Any]) -> str:
    first_ms, last_ms = soak["p999_first_us"] / 1_000, soak["p999_last_us"] / 1_000
    before, after = soak["rss_first_bytes"] / 1e6, soak["rss_last_bytes"] / 1e6
    return (
        f"{soak['seconds'] / 60:.1f} minutes at {soak['rate']:,}/s, of {soak['most_per_s']:,}/s at most: "
        f"{soak['sent']:,} sent,\n{soak['answered']:,} answered, **{soak['lost']} lost**. "
        f"Memory of the worker {before:.2f} MB in the first second and {after:.2f} MB\nin the last; "
        f"p50 {soak['p50_us']:.0f} µs; p99.9 of the first minute {first_ms:.0f} ms, "
        f"of the last {last_ms:.0f} ms, ratio {soak['p999_ratio']}."
    )


def _level_row(level: dict[str, Any]) -> str:
    return _row(row(Level(**{name: level[name] for name in Level.__dataclass_fields__})))


def _tail(http: dict[str, Any], name: str) -> str:
    """The median of the rounds' 99th percentiles; wrk writes 850.00us, 1.20ms."""
    ranked = sorted(_microseconds(run["p99"]) for run in http["runs"][name])
    return f"{ranked[len(ranked) // 2] / 1000:.2f} ms"


def _microseconds(text: str) -> float:
    units = {"us": 1.0, "ms": 1e3, "s": 1e6}
    number = text.rstrip("mus")
    return float(number) * units[text[len(number) :]]


def _middle(http: dict[str, Any], name: str) -> str:
    rates = sorted(run["rps"] for run in http["runs"][name])
    return f"{rates[len(rates) // 2]:,.0f}"

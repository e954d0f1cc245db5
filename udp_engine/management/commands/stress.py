"""``manage.py stress``: load this node, or another of one's own, and tell how it answered."""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.core.management.base import CommandError
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from telemetry.commands import ExplainedCommand
from udp_engine._load import Reading
from udp_engine.exceptions import UdpError
from udp_engine.report import HEADINGS, Level, Run, document, duration, page, percent, remarks, row
from udp_engine.stress import (
    LEVELS,
    PAGE,
    Plan,
    Protocol,
    Stress,
    build_requests,
    describe_machine,
    find_target,
)

BAD_ARGUMENTS = 2
WIDE = 120
LEFT_OUT = ("answered", "max")  # where the terminal is narrower
EXAMPLES = """
The key is read from TRINITY_KEY or a file, never from an argument, which everybody on the machine could see.
A level is a number of sockets that stay open; each has its window of requests in flight all the time, or with
--rate requests are sent at even distances, whatever comes back.
Exit status: 0 every request was answered; 1 some were lost or refused; 2 the arguments cannot be used.

examples:
  manage.py stress                                           13 levels against this node's UDP port
  manage.py stress --levels 100,1000 --seconds 10 --html stress.html
  manage.py stress --protocol http --levels 64 --asset BTC --asset ETH
  manage.py stress --levels 64 --window 8 --key-file key     8 requests in flight on each of 64 sockets
  manage.py stress --levels 64 --rate 50000 --seconds 60     50,000 a second, latency from when each was due
  manage.py stress --target 10.0.0.7:2679 --json stress.json
"""


class Command(ExplainedCommand):
    help = "Load a node with many requests at once and tell how it answered."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        usual = Plan()
        parser.add_argument("--protocol", choices=("udp", "http"), default="udp")
        parser.add_argument("--target", help="HOST:PORT or a URL (default: this node)")
        parser.add_argument(
            "--levels", type=read_levels, default=LEVELS, help=f"default: {','.join(map(str, LEVELS))}"
        )
        parser.add_argument("--seconds", type=float, default=usual.seconds, help="of each level (default: 5)")
        parser.add_argument(
            "--asset", action="append", dest="assets", help="repeatable, in turn (default: BTC)"
        )
        parser.add_argument("--key-file", type=Path, metavar="FILE", help="- reads standard input")
        parser.add_argument(
            "--window", type=int, default=1, help="requests in flight on each socket, 1 to 64; UDP only"
        )
        parser.add_argument("--rate", type=float, default=0.0, help="requests a second, all sockets together")
        parser.add_argument(
            "--timeout", type=float, default=usual.timeout_s, help="seconds until one is lost"
        )
        parser.add_argument(
            "--warm-up", type=float, default=usual.warm_up_s, help="seconds before the first level"
        )
        parser.add_argument("--pause", type=float, default=usual.pause_s, help="seconds between levels")
        parser.add_argument("--processes", type=int, default=1, help="they share the sockets (default: 1)")
        parser.add_argument("--no-ids", action="store_true", help="for servers that do not echo an id")
        parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output")
        parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
        parser.add_argument(
            "--force", action="store_true", help="load a target that is not on a private network"
        )

    def handle(self, *args: Any, **options: Any) -> None:  # as Django has it
        run = self.measure(options, console_for(options))
        if options["json"] == "-":
            self.stdout.write(json.dumps(document(run), indent=1))
        elif options["json"]:
            Path(options["json"]).write_text(json.dumps(document(run), indent=1) + "\n", encoding="utf-8")
        if options["html"]:
            options["html"].write_text(page(run, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        if not run.is_clean:
            sys.exit(1)

    def measure(self, options: dict[str, Any], console: Console) -> Run:  # parsed options
        """Run all levels, or those until a signal."""
        try:
            stress, run = prepare(options)
        except (UdpError, ValueError, OSError) as error:
            raise CommandError(str(error), returncode=BAD_ARGUMENTS) from error
        try:
            with stress, stopped_by_signals(stress), Screen(console, run) as screen:
                stress.warm_up()
                for sockets in options["levels"]:
                    if stress.is_stopped:
                        break
                    screen.add(stress.run_level(sockets, screen.show))
                screen.run = replace(screen.run, interrupted=stress.is_stopped)
        except OSError as error:
            raise CommandError(f"{run.target}: {error.strerror}") from error
        for remark in remarks(screen.run):
            console.print(remark, style="dim", highlight=False)
        return screen.run


def prepare(options: dict[str, Any]) -> tuple[Stress, Run]:  # parsed options
    """Read the options; nothing is sent yet."""
    protocol = cast("Protocol", options["protocol"])
    plan = Plan(
        levels=options["levels"],
        seconds=options["seconds"],
        window=options["window"],
        rate=options["rate"],
        warm_up_s=options["warm_up"],
        pause_s=options["pause"],
        timeout_s=options["timeout"],
        processes=options["processes"],
    )
    target = find_target(protocol, options["target"] or own_target(protocol), forced=options["force"])
    key = read_key(options["key_file"])
    requests = build_requests(target, options["assets"] or ["BTC"], key, ids=not options["no_ids"])
    stress = Stress(target, requests, plan)
    notes = [] if key else ["No key was given (TRINITY_KEY, --key-file)."]
    if stress.processes > plan.processes:
        notes.append(f"{stress.processes} processes: one may not open so many files here (ulimit -n).")
    run = Run(
        protocol=protocol,
        target=str(target),
        command=shlex.join(["manage.py", *sys.argv[1:]]),
        machine=describe_machine(),
        started=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        levels=(),
        notes=notes,
    )
    return stress, run


def own_target(protocol: Protocol) -> str:
    """Name this node's own port; one that is open to everywhere is reached on loopback."""
    bind, port = settings.TRINITY_BIND, settings.TRINITY_HTTP_PORT
    if protocol == "udp":
        bind, port = settings.TRINITY_UDP_BIND or bind, settings.TRINITY_UDP_PORT
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_key(file: Path | None) -> str:
    if file is None:
        return str(settings.TRINITY_KEY)
    return (sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")).strip()


def read_levels(text: str) -> tuple[int, ...]:
    """Read numbers between commas, in whatever order; they are used from the lowest up."""
    try:
        return tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers of sockets are needed, not {text!r}") from None


@contextmanager
def stopped_by_signals(stress: Stress) -> Iterator[None]:
    """End the run on the first signal; a second one kills."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> None:
        stress.stop()
        signal.signal(number, usual[signal.Signals(number)])

    try:
        for number in usual:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def console_for(options: dict[str, Any]) -> Console:  # parsed options
    """Leave standard output to the figures where they are wanted there."""
    console = Console(file=sys.stderr if options["json"] == "-" else options.get("stdout"))
    if not console.is_terminal:
        console.width = WIDE
    return console


class Screen:
    """The table as it grows, and a line about the level under way; plain lines where there is no terminal."""

    def __init__(self, console: Console, run: Run) -> None:
        self.run = run
        self._console = console
        self._live = Live(self._table(""), console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.stop()
        self._console.print(self._table(""))

    def show(self, reading: Reading) -> None:
        if self._console.is_terminal:
            self._live.update(self._table(progress(reading)), refresh=True)

    def add(self, level: Level) -> None:
        self.run = replace(self.run, levels=(*self.run.levels, level))
        if self._console.is_terminal:
            self._live.update(self._table(""), refresh=True)
        else:
            told = (f"{level.concurrent:,} concurrent", f"{level.per_second:,.0f} per second")
            self._console.print(*told, percent(level.success), f"p99 {duration(level.p99_us)}", sep=", ")

    def _table(self, note: str) -> Group:
        title = f"{self.run.protocol.upper()} {self.run.target}"
        table = Table(
            title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
        )
        narrow = self._console.width < WIDE
        shown = [place for place, name in enumerate(HEADINGS) if not (narrow and name in LEFT_OUT)]
        for place in shown:
            table.add_column(HEADINGS[place], justify="right", no_wrap=True)
        for level in self.run.levels:
            cells = row(level)
            table.add_row(*(cells[place] for place in shown), style="" if level.is_clean else "red")
        return Group(table, Text(note, style="dim")) if note else Group(table)


def progress(reading: Reading) -> str:
    seconds = reading.sending_ns / 1e9
    refused = sum(reading.errors.values())
    rate = reading.timely / max(seconds, 0.001)
    flying = f"{seconds:5.1f} s  {rate:,.0f} per second  {reading.in_flight:,} in flight"
    return f"{flying}  {refused:,} refused  {reading.lost:,} lost"

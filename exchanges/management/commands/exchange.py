"""`manage.py exchange`: rows in and out as JSON documents, and proof that a row works."""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import CommandError
from django.db import DatabaseError

from exchanges.documents import DocumentError, read_document
from exchanges.exceptions import FeedNotFound
from exchanges.feed.replay import Replay
from exchanges.feed.spec import SLUG, FeedSpec, SpecError, parse_feed
from exchanges.models import ExchangeFeed
from exchanges.services import (
    Author,
    Door,
    document_text,
    export_document,
    import_document,
    split_document,
)
from telemetry.commands import ExplainedCommand

AUTHOR = Author(Door.COMMAND)
EXAMPLES = """examples:
  manage.py exchange list
  manage.py exchange export coinbase --output coinbase.json
  manage.py exchange import binance.json
  manage.py exchange check binance.json --frames frames.jsonl     a row proven without a network
  manage.py exchange check binance --seconds 20                   connects, subscribes and reports per symbol

A document is {"feed": {the 19 columns}, "assets": [{"asset", "symbol", "rest_symbol", "category", "enabled",
"prewarm", "home"}]}. Imported rows take effect in a running node within 2 s.
"""


class Command(ExplainedCommand):
    help = "Import, export, list and check exchanges."
    examples = EXAMPLES

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="import|export|check|list")
        taken = actions.add_parser("import", help="create or change an exchange and its assets")
        taken.add_argument("file", help="a JSON document; - reads standard input")
        given = actions.add_parser("export", help="write an exchange as a document")
        given.add_argument("name")
        given.add_argument("--output", type=Path, help="a file instead of standard output")
        check = actions.add_parser("check", help="try a row before it goes live")
        check.add_argument("exchange", metavar="NAME|FILE", help="a row of the table, or a document")
        check.add_argument("--frames", metavar="FILE", help="replay recorded frames; - reads standard input")
        check.add_argument("--seconds", type=float, default=15.0, help="how long to listen (default: 15)")
        check.add_argument("--json", action="store_true", help="the report as one JSON document")
        actions.add_parser("list", help="show the exchanges")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's own signature
        actions: dict[str, Callable[[dict[str, Any]], None]] = {
            "import": self.take,
            "export": self.give,
            "check": self.check_row,
            "list": self.list_rows,
        }
        try:
            actions[options["action"]](options)
        except SpecError as error:
            lines = [f"  {path}: {text}" for path, texts in error.errors.items() for text in texts]
            raise CommandError("\n".join(["The document cannot be used:", *lines])) from error
        except (DocumentError, FeedNotFound) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database does not answer: {error}. Has `migrate` been run?") from error

    def take(self, options: dict[str, Any]) -> None:  # Any: argparse's own, as below
        document = read_document(_text(options["file"]))
        feed = import_document(document=document, author=AUTHOR)
        self.stdout.write(f"Imported {feed.name} with {feed.listings.count()} assets.")

    def give(self, options: dict[str, Any]) -> None:
        text = document_text(export_document(name=options["name"]))
        if options["output"]:
            options["output"].write_text(text, encoding="utf-8")
        else:
            self.stdout.write(text, ending="")

    def list_rows(self, options: dict[str, Any]) -> None:
        for feed in ExchangeFeed.objects.with_asset_counts():
            state = "enabled " if feed.enabled else "disabled"
            assets, homes = feed.asset_count, feed.home_count  # type: ignore[attr-defined]  # annotations
            counts = f"{assets:>4} assets {homes:>4} homes"
            self.stdout.write(f"{feed.name:<24} {state} {feed.quote_currency:<4} {counts}  {feed.ws_url}")

    def check_row(self, options: dict[str, Any]) -> None:
        spec, symbols = _row(options["exchange"])
        if options["frames"]:
            self.replay(spec, options["frames"])
        else:
            self.try_live(spec, symbols, options)

    def replay(self, spec: FeedSpec, file: str) -> None:
        replay = Replay(spec)
        with _opened(file) as lines:
            for number, tick in replay.run(lines):
                seen = {"line": number, "symbol": tick.symbol, "price": tick.price, "time_ns": tick.traded_ns}
                self.stdout.write(json.dumps(seen, ensure_ascii=False))
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(replay.kinds.items()))
        self.stderr.write(f"{replay.frames} frames ({kinds or 'none'}), {replay.ticks} ticks.")
        for complaint in replay.complaints:
            self.stderr.write(complaint)
        if replay.bad_lines:
            raise CommandError(f"{replay.bad_lines} lines could not be read.")

    def try_live(self, spec: FeedSpec, symbols: list[str], options: dict[str, Any]) -> None:
        from exchanges.trial import try_feed  # the network libraries, for this one action

        report = asyncio.run(try_feed(spec, symbols, seconds=options["seconds"]))
        self.stdout.write(report.to_json() if options["json"] else report.to_text())
        if not report.ok:
            raise CommandError(f"{spec.name} is not ready to go live.")


def _row(name: str) -> tuple[FeedSpec, list[str]]:
    """Return the spec and the live symbols of a row in the table, or of a document in a file."""
    if SLUG.fullmatch(name) and (feed := ExchangeFeed.objects.filter(pk=name).first()):
        return feed.to_spec(), list(feed.listings.filter(prewarm=True).values_list("symbol", flat=True))
    if name != "-" and not Path(name).is_file():
        raise CommandError(f"There is no exchange and no file {name!r}.")
    columns, rows = split_document(read_document(_text(name)))
    live = [row for row in rows if isinstance(row, dict) and row.get("prewarm", True)]
    return parse_feed(columns), [str(row["symbol"]) for row in live if row.get("symbol")]


def _text(file: str) -> str:
    with _opened(file) as stream:
        try:
            return stream.read()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error


def _opened(file: str) -> contextlib.AbstractContextManager[TextIO]:
    """Open *file* for reading, - being standard input."""
    if file == "-":
        return contextlib.nullcontext(sys.stdin)
    try:
        return open(
            file, encoding="utf-8", errors="surrogateescape"
        )  # a bad byte spoils its line, not the file
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error

"""What reports read of the database, one short query after another; PostgreSQL and SQLite.

Rows are told in the order of a key, and each page is a query of its own that begins behind the last row of
the page before. So a client that reads slowly keeps no transaction open, no row is told twice, and nothing
has to be kept for the next page. Groups cost all that is added up, for a page as for the whole: those that
are wanted whole come of one query.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeAlias

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.models import Count, DateField, F, Func, Max, Model, Q, QuerySet, Sum
from django.db.models.expressions import Combinable

from telemetry._spool import REPORT_USAGE
from telemetry.exceptions import Cancelled
from telemetry.models import UsageLog, UsageRollup
from telemetry.reports import FIGURE_FIELDS, Question, Value, fields_of, group_fields, place_of

Query: TypeAlias = QuerySet[Any, Any]  # Any: of one model or the other, as values

Pieces: TypeAlias = Generator[list[tuple[Value, ...]], None, None]

CANCEL_S = 5.0
_FILTERS = ("account_id", "asset", "exchange", "status", "protocol", "endpoint", "key_id")


_SNAPSHOTS = {
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "sqlite": "BEGIN DEFERRED",
}


class Day(Func):
    """The UTC day of a moment."""

    output_field = DateField()
    template = "((%(expressions)s) AT TIME ZONE 'UTC')::date"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:  # Any: as Django has it
        return self.as_sql(compiler, connection, template="substr(%(expressions)s, 1, 10)", **context)


class Reading:
    """What one report reads, in one thread at a time; another one may cancel it.

    Queries are made within ``with reading:``, where the connection is that of the thread.
    """

    def __init__(self, using: str = DEFAULT_DB_ALIAS) -> None:
        self._using = using
        self._lock = threading.Lock()
        self._connection: Any = None  # Any: the driver's
        self._is_cancelled = False

    def __enter__(self) -> None:
        connections[self._using].ensure_connection()
        with self._lock:
            self.check()
            self._connection = connections[self._using].connection

    def __exit__(self, *raised: object) -> None:
        with self._lock:  # a cancel that is under way must not hit whoever has the connection next
            self._connection = None

    def check(self) -> None:
        """Raise Cancelled when it was cancelled while nothing ran in the database."""
        if self._is_cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Stop the query that runs, and any that would come after it. May wait for the network."""
        self._is_cancelled = True
        with self._lock:
            if isinstance(self._connection, sqlite3.Connection):
                self._connection.interrupt()
            elif self._connection is not None:
                # A server that does not hear this does not hear anything: the query fails by itself.
                with suppress(DatabaseError), connections[self._using].wrap_database_errors:
                    self._connection.cancel_safe(timeout=CANCEL_S)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every query see the same records, however many are written meanwhile."""
        connection = connections[self._using]
        if connection.in_atomic_block:  # a transaction around the caller is the caller's
            yield
            return
        # Not Django's atomic(): on SQLite that takes the lock of writers, and keeps them waiting.
        with connection.cursor() as cursor:
            cursor.execute(_SNAPSHOTS[connection.vendor])
            try:
                if connection.vendor == "postgresql":
                    # Cursors here are read to the end; the default plan is quick to a tenth of it.
                    cursor.execute("SET LOCAL cursor_tuple_fraction = 1")
                yield
            finally:
                cursor.execute("ROLLBACK")

    def page(self, question: Question, after: Sequence[Value], size: int) -> list[tuple[Value, ...]]:
        """Read at most *size* rows, fields as `fields_of` names them, behind the place *after* if given."""
        place = place_of(question)
        if not place:
            return [self.totals(question)]
        return list(_rows(question, self._using, after)[:size])

    def groups(self, question: Question, most: int | None, size: int) -> Pieces:
        """Read the rows of a summary, *most* of them, with one query in pieces of *size*; at least one piece.

        Its cursor stays open from the first piece to the last: for within a snapshot, or a transaction.
        """
        if not place_of(question):
            yield [self.totals(question)]
            return
        # Django declares the cursor WITH HOLD, as it knows nothing of a snapshot's BEGIN. Only a COMMIT would
        # have the server keep what has not been read; a snapshot ends with ROLLBACK, and the cursor with it.
        rows = _rows(question, self._using)[:most].iterator(chunk_size=size)
        yield list(islice(rows, size))
        while piece := list(islice(rows, size)):
            yield piece

    def totals(self, question: Question) -> tuple[Value, ...]:
        """Read the figures of all rows together."""
        read = _records(question, self._using).aggregate(**_figures(question))
        return tuple(read[field] for field in FIGURE_FIELDS)

    def breakdown(self, question: Question, group: str, most: int) -> list[tuple[Value, ...]]:
        """Read the figures by *group*, at most so many: those with the most answers, or days in order."""
        fields = group_fields((group,))
        rows = _records(question, self._using).values(*fields).annotate(**_figures(question))
        rows = rows.order_by(*fields) if group == "day" else rows.order_by("-answers_", *fields)
        return list(rows.values_list(*fields, *FIGURE_FIELDS)[:most])

    def count(self, question: Question, most: int) -> int:
        """Say how many rows there are, counting up to *most* + 1."""
        rows, place = _records(question, self._using), place_of(question)
        if question.kind.is_summary:
            if not place:
                return 1
            rows = rows.values(*place).distinct()
        return int(rows[: most + 1].count())


def _rows(question: Question, using: str, after: Sequence[Value] = ()) -> Query:
    """Return what tells rows in the order of their places, behind the place *after* if given."""
    rows, place = _records(question, using), place_of(question)
    if after:
        rows = rows.filter(_beyond(place, after))
    if question.kind.is_summary:
        rows = rows.values(*place).annotate(**_figures(question))
    return rows.order_by(*place).values_list(*fields_of(question))


def _records(question: Question, using: str) -> Query:
    model: type[Model] = UsageRollup if question.kind.is_summary else UsageLog
    time = "hour" if question.kind.is_summary else "at"
    chosen = {name: getattr(question, name) for name in _FILTERS if getattr(question, name) is not None}
    source = Q()
    if question.source is not None:
        source = Q(source=question.source.number, simulated=question.source.simulated)
        if question.source.exchange is not None:
            source &= Q(exchange=question.source.exchange)
    kind = Q(endpoint__gte=REPORT_USAGE) if question.kind.is_of_reports else Q(endpoint__lt=REPORT_USAGE)
    period = {f"{time}__gte": question.start, f"{time}__lt": question.end}
    rows: Query = model._default_manager.using(using).annotate(day=Day(F(time)))
    return rows.filter(kind, source, **period, **chosen)


def _figures(question: Question) -> dict[str, Combinable]:
    if question.kind.is_summary:

        def number(which: Q | None = None) -> Combinable:
            return Sum("answers", filter=which)

    else:

        def number(which: Q | None = None) -> Combinable:
            return Count("sequence", filter=which)  # never null

    latency = "latency_us"
    most = "latency_us_max" if question.kind.is_summary else latency
    return {
        "answers_": number(),
        "counted_": number(~Q(month=0)),
        "ok_": number(Q(status__lt=300)),
        "refused_": number(Q(status__gte=300, status__lt=500)),
        "failed_": number(Q(status__gte=500)),
        "assets_": Sum("assets"),
        "latency_us_sum_": Sum(latency),
        "latency_us_max_": Max(most),
    }


def _beyond(fields: Sequence[str], values: Sequence[Value]) -> Q:
    """Keep what comes after a place in the order of *fields*; the first one's bound is for the index."""
    beyond = Q()
    for field, value in reversed(list(zip(fields, values, strict=True))):
        beyond = Q(**{f"{field}__gt": value}) | (Q(**{field: value}) & beyond if beyond else Q())
    return Q(**{f"{fields[0]}__gte": values[0]}) & beyond

"""Rows and sums into either kind of database: PostgreSQL by COPY and arrays, SQLite by many small inserts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from telemetry._rows import COLUMNS, COPY_HEADER, COPY_TRAILER, ROLLUP_COLUMNS, copy_rows
from telemetry._spool import SIMULATED, UsageLog, decode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Piece = tuple[int, memoryview]
"""A segment's id, and clean records of it."""
Row = Sequence[Any]  # Any: what a column holds


class Sums(NamedTuple):
    """A table of sums: *key* says of what."""

    table: str
    key: tuple[str, ...]
    sums: tuple[str, ...]


ROLLUPS = Sums("usage_rollups", ROLLUP_COLUMNS[:12], ROLLUP_COLUMNS[12:])
MONTHS = Sums("usage_months", ("key_id", "month", "node"), ("counted",))
HOUR = ROLLUP_COLUMNS.index("hour")
TYPES = {"asset": "text", "exchange": "text", "node": "text", "simulated": "boolean"}
"""In PostgreSQL, of what is no bigint."""


def insert_rows(connection: BaseDatabaseWrapper, pieces: Iterable[Piece]) -> None:
    if connection.vendor == "postgresql":
        _copy(connection, pieces)
    else:
        _insert(connection, pieces)


def add_rollups(connection: BaseDatabaseWrapper, rollups: Sequence[Row]) -> None:
    """Add sums to those of their hours; *rollups* are as `Groups.rollups` gives them, in that order."""
    if connection.vendor == "postgresql":
        _add_arrays(connection, ROLLUPS, rollups)
    else:
        adapt = connection.ops.adapt_datetimefield_value
        hours = {row[HOUR]: adapt(EPOCH + timedelta(hours=row[HOUR])) for row in rollups}
        _add_each(connection, ROLLUPS, [(*row[:HOUR], hours[row[HOUR]], *row[HOUR + 1 :]) for row in rollups])


def add_months(connection: BaseDatabaseWrapper, counted: Mapping[tuple[int, int, str], int]) -> None:
    """Add to the rows counted by key, month and node."""
    add = _add_arrays if connection.vendor == "postgresql" else _add_each
    add(connection, MONTHS, [(*key, counted[key]) for key in sorted(counted)])


# -- PostgreSQL


def _copy(connection: BaseDatabaseWrapper, pieces: Iterable[Piece]) -> None:
    statement = f"COPY usage_logs ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, connection.wrap_database_errors, cursor.copy(statement) as copy:
        copy.write(COPY_HEADER)
        for segment_id, records in pieces:
            copy.write(copy_rows(records, segment_id))
        copy.write(COPY_TRAILER)


def _add_arrays(connection: BaseDatabaseWrapper, to: Sums, rows: Sequence[Row]) -> None:
    """Add in one statement, whose arrays cost less than as many parameters."""
    if not rows:
        return
    columns = (*to.key, *to.sums)
    arrays = ", ".join(f"%s::{TYPES.get(column, 'bigint')}[]" for column in columns)
    values = ", ".join("to_timestamp(hour * 3600)" if column == "hour" else column for column in columns)
    given = f"SELECT {values} FROM unnest({arrays}) AS added ({', '.join(columns)})"
    with connection.cursor() as cursor:
        cursor.execute(_adding(to, given, "GREATEST"), [_array(values) for values in zip(*rows, strict=True)])


def _array(values: Row) -> str:
    texts = [_quoted(value) for value in values] if isinstance(values[0], str) else map(str, values)
    return f"{{{','.join(texts)}}}"


def _quoted(value: str) -> str:
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


# -- SQLite


def _insert(connection: BaseDatabaseWrapper, pieces: Iterable[Piece]) -> None:
    statement = f"INSERT INTO usage_logs ({', '.join(COLUMNS)}) VALUES ({_places(COLUMNS)})"
    with connection.cursor() as cursor:
        for segment_id, records in pieces:
            cursor.executemany(statement, [_row(connection, segment_id, log) for log in decode(records)])


def _row(connection: BaseDatabaseWrapper, segment_id: int, log: UsageLog) -> Row:
    at = EPOCH + timedelta(microseconds=log.time_ns // 1000)
    values = log._asdict() | {
        "at": connection.ops.adapt_datetimefield_value(at),
        "segment_id": segment_id,
        "simulated": bool(log.flags & SIMULATED),
    }
    return [values[column] for column in COLUMNS]


def _add_each(connection: BaseDatabaseWrapper, to: Sums, rows: Sequence[Row]) -> None:
    given = f"VALUES ({_places((*to.key, *to.sums))})"
    with connection.cursor() as cursor:
        cursor.executemany(_adding(to, given, "max"), rows)


def _places(columns: Sequence[str]) -> str:
    return ", ".join(["%s"] * len(columns))


# -- both


def _adding(to: Sums, given: str, greatest: str) -> str:
    """Rows come in one order from every writer, so that no two can wait for each other."""
    changes = ", ".join(f"{column} = {_sum(to.table, column, greatest)}" for column in to.sums)
    return (
        f"INSERT INTO {to.table} ({', '.join((*to.key, *to.sums))}) {given} "
        f"ON CONFLICT ({', '.join(to.key)}) DO UPDATE SET {changes}"
    )


def _sum(table: str, column: str, greatest: str) -> str:
    there, added = f"{table}.{column}", f"excluded.{column}"
    return f"{greatest}({there}, {added})" if column.endswith("_max") else f"{there} + {added}"

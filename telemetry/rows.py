"""Rows into either kind of database: PostgreSQL by COPY BINARY, SQLite by as many inserts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from telemetry._rows import COLUMNS, COPY_HEADER, COPY_TRAILER, PART_COLUMNS, Groups, copy_rows
from telemetry._spool import SIMULATED, UsageLog, decode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = PART_COLUMNS.index("hour")
Row = Sequence[Any]  # Any: what a column holds


def insert_logs(connection: BaseDatabaseWrapper, pieces: Iterable[tuple[int, memoryview]]) -> None:
    """Insert clean records, each piece with the id of its segment."""
    if connection.vendor == "postgresql":
        _copy(connection, "usage_logs", COLUMNS, (copy_rows(records, pk) for pk, records in pieces))
    else:
        rows = (_log_row(connection, pk, log) for pk, records in pieces for log in decode(records))
        _insert(connection, "usage_logs", COLUMNS, rows)


def insert_parts(connection: BaseDatabaseWrapper, nodes: Iterable[tuple[str, Groups]]) -> None:
    """Insert what each node's records come to."""
    if connection.vendor == "postgresql":
        _copy(connection, "usage_parts", PART_COLUMNS, (groups.copy_rows(node) for node, groups in nodes))
    else:
        rows = (_part_row(connection, row) for node, groups in nodes for row in groups.rows(node))
        _insert(connection, "usage_parts", PART_COLUMNS, rows)


def _copy(
    connection: BaseDatabaseWrapper, table: str, columns: Sequence[str], pieces: Iterable[bytes]
) -> None:
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, connection.wrap_database_errors, cursor.copy(statement) as copy:
        copy.write(COPY_HEADER)
        for piece in pieces:  # the next one is made while the server takes this one
            copy.write(piece)
        copy.write(COPY_TRAILER)


def _insert(connection: BaseDatabaseWrapper, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    places = ", ".join(["%s"] * len(columns))
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", list(rows))


def _log_row(connection: BaseDatabaseWrapper, segment_id: int, log: UsageLog) -> Row:
    at = EPOCH + timedelta(microseconds=log.time_ns // 1000)
    values = log._asdict() | {
        "at": connection.ops.adapt_datetimefield_value(at),
        "segment_id": segment_id,
        "simulated": bool(log.flags & SIMULATED),
    }
    return [values[column] for column in COLUMNS]


def _part_row(connection: BaseDatabaseWrapper, row: Row) -> Row:
    hour = connection.ops.adapt_datetimefield_value(EPOCH + timedelta(hours=row[HOUR]))
    return [*row[:HOUR], hour, *row[HOUR + 1 :]]

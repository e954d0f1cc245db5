"""A whole node with a database and a queue of its own, all of which may die, and its books in the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from telemetry._spool import HTTP, UDP
from telemetry.segments import Segment, find_segments
from tests.system.nodes import PATIENCE_S, Node, is_alive, read_command, wait_until
from tests.system.postgres import PostgresServer
from tests.system.proof import Finding, Row, check, show
from tests.system.witnesses import Customer, HttpWitness, Told, UdpWitness, Witness
from tests.telemetry.lossy import LossyProxy
from tests.valkeys import ValkeyServer

HTTP_WITNESSES, UDP_WITNESSES = 4, 4
PARTNERS = HTTP_WITNESSES + UDP_WITNESSES
ASSETS = 60
MAKE_KEYS = f"""
import json
from billing import services
from billing.authors import Author, Door
author = Author(Door.COMMAND)
def make(plan, number):
    account = services.account_for(email=f"{{plan}}-{{number}}@example.com", plan=plan, author=author)
    made = services.create_key(account=account, name="drill", author=author)
    return made.key.pk, made.text
keys = [make("partner", number) for number in range(1 + {PARTNERS})]
keys += [make("free", 0), make("free", 1), make("pro", 0), make("pro", 1)]
from billing.models import ApiKey
for key_id, _ in keys[-2:]:
    services.revoke_key(key=ApiKey.objects.get(pk=key_id), author=author)
print(json.dumps(keys))
"""
COLUMNS = "key_id, protocol, at, month, status, endpoint, asset, assets, exchange, price, quote, tier"
EPOCH, MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)


class HurriedNode(Node):
    program = ("-m", "tests.system.hurried")


class Whole:
    """The node, what it stands on, and those who ask it."""

    def __init__(
        self,
        folder: Path,
        stack: contextlib.ExitStack,
        *,
        embedded: bool = False,
        lossy: bool = False,
        **environment: str,
    ) -> None:
        self._stack = stack
        self.postgres: PostgresServer | None = None
        self.valkey: ValkeyServer | None = None
        self.proxy: LossyProxy | None = None
        if not embedded:
            environment |= self._start_servers(folder, lossy=lossy)
        self.node = HurriedNode(folder, **{"TRINITY_SPOOL_SEGMENT_BYTES": "262144", **environment})
        own, *self.customers = self._prepare()
        self.node.key = own.key
        self._own_id = own.key_id
        self.witnesses: list[Witness] = []

    def _start_servers(self, folder: Path, *, lossy: bool) -> dict[str, str]:
        self.postgres = PostgresServer()
        self._stack.callback(self.postgres.close)
        self.valkey = ValkeyServer(folder)
        self._stack.callback(self.valkey.kill)
        url = self.postgres.url
        if lossy:
            self.proxy = self._stack.enter_context(LossyProxy("127.0.0.1", self.postgres.port))
            url = url.replace(str(self.postgres.port), str(self.proxy.port))
        return {"DATABASE_URL": url, "CELERY_BROKER_URL": self.valkey.url, "REDIS_URL": self.valkey.url}

    def _prepare(self) -> list[Customer]:
        for command in (
            ("migrate", "--verbosity", "0"),
            ("seed",),
            ("shell", "--no-imports", "-c", MAKE_KEYS),
        ):
            done = self.node.manage(*command)
            assert done.returncode == 0, done.stderr
        return [Customer(*one) for one in json.loads(done.stdout.splitlines()[-1])]

    def start(self) -> None:
        self._stack.callback(self.node.clear_away)
        self.node.start()
        wait_until(self.node.is_live, lambda: self.node.said)

    # -- those who ask

    def ask(self, seed: int = 0) -> None:
        """Have witnesses ask from now on."""
        status, listed = self.node.get("/assets")
        assert status == 200
        assets = [one["asset"] for one in listed["assets"]][:ASSETS]
        http, udp = self.node.http_port, self.node.udp_port
        kinds: list[tuple[type[Witness], int]] = [
            *((HttpWitness, http),) * HTTP_WITNESSES,
            *((UdpWitness, udp),) * UDP_WITNESSES,
            *((HttpWitness, http), (UdpWitness, udp)) * 2,  # free: limited; pro: revoked
        ]
        for number, ((kind, port), customer) in enumerate(zip(kinds, self.customers, strict=True)):
            self.witnesses.append(kind(port, customer, assets, random.Random(f"{seed} {number}")))
        for witness in self.witnesses:
            witness.start()

    def silence(self) -> None:
        for witness in self.witnesses:
            witness.stop()
        for witness in self.witnesses:
            witness.join(PATIENCE_S)
            assert not witness.is_alive()

    @property
    def unlimited(self) -> list[Witness]:
        return self.witnesses[:PARTNERS]

    def wait_for_answers(self, more: int = 100) -> None:
        """Wait until so many more have come to each of those whom nothing limits."""
        for witness in self.unlimited:
            wanted = witness.answers + more
            wait_until(lambda one=witness, wanted=wanted: one.answers >= wanted, lambda: self.node.said)

    def wait_for_progress(self, *, stored: bool, most: int = 20) -> None:
        """Wait for answers over HTTP and over UDP, and until some were *stored*."""
        marks = [self.answers(HTTP), self.answers(UDP)]
        rows = self.count_rows() if stored else 0

        def goes_on() -> bool:
            return (
                self.answers(HTTP) >= marks[0] + most
                and self.answers(UDP) >= marks[1] + most
                and (not stored or self.count_rows() > rows)
            )

        wait_until(goes_on, lambda: self.node.said)

    def answers(self, protocol: int) -> int:
        return sum(witness.answers for witness in self.unlimited if witness.protocol == protocol)

    def count_rows(self) -> int:
        ((rows,),) = self.query("SELECT count(*) FROM usage_logs")
        return int(rows)

    # -- those who are hurt

    def processes(self, command: str) -> list[int]:
        """Return the node's processes that run a management command now."""
        pids = map(int, Path(f"/proc/{self.node.pid}/task/{self.node.pid}/children").read_text().split())
        return [pid for pid in pids if command in read_command(pid) and is_alive(pid)]

    def kill(self, whom: str, draw: random.Random) -> None:
        """Kill one such process, or a server, which is away for a moment."""
        servers = {"database": self.postgres, "valkey": self.valkey}
        if whom in servers:
            server = servers[whom]
            assert server is not None
            server.kill()
            time.sleep(draw.uniform(0.0, 0.5))
            server.start()
            return
        wait_until(lambda: bool(self.processes(whom)), lambda: self.node.said)
        os.kill(draw.choice(self.processes(whom)), signal.SIGKILL)

    # -- the books

    def assert_exactly_once(self) -> None:
        """All of it is in the database, each answer once; the books agree, and nothing is left behind."""
        findings = self._settle()
        assert not findings, show(findings)

    def assert_all_but_shed(self) -> int:
        """The same, but for answers that were given without a record and counted: say how many."""
        findings = self._settle()
        missing = [one for one in findings if one.problem == "answered and not logged"]
        assert len(missing) == len(findings), show(findings)
        shed = self.query("SELECT row, boot_ns, max(shed) FROM usage_segments GROUP BY row, boot_ns")
        assert len(missing) == sum(count for _, _, count in shed)
        return len(missing)

    def _settle(self) -> list[Finding]:
        """Wait until all is in the database, see that the books agree, and hold it against the witnesses."""
        self.silence()
        done = self.node.manage("reconcile", "--wait", "60")
        assert done.returncode == 0 and "No difference." in done.stdout, done.stdout + self.node.said
        assert "on their way" not in done.stdout, done.stdout
        wait_until(lambda: not self.left_behind(), lambda: f"{self.left_behind()}\n{self.node.said}")
        assert not any(witness.repeated for witness in self.witnesses)
        rows = self.rows()
        self._check_sums(rows)
        questions = [question for witness in self.witnesses for question in witness.questions]
        return check(questions, (row for row in rows if row.key_id != self._own_id))

    def left_behind(self) -> list[str]:
        """Name the segments whose writers are dead."""
        names = []
        for path in find_segments(self.node.folder / "spool"):
            with contextlib.suppress(FileNotFoundError), Segment(path) as segment:
                if not segment.alive:
                    names.append(path.name)
        return names

    def _check_sums(self, rows: list[Row]) -> None:
        assert self.query("SELECT sum(answers) FROM usage_rollups") == [(len(rows),)]
        by_key: dict[int, int] = {}
        for row in rows:
            if row.month:
                by_key[row.key_id] = by_key.get(row.key_id, 0) + 1
        months = self.query("SELECT key_id, sum(counted) FROM usage_months WHERE counted > 0 GROUP BY key_id")
        assert {key_id: int(counted) for key_id, counted in months} == by_key
        assert self.query("SELECT count(*) FROM usage_quarantine") == [(0,)]

    def rows(self) -> list[Row]:
        return [read_row(*columns) for columns in self.query(f"SELECT {COLUMNS} FROM usage_logs ORDER BY at")]

    def query(self, query: str) -> list[tuple[Any, ...]]:  # Any: columns
        if self.postgres is None:
            with contextlib.closing(sqlite3.connect(self.node.folder / "trinity.sqlite3")) as connection:
                return connection.execute(query).fetchall()
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()


def read_row(
    key_id: int, protocol: int, at: datetime | str, month: int, *told: Any
) -> Row:  # Any: columns of a table
    """Read a row; SQLite has texts for times."""
    time_of = at if isinstance(at, datetime) else datetime.fromisoformat(at).replace(tzinfo=UTC)
    return Row(key_id, protocol, (time_of - EPOCH) // MICROSECOND, month, Told(*told))


@contextlib.contextmanager
def whole_node(folder: Path, **options: Any) -> Iterator[Whole]:  # Any: those of Whole
    with contextlib.ExitStack() as stack:
        whole = Whole(folder, stack, **options)
        stack.callback(lambda: [witness.stop() for witness in whole.witnesses])
        whole.start()
        yield whole

"""``manage.py runsimulator``: simulated exchanges on loopback, for the demo and for trying things out."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from exchanges.simulator.record import write_folder
from exchanges.simulator.replay import RecordingError, Replay, read_folder
from exchanges.simulator.server import DEFAULT_RATE, HOST, Simulator
from telemetry.commands import ExplainedCommand
from telemetry.running import say_ready, stop_on_signals

USUAL_PORT = 8090

EXAMPLES = """
examples:
  manage.py runsimulator --port 8090
  manage.py runsimulator --replay tests/recordings --retime
  manage.py runsimulator --record tests/recordings
  curl -X POST localhost:8090/control/okx/fault -d '{"kind": "silence", "pongs": false}'
  curl -X POST localhost:8090/control/all/fault -d '{"kind": "crash", "factor": 0.5, "assets": ["BTC"]}'
  curl -X POST localhost:8090/control/okx/blast -d '{"frames": 100000}'
  curl localhost:8090/control/okx
  curl -X DELETE localhost:8090/control/all/fault
"""


class Command(ExplainedCommand):
    help = "Serve simulated exchanges on the loopback address."
    examples = EXAMPLES
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        port = settings.TRINITY_SIMULATOR_PORT or USUAL_PORT
        parser.add_argument("--port", type=int, default=port, help=f"0 picks a free one (default: {port})")
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when it listens")
        parser.add_argument(
            "--rate", type=float, default=DEFAULT_RATE, help="trades a second per exchange, at least"
        )
        parser.add_argument("--seed", type=int, default=1, help="the same seed walks the same way")
        parser.add_argument("--replay", type=Path, metavar="FOLDER", help="send recorded frames instead")
        parser.add_argument("--retime", action="store_true", help="replay prices as if they traded now")

        parser.add_argument("--record", type=Path, metavar="FOLDER", help="write recordings and end")

    def handle(self, *args: Any, **options: Any) -> None:  # as Django has it
        if options["record"]:
            for path in write_folder(options["record"], seed=options["seed"]):
                self.stdout.write(str(path))
            return
        try:
            replays = read_folder(options["replay"], retimed=options["retime"]) if options["replay"] else {}
        except RecordingError as error:
            raise CommandError(str(error)) from error
        try:
            asyncio.run(self._serve(options, replays))
        except OSError as error:
            raise CommandError(f"cannot listen on {HOST}:{options['port']}: {error}") from error

    async def _serve(self, options: dict[str, Any], replays: dict[str, Replay]) -> None:  # parsed options
        stop = asyncio.Event()
        stop_on_signals(stop)
        simulator = Simulator(
            port=options["port"], seed=options["seed"], rate=options["rate"], replays=replays
        )
        async with simulator:
            self.stdout.write(f"simulator ready at {simulator.url} ({', '.join(simulator.exchanges)})")
            self.stdout.flush()
            say_ready(options["ready_fd"])
            await stop.wait()

"""Writes what a test has laid out, over and over: a process to be killed. Arguments: folder, seed."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path

import django

django.setup()

from telemetry.envelope import unpack  # noqa: E402
from telemetry.ledger import write_envelopes  # noqa: E402 (models need the setup)

calls = pickle.loads(Path(sys.argv[1]).read_bytes())  # a test's own file: documents
choice = random.Random(int(sys.argv[2]))
sys.stdout.write("ready\n")
sys.stdout.flush()
while True:
    write_envelopes(map(unpack, choice.choice(calls)))

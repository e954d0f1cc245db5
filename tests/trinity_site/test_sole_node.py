"""One node per data folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from trinity_site.sole_node import sole_node

HOLDS = """
import sys, time
from pathlib import Path
from trinity_site.sole_node import sole_node

with sole_node(Path(sys.argv[1]), "./run up"):
    print("held", flush=True)
    time.sleep(60)
"""


def refusal(folder: Path, command: str = "./run up") -> str:
    with pytest.raises(CommandError) as refused, sole_node(folder, command):
        pass
    return str(refused.value)


def test_second_node_is_told_whose_the_folder_is_and_what_to_type(tmp_path: Path) -> None:
    with sole_node(tmp_path, "./run up"):
        said = refusal(tmp_path, "./run demo")
    assert f"process {os.getpid()}." in said
    assert said.endswith("TRINITY_DATA_DIR=/another/folder ./run demo")


def test_folder_is_free_again_afterwards_and_other_folders_always(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_node(tmp_path, "./run up"):
            (tmp_path / "other").mkdir(exist_ok=True)
            with sole_node(tmp_path / "other", "./run up"):
                pass


def test_node_that_has_locked_and_not_yet_said_who_it_is_is_refused_too(tmp_path: Path) -> None:
    with sole_node(tmp_path, "./run up"):
        (tmp_path / "node.lock").write_text("")
        with pytest.raises(CommandError, match="just started"), sole_node(tmp_path, "./run up"):
            pass


def test_killed_node_frees_its_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert f"process {holder.pid}." in refusal(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with sole_node(tmp_path, "./run up"):
            assert (tmp_path / "node.lock").read_text() == f"{os.getpid()}\n"


def test_shorter_process_id_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "node.lock").write_text("123456789012\n")
    with sole_node(tmp_path, "./run up"):
        assert (tmp_path / "node.lock").read_text() == f"{os.getpid()}\n"


def test_folder_that_cannot_be_locked_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "node.lock").mkdir()
    assert "node.lock cannot be opened (Is a directory)" in refusal(tmp_path)

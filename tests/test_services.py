"""What the test run leaves behind: nothing, even when it is killed."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.system.nodes import ROOT, is_alive, wait_until

KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.services import ending_with_us, remove_in_the_end
remove_in_the_end(Path(sys.argv[1]))
print(subprocess.Popen(["sleep", "60"], preexec_fn=ending_with_us(signal.SIGTERM)).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_run_leaves_neither_folder_nor_process(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "file").touch()
    command = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not folder.exists())
    wait_until(lambda: not is_alive(int(done.stdout)))
    assert tmp_path.exists()

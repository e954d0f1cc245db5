"""What the kernel may do to a batch, done to it: partial and refused sends, errors, interruptions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.nodes import ROOT

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc to compile faults.c with")
def test_faults_of_the_kernel_lose_nothing_uncounted(tmp_path: Path) -> None:
    library = tmp_path / "faults.so"
    compile_it = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*compile_it, "-o", str(library), str(HERE / "faults.c")], check=True)
    words = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "--timeout", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(HERE / "faulty.py")],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout

"""The compiled reader with AddressSanitizer and UndefinedBehaviorSanitizer, for a run of the fuzz."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Distribution, Extension

ROOT = Path(__file__).parents[2]
MODULE = "udp_engine._datagram"
FLAGS = [
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
]

# The built module takes the place of the installed one before anything can import that.
RUN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location({module!r}, {path!r})
module = importlib.util.module_from_spec(spec)
sys.modules[{module!r}] = module
spec.loader.exec_module(module)
from tests.udp_engine.fuzz import main
main(sys.argv[1:])
"""


def run_sanitized(count: int, seed: int) -> int:
    """Build, run the fuzz on what was built, and give its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = build(Path(folder))
        program = RUN.format(module=MODULE, path=str(path))
        command = [sys.executable, "-c", program, "--count", str(count), "--seed", str(seed)]
        return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode


def build(folder: Path) -> Path:
    """Compile the module into *folder*, where nothing else finds it."""
    source = Path(*MODULE.split(".")).with_suffix(".pyx")
    extension = Extension(
        MODULE, [str(source)], include_dirs=[str(ROOT)], extra_compile_args=FLAGS, extra_link_args=FLAGS
    )
    inside = Path.cwd()
    os.chdir(ROOT)
    try:
        distribution = Distribution(
            {"ext_modules": cythonize([extension], build_dir=str(folder), language_level=3, quiet=True)}
        )
        command = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(folder / "built"), str(folder / "objects")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(inside)
    (path,) = (folder / "built").rglob("*.so")
    return path


def environment() -> dict[str, str]:
    """Load the sanitizers' libraries first; Python's own allocator would hide what is out of bounds."""
    compiler = shutil.which("gcc") or "cc"
    libraries = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter itself keeps what it has until it ends
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }

"""The compiled modules with AddressSanitizer and UndefinedBehaviorSanitizer, for a run of the fuzz."""

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
MODULES = ("udp_engine._datagram", "udp_engine._batch")
FLAGS = [
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
]

# What was built takes the place of what is installed, before anything can import that.
RUN = """
import importlib.util, sys
for name, path in {paths!r}.items():
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
from tests.udp_engine.fuzz import main
main(sys.argv[1:])
"""


def run_sanitized(count: int, seed: int) -> int:
    """Build, run the fuzz on what was built, and give its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        program = RUN.format(paths=build(Path(folder)))
        command = [sys.executable, "-c", program, "--count", str(count), "--seed", str(seed)]
        return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode


def build(folder: Path) -> dict[str, str]:
    """Compile the modules into *folder*, where nothing else finds them, and say where each is."""
    inside = Path.cwd()
    os.chdir(ROOT)
    try:
        modules = cythonize(
            [extension(name) for name in MODULES], build_dir=str(folder), language_level=3, quiet=True
        )
        command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(folder / "built"), str(folder / "objects")
        command.ensure_finalized()
        command.run()
        return {name: str((folder / "built" / command.get_ext_filename(name)).resolve()) for name in MODULES}
    finally:
        os.chdir(inside)


def extension(name: str) -> Extension:
    source = str(Path(*name.split(".")).with_suffix(".pyx"))
    return Extension(
        name, [source], include_dirs=[str(ROOT)], extra_compile_args=FLAGS, extra_link_args=FLAGS
    )


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

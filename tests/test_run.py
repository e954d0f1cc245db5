"""`./run`, in a folder of its own where the tools it calls only note what they were asked for."""

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "run"
PYTHON = f"""#!/bin/bash
case "$*" in
    *build_ext*) touch "$PROJECT/pricing/_board.x.so" ;;
    *firstadmin*) echo "the password is sesame" ;;
    *"apikey first"*) echo "the key is rosebud" ;;
    "-c "*) exec {sys.executable} "$@" ;;
esac
echo "python $*" >> "$PROJECT/asked"
case " $* " in *" $FAIL "*) echo "no way: https://user:secret@packages.example/simple"; exit 1 ;; esac
case "$*" in *migrate*) mkdir -p "$TRINITY_DATA_DIR"; touch "$TRINITY_DATA_DIR/trinity.sqlite3" ;; esac
case "$*" in *runnode*) env > "$PROJECT/environment" ;; esac
exit 0
"""
UV = """#!/bin/bash
case "$1" in --version) echo "uv 0.13.9"; exit 0 ;; esac
echo "uv $*" >> "$PROJECT/asked"
[ -z "$UV_FAILS" ]
"""


class Project:
    """A folder with the script, fake tools, and the record of what they were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "no home"),
            "PROJECT": str(folder),
            "TRINITY_DATA_DIR": str(folder / "data"),
            "FAIL": "nothing",
        }

    def run(self, *arguments: str, status: int = 0, **environment: str) -> str:
        """Run the script from another folder; return what it said, and note what was asked in `asked`."""
        (self.folder / "asked").unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, str(self.folder / "run"), *arguments],
            env={**self.environment, **environment},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    @property
    def asked(self) -> list[str]:
        record = self.folder / "asked"
        lines = record.read_text().splitlines() if record.exists() else []
        return [line.replace(f"{self.folder}/", "") for line in lines]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "a folder"
    for name in ("pricing/migrations", "exchanges", "telemetry", "trinity_site", ".venv/bin"):
        (folder / name).mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "run")
    contents = {
        "requirements.txt": "django",
        "requirements-dev.txt": "pytest",
        "pyproject.toml": "",
        "pricing/_board.pyx": "",
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    for name, content in {"python": PYTHON, "uv": UV}.items():
        (folder / ".venv/bin" / name).write_text(content)
        (folder / ".venv/bin" / name).chmod(0o755)
    return Project(folder)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("run_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader("run_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


INSTALL = "uv pip sync --quiet --system-certs --compile-bytecode --python .venv/bin/python requirements.txt"
COMPILE = "python -c import setuptools; setuptools.setup() build_ext --inplace --force"
STEPS = ("migrate --verbosity 0", "seed", "firstadmin", "apikey first")
DATABASE = [f"python manage.py {step}" for step in STEPS]
UP = "python manage.py runnode --typed ./run up"


def test_first_start_sets_everything_up_in_order(project: Project) -> None:
    said = project.run("up")
    assert project.asked == [INSTALL, COMPILE, *DATABASE, UP]
    assert (said.count("sesame"), said.count("rosebud")) == (1, 1)


def test_second_start_does_nothing_twice_and_says_nothing(project: Project) -> None:
    project.run("up")
    assert project.run("up") == ""
    assert project.asked == [UP]


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("requirements.txt", [INSTALL]),
        ("pricing/_board.pyx", [COMPILE]),
        ("pyproject.toml", [COMPILE]),
        ("pricing/migrations/0001.py", DATABASE),
    ],
)
def test_changed_source_repeats_its_step_alone(project: Project, changed: str, again: list[str]) -> None:
    project.run("up")
    (project.folder / changed).write_text("changed")
    project.run("up")
    assert project.asked == [*again, UP]


@pytest.mark.parametrize("gone", ["pricing/_board.x.so", "data/trinity.sqlite3", ".venv/setup.json"])
def test_missing_product_is_made_again(project: Project, gone: str) -> None:
    project.run("up")
    (project.folder / gone).unlink()
    project.run("up")
    assert len(project.asked) > 1
    project.run("up")
    assert project.asked == [UP]


@pytest.mark.parametrize("failing", ["build_ext", "migrate", "seed", "firstadmin", "apikey"])
def test_failed_step_is_repeated_by_the_next_run(project: Project, failing: str) -> None:
    said = project.run("up", status=1, FAIL=failing)
    assert "Run the same command again" in said
    project.run("up")
    assert any(failing in line for line in project.asked)


def test_failure_shows_no_address(project: Project) -> None:
    said = project.run("up", status=1, FAIL="migrate")
    assert "no way" in said
    assert "example" not in said and "secret" not in said


def test_pip_takes_over_where_uv_fails(project: Project) -> None:
    project.run("up", UV_FAILS="yes")
    assert "python -m pip install --quiet --requirement requirements.txt" in project.asked


def test_packages_for_development_are_kept_by_other_commands(project: Project) -> None:
    project.run("test", "tests/pricing")
    assert project.asked[0].endswith("requirements-dev.txt")
    project.run("manage", "check")
    assert project.asked == ["python manage.py check"]


def test_arguments_of_test_go_to_pytest_alone(project: Project) -> None:
    project.run("test", "tests/pricing", "-k", "x")
    assert project.asked[-1] == "python -m pytest tests/pricing -k x"


def test_external_database_is_asked_every_time(project: Project) -> None:
    project.run("up", DATABASE_URL="postgres://db/x")
    project.run("up", DATABASE_URL="postgres://db/x")
    assert project.asked == [*DATABASE, UP]


def test_demo_touches_no_real_data(project: Project) -> None:
    real = {"DATABASE_URL": "postgres://db/x", "REDIS_URL": "redis://r", "VALKEY_URL": "valkey://v"}
    real["CELERY_BROKER_URL"] = "sqs://"
    project.run("demo", TRINITY_SIMULATOR_PORT="9999", **real)
    assert project.asked[-1] == "python manage.py runnode --typed ./run demo"
    environment = dict(
        line.split("=", 1)
        for line in (project.folder / "environment").read_text().splitlines()
        if "=" in line
    )
    assert environment["TRINITY_DATA_DIR"] == str(project.folder / "data/demo")
    assert environment["TRINITY_SIMULATOR_PORT"] == "9999"
    assert not environment.keys() & real.keys()


def test_database_is_left_alone_by_commands_that_make_it(project: Project) -> None:
    project.run("manage", "migrate")
    assert project.asked[-1] == "python manage.py migrate"
    assert not any("seed" in line for line in project.asked)


def test_missing_compiler_is_named_with_its_package(project: Project, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "mkdir", "touch"):
        (tools / name).symlink_to(str(shutil.which(name)))
    said = project.run("up", status=1, PATH=str(tools))
    assert "apt-get install gcc" in said


def test_environment_of_a_vanished_python_is_made_again(project: Project) -> None:
    (project.folder / ".venv/bin/python").unlink()
    (project.folder / ".venv/bin/python").symlink_to("/nowhere/python")
    (project.folder / "ensurepip.py").write_text("raise SystemExit('no pip here')")
    said = project.run("up", status=1, PYTHONPATH=str(project.folder))
    assert "Making a virtual environment" in said
    assert "no pip here" in said
    assert (project.folder / ".venv/pyvenv.cfg").exists()


def test_help_gives_examples(project: Project) -> None:
    assert "./run demo" in project.run("--help")
    assert "./run test tests/pricing" in project.run(status=2)
    assert "invalid choice" in project.run("upp", status=2)


@pytest.mark.parametrize(
    ("version", "supported"),
    [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False), ((2, 7), False), (None, False)],
)
def test_supported_versions(script: ModuleType, version: tuple[int, int] | None, supported: bool) -> None:
    assert script.is_supported(version) is supported


def test_version_of_what_does_not_run_is_none(script: ModuleType) -> None:
    assert script.python_version("/nowhere/python") is None
    assert script.python_version("false") is None


def test_addresses_are_taken_out_of_messages(script: ModuleType) -> None:
    text = "Looking in https://u:p@index.example/simple; HTTPSConnectionPool(host='index.example', port=443)"
    assert script.without_hosts(text) == "Looking in (address) HTTPSConnectionPool(host=(address), port=443)"


def test_stamp_that_was_cut_short_counts_as_none(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "setup.json").write_text('{"packages": "12')
    assert script.read_stamp(tmp_path / "setup.json") == {}

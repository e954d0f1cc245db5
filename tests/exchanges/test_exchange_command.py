"""`manage.py exchange`: documents in and out, and recorded frames through a row."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from exchanges.feed.check import CheckedSymbol, CheckReport
from exchanges.feed.spec import FeedSpec
from exchanges.models import ExchangeAsset, ExchangeFeed
from tests.exchanges.rows import feed_row

LISTED = {"rest_symbol": "", "enabled": True, "prewarm": True, "home": True}
DOCUMENT = {
    "feed": feed_row(quirks={"trade_id_path": "i", "rest": {"time_path": "t"}}),
    "assets": [{"asset": "BTC", "symbol": "BTC-USD", "category": "Major Currencies", **LISTED}],
}


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("exchange", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


def frames(tmp_path: Path, *lines: object) -> str:
    path = tmp_path / "frames.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def trade(price: str, time_ms: int = 1_763_816_400_123) -> str:
    return json.dumps({"e": "trade", "s": "BTC-USD", "p": price, "T": time_ms, "i": "1"})


# import, export, list


@pytest.mark.django_db
def test_exported_document_imports_to_the_same_bytes(file: Path, tmp_path: Path) -> None:
    assert run("import", str(file))[0] == "Imported plain with 1 assets.\n"
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    run("export", "plain", "--output", str(first))
    ExchangeFeed.objects.all().delete()
    run("import", str(first))
    run("export", "plain", "--output", str(second))
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.read_bytes()) == DOCUMENT
    assert run("export", "plain")[0] == first.read_text()


@pytest.mark.django_db
def test_import_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(DOCUMENT)))
    run("import", "-")
    assert ExchangeAsset.objects.get().history.get().history_change_reason == "command"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "document: must be"),
        (json.dumps({**DOCUMENT, "feed": feed_row(ws_url="x", price_path="[")}), "feed.price_path"),
        (json.dumps({**DOCUMENT, "assets": [{"asset": "b"}]}), r"assets\[0\].asset"),
    ],
)
def test_bad_document_is_explained_and_changes_nothing(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    with pytest.raises(CommandError, match=complaint):
        run("import", str(file))
    assert not ExchangeFeed.objects.exists()


@pytest.mark.django_db
def test_import_of_a_missing_file_is_explained() -> None:
    with pytest.raises(CommandError, match="No such file"):
        run("import", "/nowhere/at/all.json")


@pytest.mark.django_db
def test_export_of_an_unknown_exchange_is_explained() -> None:
    with pytest.raises(CommandError, match="no exchange 'nowhere'"):
        run("export", "nowhere")


@pytest.mark.django_db
def test_list_shows_every_exchange(file: Path) -> None:
    run("import", str(file))
    (line,) = run("list")[0].splitlines()
    assert line.split()[:5] == ["plain", "enabled", "USD", "1", "assets"]


# check --frames: no database is asked for when a file holds the row


def test_frames_yield_one_line_per_trade_and_nothing_else(file: Path, tmp_path: Path) -> None:
    recorded = frames(
        tmp_path,
        {"text": trade("1.50")},
        "",
        {"text": '{"e":"other"}', "direction": "in"},
        {"text": trade("9"), "direction": "out"},
        {"text": trade("2e-3", 1_763_816_400_124), "kind": "trade", "direction": "in"},
    )
    out, err = run("check", str(file), "--frames", recorded)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"line": 1, "symbol": "BTC-USD", "price": "1.50", "time_ns": 1_763_816_400_123_000_000},
        {"line": 5, "symbol": "BTC-USD", "price": "0.002", "time_ns": 1_763_816_400_124_000_000},
    ]
    assert "3 frames (1 other, 2 trade), 2 ticks." in err


@pytest.mark.django_db
def test_frames_run_through_a_row_of_the_table(file: Path, tmp_path: Path) -> None:
    run("import", str(file))
    out, _ = run("check", "plain", "--frames", frames(tmp_path, {"text": trade("1")}))
    assert json.loads(out)["price"] == "1"


def test_lines_that_cannot_be_read_are_named_and_fail(file: Path, tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    recorded = frames(tmp_path, "nonsense", {"kind": "trade"}, {"text": trade("1")})
    with pytest.raises(CommandError, match="2 lines could not be read"):
        call_command("exchange", "check", str(file), "--frames", recorded, stdout=out, stderr=err)
    assert len(out.getvalue().splitlines()) == 1
    assert "line 1: is not JSON" in err.getvalue()
    assert "line 2: must be" in err.getvalue()


# check


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], float, bool]]:
    """The calls of check_feed, which finds every symbol live unless there is none."""
    calls: list[tuple[str, list[str], float, bool]] = []

    async def check_feed(
        spec: FeedSpec, symbols: list[str], *, seconds: float, allow_loopback: bool
    ) -> CheckReport:
        calls.append((spec.ws_url, symbols, seconds, allow_loopback))
        found = [CheckedSymbol(symbol=symbol, state="live", price="1") for symbol in symbols]
        problem = "" if found else "there are no symbols to subscribe"
        return CheckReport(
            exchange=spec.name, ok=not problem, problem=problem, symbols=found, frames={}, faults=[]
        )

    monkeypatch.setattr("exchanges.trial.check_feed", check_feed)
    return calls


def test_check_of_a_file_reports_per_symbol(file: Path, tried: list[Any]) -> None:
    out, _ = run("check", str(file), "--seconds", "2")
    assert tried == [("wss://stream.plain.example/ws", ["BTC-USD"], 2.0, False)]
    assert out.split()[:3] == ["BTC-USD", "live", "1"]


def test_check_as_json_is_one_document(file: Path, tried: list[Any]) -> None:
    report = json.loads(run("check", str(file), "--json")[0])
    assert (report["ok"], report["symbols"][0]["state"]) == (True, "live")


def test_check_asks_the_simulator_where_there_is_one(file: Path, tried: list[Any], settings: Any) -> None:
    settings.TRINITY_SIMULATOR_URL, settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES = "http://127.0.0.1:1", True
    run("check", str(file))
    ((url, _, _, allow_loopback),) = tried
    assert (url, allow_loopback) == ("ws://127.0.0.1:1/ws/plain", True)


def test_check_that_finds_something_wrong_fails(file: Path, tried: list[Any]) -> None:
    file.write_text(json.dumps({**DOCUMENT, "assets": []}))
    with pytest.raises(CommandError, match="not ready"):
        run("check", str(file))


@pytest.mark.django_db
def test_check_of_neither_row_nor_file_is_explained() -> None:
    with pytest.raises(CommandError, match="no exchange and no file 'nowhere'"):
        run("check", "nowhere")

import json
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import DatabaseError

from exchanges import checks
from exchanges.models import ExchangeFeed
from exchanges.seeding import FIXTURES
from exchanges.services import Author, Door, import_document, save_assets, save_feed
from tests.exchanges.rows import feed_row

pytestmark = pytest.mark.django_db
AUTHOR = Author(Door.COMMAND)
BTC = {"asset": "BTC", "symbol": "BTC-USD", "category": "Major Currencies"}


def warnings(**options: Any) -> list[str]:  # Any: options of run_checks
    found = run_checks(databases=["default"], **options)
    return [message.id for message in found if message.id.startswith("exchanges.")]


def test_sound_tables_give_no_warning() -> None:
    save_feed(columns=feed_row(), author=AUTHOR)
    save_assets(rows=[{**BTC, "home": True}], exchange="plain", author=AUTHOR)
    assert warnings() == []


def test_unusable_row_is_a_warning() -> None:
    save_feed(columns=feed_row(), author=AUTHOR)
    ExchangeFeed.objects.update(price_path="[")
    assert warnings() == ["exchanges.W001"]


def test_asset_without_home_is_a_warning() -> None:
    save_feed(columns=feed_row(), author=AUTHOR)
    save_assets(rows=[BTC], exchange="plain", author=AUTHOR)
    assert warnings() == ["exchanges.W002"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://127.0.0.1:9000/ws", ["exchanges.W004"]),
        ("wss://169.254.169.254/ws", ["exchanges.W004"]),
        ("wss://stream.example.org/ws?streams={SYMBOLS}", []),
    ],
)
def test_address_that_will_be_refused_is_a_warning(url: str, expected: list[str]) -> None:
    save_feed(columns=feed_row(), author=AUTHOR)
    ExchangeFeed.objects.update(ws_url=url)
    assert warnings() == expected


def test_address_that_is_asked_for_when_connecting_is_no_warning() -> None:
    path = FIXTURES / "more" / "kucoin.json"
    import_document(document=json.loads(path.read_text()), author=AUTHOR)
    assert ExchangeFeed.objects.get().ws_url.startswith("{ENDPOINT}")
    assert "exchanges.W004" not in warnings()


def test_loopback_allowed_on_deployment_is_a_warning(settings: Any) -> None:  # Any: pytest-django's settings
    settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES = True
    assert "exchanges.W003" in warnings(include_deployment_checks=True)


def test_database_without_tables_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_table() -> None:
        raise DatabaseError("no such table")

    monkeypatch.setattr(checks, "_unusable_feeds", no_table)
    assert warnings() == []

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from telemetry._spool import ENDPOINTS, INDEX, NO_SOURCE, REST, WS
from telemetry.reports import (
    CURSOR_LIFE_S,
    DETAILS,
    FIGURE_FIELDS,
    FIGURES,
    GROUPS,
    Cursor,
    Kind,
    Source,
    columns_of,
    fields_of,
    figures,
    parse_source,
    place_of,
    render_hour,
    render_moment,
    row_maker,
    seal,
    source_tag,
    unseal,
)
from tests.telemetry.reported import ACCOUNT, OTHER, ask

SECRET = b"s" * 32
NOW_S = 1_763_900_000
CURSOR = Cursor(
    ask(source=parse_source("kraken-ws")), 100, NOW_S, (datetime(2026, 11, 2, 3, tzinfo=UTC), 4, 5)
)


def test_every_report_has_an_endpoint_of_its_own() -> None:
    assert [ENDPOINTS[kind.endpoint] for kind in Kind] == [f"reports/{kind.value}" for kind in Kind]


def test_every_endpoint_is_told_of_by_one_pair_of_reports() -> None:
    assert Kind.USAGE.endpoints | Kind.REPORT_USAGE.endpoints == {name: n for n, name in enumerate(ENDPOINTS)}
    assert Kind.SUMMARY.endpoints == Kind.USAGE.endpoints == {"price": 0, "prices": 1, "usage": 2}


@pytest.mark.parametrize(
    ("tag", "source"),
    [
        ("coinbase-ws", Source(WS, "coinbase", False)),
        ("crypto-com_2-rest", Source(REST, "crypto-com_2", False)),
        ("okx-ws-sim", Source(WS, "okx", True)),
        ("index", Source(INDEX, None, False)),
    ],
)
def test_source_is_read_and_told_alike(tag: str, source: Source) -> None:
    assert parse_source(tag) == source
    assert source_tag(source.number, source.exchange, source.simulated) == tag


@pytest.mark.parametrize(
    "tag", ["", "ws", "-ws", "coinbase", "Coinbase-ws", "coinbase-ftp", "a-ws\n", "none"]
)
def test_what_is_no_source_is_refused(tag: str) -> None:
    with pytest.raises(ValueError):
        parse_source(tag)


def test_without_a_price_there_is_no_source() -> None:
    assert source_tag(NO_SOURCE, "", False) is None


@pytest.mark.parametrize("group_by", [(), *((name,) for name in GROUPS), ("source", "exchange", "hour")])
def test_row_of_a_summary_has_its_columns(group_by: tuple[str, ...]) -> None:
    question = ask(Kind.SUMMARY, group_by=group_by)
    read: list[Any] = [1] * len(place_of(question)) + [10, 9, 8, 1, 1, 12, 1_005, 700]
    assert fields_of(question) == (*place_of(question), *FIGURE_FIELDS)
    row = row_maker(question)(read)
    assert len(row) == len(columns_of(question))
    assert row[-len(FIGURES) :] == (10, 9, 8, 1, 1, 12, 100, 700)


def test_figures_of_nothing_are_zero() -> None:
    assert figures([0, *[None] * 7]) == (0,) * 8


def test_columns_have_names_of_their_own() -> None:
    for columns in (DETAILS, FIGURES):
        assert len({column.name for column in columns}) == len(columns)


def test_filters_are_told_in_the_words_in_which_they_were_asked() -> None:
    question = ask(asset="BTC", status=200, source=parse_source("okx-rest"), protocol=1, endpoint=0, key_id=7)
    expected = {
        "asset": "BTC",
        "source": "okx-rest",
        "status": 200,
        "protocol": "udp",
        "endpoint": "price",
        "key_id": 7,
    }
    assert question.filters() == expected
    assert question.heading() == {
        "From": "2026-11-01T00:00:00Z",
        "To": "2026-11-04T00:00:00Z",
        **{name: str(value) for name, value in expected.items()},
    }


def test_times_are_rfc_3339() -> None:
    moment = datetime(2026, 11, 2, 3, 4, 5, 60, tzinfo=UTC)
    assert render_moment(moment) == "2026-11-02T03:04:05.000060Z"
    assert render_moment(moment.replace(microsecond=0)) == "2026-11-02T03:04:05.000000Z"
    assert render_hour(moment.replace(microsecond=0)) == "2026-11-02T03:04:05Z"
    assert render_hour(moment) == render_moment(moment)


def test_cursor_comes_back_as_it_was() -> None:
    assert unseal(seal(CURSOR, SECRET), SECRET, account_id=ACCOUNT, now_s=NOW_S) == CURSOR


@pytest.mark.parametrize(
    "place", [(date(2026, 11, 2), "BTC"), ("", 1, True), (datetime(2026, 11, 2, 3, 4, 5, 6, UTC),)]
)
def test_cursor_keeps_a_place_of_any_values(place: tuple[Any, ...]) -> None:
    sealed = seal(msgspec.structs.replace(CURSOR, place=place), SECRET)
    told = unseal(sealed, SECRET, account_id=ACCOUNT, now_s=NOW_S).place
    assert told == tuple(one.isoformat() if type(one) is date else one for one in place)


def test_cursor_that_is_spoilt_anywhere_is_refused() -> None:
    text = seal(CURSOR, SECRET)
    others = [
        text[:place] + ("A" if one != "A" else "B") + text[place + 1 :] for place, one in enumerate(text)
    ]
    # The last character holds bits that no byte needs: another one may be the same cursor.
    for other in [*others[:-1], text[:-2], text + "AAAA", "", "?", "é", "A" * 2_000]:
        with pytest.raises(ValueError, match="spoilt"):
            unseal(other, SECRET, account_id=ACCOUNT, now_s=NOW_S)


def test_cursor_of_another_secret_account_or_time_is_refused() -> None:
    text = seal(CURSOR, SECRET)
    with pytest.raises(ValueError, match="spoilt"):
        unseal(text, b"t" * 32, account_id=ACCOUNT, now_s=NOW_S)
    with pytest.raises(ValueError, match="another account"):
        unseal(text, SECRET, account_id=OTHER, now_s=NOW_S)
    unseal(text, SECRET, account_id=ACCOUNT, now_s=NOW_S + CURSOR_LIFE_S)
    with pytest.raises(ValueError, match="60 minutes"):
        unseal(text, SECRET, account_id=ACCOUNT, now_s=NOW_S + CURSOR_LIFE_S + 1)


def test_moments_of_other_zones_are_the_same() -> None:
    east = datetime(2026, 11, 2, 5, tzinfo=timezone(timedelta(hours=2)))
    cursor = msgspec.structs.replace(CURSOR, place=(east, 1, 2))
    assert unseal(seal(cursor, SECRET), SECRET, account_id=ACCOUNT, now_s=NOW_S).place[0] == east

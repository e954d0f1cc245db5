"""Whatever ticks are refused for can be explained."""

import re
from pathlib import Path

import exchanges.feed
from exchanges.feed import guard
from exchanges.feed.reasons import EXPLANATIONS, USUAL

SOURCES = Path(exchanges.feed.__file__).parent.glob("*.py")


def test_every_reason_of_the_feeds_is_explained_and_no_other() -> None:
    read = {
        reason for file in SOURCES for reason in re.findall(r'(?:Fault|_spoilt)\("(\w+)"', file.read_text())
    }
    assert read >= {"bad_price", "refused"}
    assert set(EXPLANATIONS) == read | {guard.OLDER, guard.REPEAT, guard.FUTURE, guard.JUMP}


def test_usual_reasons_are_reasons() -> None:
    assert set(EXPLANATIONS) > USUAL

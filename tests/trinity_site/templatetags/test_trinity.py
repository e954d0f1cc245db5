"""The filters of the pages let no markup through."""

import pytest

from trinity_site.templatetags.trinity import digits, prose


@pytest.mark.parametrize(("number", "shown"), [("7", "7"), ("999", "999"), ("1234567", "1,234,567")])
def test_thousands_are_set_apart(number: str, shown: str) -> None:
    assert digits(number) == shown


def test_backticks_make_code_and_markup_is_escaped() -> None:
    assert prose("use `a<b` & `c`") == "use <code>a&lt;b</code> &amp; <code>c</code>"

"""The filters keep every digit and let no markup through."""

import pytest

from trinity_site.templatetags.trinity import digits, json_colours, prose


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        ("67123.45", "67,123.45"),
        ("1234567", "1,234,567"),
        ("999.10", "999.10"),
        ("0.000012345678", "0.000012345678"),
        ("100000.1234567", "100,000.1234567"),
    ],
)
def test_thousands_are_set_apart_and_no_digit_is_lost(price: str, shown: str) -> None:
    assert digits(price) == shown
    assert shown.replace(",", "") == price


def test_backticks_make_code_and_markup_is_escaped() -> None:
    assert prose("use `a<b` & `c`") == "use <code>a&lt;b</code> &amp; <code>c</code>"


def test_json_is_coloured_by_part_and_escaped() -> None:
    assert json_colours('{"a": "<b>", "n": -1.5}') == (
        '{<span class="json-key">&quot;a&quot;</span>: <span class="json-text">&quot;&lt;b&gt;&quot;</span>, '
        '<span class="json-key">&quot;n&quot;</span>: <span class="json-value">-1.5</span>}'
    )

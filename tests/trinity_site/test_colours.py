"""The pages' colours can be read: WCAG 2.2 asks for a contrast of 4.5 between text and its ground."""

import re
from pathlib import Path

import pytest

STYLE = Path(__file__).parents[2] / "trinity_site" / "static" / "trinity" / "site.css"
TOKENS = dict(re.findall(r"--([\w-]+): (light-dark\([^)]*\)|#\w{6});", STYLE.read_text()))
PAIRS = [
    *((text, ground) for text in ("ink", "quiet", "brand") for ground in ("ground", "raised", "sunken")),
    *(("up", ground) for ground in ("raised", "ground")),
    *(("down", ground) for ground in ("raised", "ground")),
    ("warn", "raised"),
    ("warn", "warn-soft"),
    ("ink", "brand-soft"),
    ("brand", "brand-soft"),
    ("brand-ink", "brand"),
    ("ink", "up-soft"),
    ("ink", "down-soft"),
    ("terminal-ink", "terminal"),
    ("terminal-quiet", "terminal"),
]


def colour(token: str, theme: int) -> str:
    values = re.findall(r"#(\w{6})", TOKENS[token])
    return str(values[theme] if len(values) == 2 else values[0])


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_its_ground(text: str, ground: str, theme: int) -> None:
    assert contrast(colour(text, theme), colour(ground, theme)) >= 4.5


def test_contrast_of_black_on_white_is_as_the_standard_says() -> None:
    assert contrast("000000", "ffffff") == pytest.approx(21)

"""The engine's tunables: what is refused, and what each of several workers gets."""

from __future__ import annotations

from dataclasses import fields

import pytest

from udp_engine.parameters import Parameters


@pytest.mark.parametrize("name", [field.name for field in fields(Parameters)])
@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None])
def test_what_is_no_whole_number_above_0_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Parameters(**{name: value})  # type: ignore[arg-type]  # wrong ones


@pytest.mark.parametrize("networks", [3, 65_535, 6])
def test_networks_are_a_power_of_two(networks: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Parameters(networks=networks)


@pytest.mark.parametrize(
    ("workers", "share"), [(1, (200, 20)), (2, (100, 10)), (3, (66, 6)), (31, (6, 1)), (1_000, (1, 1))]
)
def test_workers_share_the_refusals(workers: int, share: tuple[int, int]) -> None:
    assert Parameters().share(workers) == share


def test_defaults_are_usable() -> None:
    assert Parameters(networks=1, refusals_per_s=7).share(2) == (3, 10)
    assert Parameters().buffer_bytes == 32 * 1024 * 1024

from __future__ import annotations

import dataclasses

import pytest

from pricing.parameters import Parameters


def test_defaults_are_valid() -> None:
    assert Parameters().price_ttl_ms == 13_000


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Parameters)])
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", None, True])
def test_value_that_is_no_positive_whole_number_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        Parameters(**{name: value})  # type: ignore[arg-type]  # that is the point


def test_tier_2_may_not_be_left_alone_for_longer_than_recovery_allows() -> None:
    with pytest.raises(ValueError, match="cache_retry_ms"):
        Parameters(cache_retry_ms=5_001)

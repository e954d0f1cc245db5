"""Places are counted by address, and given back."""

import pytest

from pricing.doors import Door, address_of


@pytest.mark.parametrize(
    "host, other, same",
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_address_is_one_of_ipv4_or_a_network_of_ipv6(host: str, other: str, same: bool) -> None:
    assert (address_of((host, 1)) == address_of((other, 2))) is same


def test_client_of_a_unix_socket_has_an_address_too() -> None:
    assert address_of(None) == ""


def test_door_lets_in_as_many_as_there_are_places() -> None:
    door = Door(3, 2)
    a, b = ("192.0.2.1", 1), ("192.0.2.2", 1)
    assert [door.enter(one) is None for one in (a, a, a, b, b)] == [True, True, False, True, False]
    door.leave(a)
    assert [door.enter(one) is None for one in (b, b)] == [True, False]
    for one in (a, b, b):
        door.leave(one)
    assert [door.enter(a) is None for _ in range(3)] == [True, True, False]

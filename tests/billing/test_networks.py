import pytest

from billing.networks import MOST_NETWORKS, NetworkError, parse_networks, source_of


@pytest.mark.parametrize(
    ("written", "network"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        (" 192.0.2.7 ", "192.0.2.7/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_network_has_one_spelling(written: str, network: str) -> None:
    assert parse_networks([written, network]) == [network]


@pytest.mark.parametrize(
    "written",
    ["", "x", "192.0.2.0/33", "192.0.2.256", "1.2.3", "192.0.2.0/-1", "fe80::1%eth0/64", "10.0.0.0/8/8"],
)
def test_what_is_no_network_is_refused(written: str) -> None:
    with pytest.raises(NetworkError):
        parse_networks([written])


def test_network_with_bits_beyond_its_prefix_is_refused_with_the_right_one() -> None:
    with pytest.raises(NetworkError, match=r"did you mean 10\.0\.0\.0/8"):
        parse_networks(["10.1.2.3/8"])


def test_more_networks_than_the_gate_has_places_for_are_refused() -> None:
    networks = [f"192.0.2.{number}" for number in range(MOST_NETWORKS + 1)]
    assert len(parse_networks(networks[:-1])) == MOST_NETWORKS
    with pytest.raises(NetworkError, match="at most 8"):
        parse_networks(networks)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", ""),
        ("", ""),
    ],
)
def test_address_counts_as_the_network_of_one_subscriber(address: str, source: str) -> None:
    assert source_of(address) == source

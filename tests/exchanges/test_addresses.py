from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import IPv4Address, ip_address

import pytest

from exchanges import addresses
from exchanges.addresses import HTTP, WEBSOCKET, Endpoint, address_refusal, check_url, open_socket
from exchanges.exceptions import AddressRefused

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "104.18.7.10",
    "223.255.255.1",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.9.9",
    "172.32.0.1",
    "192.167.1.1",
    "2606:4700::1111",
    "2a00:1450:4001::200e",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
]
FORBIDDEN_V4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.254",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
FORBIDDEN_V6 = [
    "::",
    "::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "100::1",
    "5f00::1",
    "4000::1",
    "64:ff9b:1::1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
]


def embedded(text: str) -> Iterator[str]:
    """Yield the IPv6 spellings that stand for the IPv4 address *text*."""
    number = int(IPv4Address(text))
    yield f"::ffff:{text}"
    yield f"0:0:0:0:0:ffff:{number >> 16:x}:{number & 0xFFFF:x}"
    yield f"64:ff9b::{text}"
    yield f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"
    yield f"::{text}"


def odd_spellings(text: str) -> Iterator[str]:
    """Yield what inet_aton, and with it a resolver, also takes for the IPv4 address *text*."""
    number = int(IPv4Address(text))
    a, b, c, d = (number >> shift & 0xFF for shift in (24, 16, 8, 0))
    yield str(number)
    yield hex(number)
    yield f"0{number:o}"
    yield f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"
    yield f"0{a:o}.0{b:o}.0{c:o}.0{d:o}"
    yield f"{a}.{number & 0xFFFFFF}"
    yield f"{a}.{b}.{number & 0xFFFF}"
    yield f"{a}.{b}.{c}.0x{d:x}"
    yield f"{text}."


def forbidden_urls() -> list[str]:
    hosts = [*FORBIDDEN_V4, *(f"[{text}]" for text in FORBIDDEN_V6)]
    hosts += [f"[{text}]" for v4 in FORBIDDEN_V4 for text in embedded(v4)]
    numbers = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "8.8.8.8")
    hosts += [text for number in numbers for text in odd_spellings(number)]
    hosts += ["localhost", "LOCALHOST", "a.localhost", "[fe80::1%25eth0]", "[::1%25lo]", "[fe80::1%eth0]"]
    hosts += ["1.2.3", "0", "0x", "example.0x7f", "a..b", ".a", "-a.com", "a-.com", "a_b.com", "exa mple.com"]
    hosts += [
        "a%2eb.com",
        "127。0。0。1",
        "１２７.0.0.1",
        "ⓔxample.com",
        "",
        "x" * 64 + ".com",
        "a." * 127 + "com",
    ]
    hosts += ["", "[v1.x]", "[::ffff:7f00:1", "::1", "[1.1.1.1]"]
    urls = [f"wss://{host}/feed" for host in hosts]
    urls += [
        f"wss://exchange.example:{port}/" for port in (0, 1, 22, 25, 80, 442, 444, 1023, 65536, -1, "https")
    ]
    urls += [f"{scheme}://exchange.example/" for scheme in
             ("ws", "http", "https", "ftp", "file", "gopher", "unix", "wss+unix", "javascript")]  # fmt: skip
    urls += [
        "wss://user@exchange.example/", "wss://user:pass@exchange.example/", "wss://:@exchange.example/",
        "wss://exchange.example@127.0.0.1/", "wss://127.0.0.1\\@exchange.example/", "wss://exchange.example\\.evil/",
        "wss://exchange.example#@127.0.0.1/", "wss://exchange.example/#x", "wss://exchange.example/#",
        "wss://exchange.example/a b", "wss://exchange.example/\r\nX-Evil: 1", "w\tss://exchange.example/",
        "wss://exchange\n.example/", " wss://exchange.example/", "wss:/exchange.example/",
        "wss:exchange.example", "//exchange.example/", "exchange.example", "", "wss://", "wss:///x", "wss://exchange.example/\x00",
        "wss://exchange.example/é", "wss://[", "wss://]", "wss://exchange.example/" + "x" * 2048,
    ]  # fmt: skip
    return urls


@pytest.mark.parametrize("text", PUBLIC)
def test_public_address_may_be_reached(text: str) -> None:
    assert address_refusal(ip_address(text), allow_loopback=False) is None


@pytest.mark.parametrize("text", [*FORBIDDEN_V4, *FORBIDDEN_V6])
def test_special_address_is_refused(text: str) -> None:
    assert address_refusal(ip_address(text), allow_loopback=False)


@pytest.mark.parametrize("text", [*FORBIDDEN_V4, *FORBIDDEN_V6])
def test_allowing_loopback_allows_nothing_else(text: str) -> None:
    refusal = address_refusal(ip_address(text), allow_loopback=True)
    assert (refusal is None) == (text.startswith("127.") or text == "::1")


def test_metadata_addresses_are_refused_by_what_they_are() -> None:
    assert address_refusal(ip_address("169.254.169.254"), allow_loopback=True) == "link-local"
    assert address_refusal(ip_address("fd00:ec2::254"), allow_loopback=True) == "private"


def test_table_of_forbidden_urls_is_large() -> None:
    assert len(set(forbidden_urls())) >= 200


@pytest.mark.parametrize("url", forbidden_urls())
def test_forbidden_url_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url, schemes=WEBSOCKET, allow_loopback=False)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("wss://advanced-trade-ws.coinbase.com", ("wss", "advanced-trade-ws.coinbase.com", 443)),
        ("wss://ws.kraken.com/v2", ("wss", "ws.kraken.com", 443)),
        ("wss://ws.okx.com:8443/ws/v5/public", ("wss", "ws.okx.com", 8443)),
        ("wss://API.Gateio.ws/ws/v4/", ("wss", "api.gateio.ws", 443)),
        ("wss://xn--bcher-kva.example/?a=b&c=d", ("wss", "xn--bcher-kva.example", 443)),
        ("wss://[2606:4700::1111]:9443/", ("wss", "2606:4700::1111", 9443)),
        ("wss://1.1.1.1/", ("wss", "1.1.1.1", 443)),
    ],
)
def test_exchange_url_is_accepted(url: str, endpoint: tuple[str, str, int]) -> None:
    assert check_url(url, schemes=WEBSOCKET, allow_loopback=False) == Endpoint(*endpoint)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:8090/kraken", "ws://localhost:8090/", "ws://[::1]:8090/"])
def test_plain_url_needs_loopback_and_the_setting(url: str) -> None:
    assert check_url(url, schemes=WEBSOCKET, allow_loopback=True).port == 8090
    with pytest.raises(AddressRefused):
        check_url(url, schemes=WEBSOCKET, allow_loopback=False)


@pytest.mark.parametrize("url", ["ws://exchange.example:8090/", "ws://8.8.8.8:8090/", "ws://10.0.0.1:8090/"])
def test_plain_url_elsewhere_is_refused_even_with_the_setting(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url, schemes=WEBSOCKET, allow_loopback=True)


def test_schemes_of_the_other_kind_are_refused() -> None:
    assert check_url("https://exchange.example/", schemes=HTTP, allow_loopback=False).port == 443
    with pytest.raises(AddressRefused, match="https or http"):
        check_url("wss://exchange.example/", schemes=HTTP, allow_loopback=False)


class Answers:
    """A resolver that gives the next list on each call, as a rebinding name server does."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.left = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.left.pop(0)


@pytest.fixture
async def listener() -> AsyncIterator[tuple[int, list[str]]]:
    """Listen on loopback; give the port and a list that grows with each connection."""
    accepted: list[str] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer.get_extra_info("peername")[0])
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], accepted


async def test_open_socket_connects_to_the_checked_number(listener: tuple[int, list[str]]) -> None:
    resolver = Answers(["127.0.0.1"])
    sock = await open_socket(
        "exchange.example", listener[0], allow_loopback=True, timeout_s=5, resolver=resolver
    )
    with sock:
        assert sock.getpeername() == ("127.0.0.1", listener[0])
        assert not sock.getblocking()


async def test_name_that_is_rebound_after_the_check_is_looked_up_only_once(
    listener: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is one that may be reached, every later one is not: only the first may count."""
    resolver = Answers(["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"])
    reached: list[object] = []
    connect = asyncio.get_running_loop().sock_connect

    async def record(sock: socket.socket, address: tuple[str, int]) -> None:
        reached.append(address)
        await connect(sock, address)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", record)
    sock = await open_socket(
        "rebound.example", listener[0], allow_loopback=True, timeout_s=5, resolver=resolver
    )
    sock.close()
    assert resolver.asked == ["rebound.example"]
    assert reached == [("127.0.0.1", listener[0])]


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["1.1.1.1", "10.0.0.1"],
        ["2606:4700::1111", "fd00:ec2::254"],
        ["fe80::1%eth0"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["not-a-number"],
    ],
)
async def test_host_with_any_forbidden_answer_is_not_contacted(
    answers: list[str], listener: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*args: object) -> socket.socket:
        raise AssertionError("a socket was made")

    with monkeypatch.context() as patch:
        patch.setattr(addresses.socket, "socket", no_socket)
        with pytest.raises(AddressRefused) as caught:
            await open_socket(
                "evil.example", listener[0], allow_loopback=False, timeout_s=5, resolver=Answers(answers)
            )
    assert caught.value.target == "evil.example"
    assert caught.value.address == answers[-1]
    assert "evil.example" in str(caught.value) and answers[-1] in str(caught.value)
    assert listener[1] == []


async def test_system_resolver_of_localhost_is_refused(listener: tuple[int, list[str]]) -> None:
    with pytest.raises(AddressRefused, match="loopback"):
        await open_socket("localhost", listener[0], allow_loopback=False, timeout_s=5)
    assert listener[1] == []


async def test_odd_number_that_reaches_the_resolver_is_refused(listener: tuple[int, list[str]]) -> None:
    """check_url refuses it first; the system's resolver would take it for 127.0.0.1."""
    with pytest.raises(AddressRefused, match="loopback"):
        await open_socket("2130706433", listener[0], allow_loopback=False, timeout_s=5)


async def test_socket_that_reached_another_address_is_refused(listener: tuple[int, list[str]]) -> None:
    """Linux takes 0.0.0.0 for this host."""
    with pytest.raises(AddressRefused, match=r"reached 127\.0\.0\.1"):
        await addresses._connect("zero.example", IPv4Address("0.0.0.0"), listener[0])


async def test_next_address_is_tried_when_one_does_not_answer(listener: tuple[int, list[str]]) -> None:
    sock = await open_socket(
        "two.example",
        listener[0],
        allow_loopback=True,
        timeout_s=5,
        resolver=Answers(["127.0.0.2", "127.0.0.1"]),
    )
    sock.close()
    assert sock.fileno() == -1


async def test_unreachable_host_is_an_os_error(unused_port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        await open_socket("127.0.0.1", unused_port, allow_loopback=True, timeout_s=5)


async def test_host_without_addresses_is_an_os_error() -> None:
    with pytest.raises(OSError, match="no address"):
        await open_socket("none.example", 443, allow_loopback=False, timeout_s=5, resolver=Answers([]))


async def test_slow_resolver_is_given_up() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(TimeoutError):
        await open_socket("slow.example", 443, allow_loopback=False, timeout_s=0.05, resolver=never)


async def test_cancelled_connect_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *args: int) -> None:
            super().__init__(*args)
            made.append(self)

    async def never(sock: socket.socket, address: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(addresses.socket, "socket", Recorded)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
    with pytest.raises(TimeoutError):
        await open_socket("127.0.0.1", 9, allow_loopback=True, timeout_s=0.05)
    assert [sock.fileno() for sock in made] == [-1]


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

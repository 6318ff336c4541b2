"""Where messages may go: by name, by the address behind a name, and for which namespace."""

import asyncio
import ipaddress
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.notify import webhook
from labfunctions_operator.providers.notify.gate import Gate, Undeliverable, is_public
from tests.providers.notify_servers import http_server

ANYWHERE = Gate(("*",))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.96.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
    ],
)
def test_addresses_of_nodes_clusters_and_clouds_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(Undeliverable, match="not a public address"):
        ANYWHERE.check(address, 443)


@pytest.mark.parametrize(
    "address", ["2600:1f18::a", "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
async def test_addresses_that_are_denied_count_as_not_public(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [ipaddress.ip_network("2600:1f18::/32"), ipaddress.ip_network("8.8.8.0/24")]
    gate = Gate.of({"*": ["*", "inside.example.com:443"]}, "team", networks)
    with pytest.raises(Undeliverable, match="not a public address"):
        gate.check(address, 443)
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to(address))
    with pytest.raises(Undeliverable, match="has no public address"):
        await gate.connect("hooks.example.com", 443)
    assert not gate.check("inside.example.com", 443), "named with its port it is allowed"
    assert gate.check("2606:4700::1111", 443)
    assert gate.check("8.8.4.4", 443)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert ANYWHERE.check(address, 443)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_whatever_way_it_is_written(
    address: ipaddress.IPv4Address,
) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    translated = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address))
    assert is_public(mapped) == is_public(translated) == is_public(address)


@pytest.mark.parametrize(
    ("entry", "host", "allowed"),
    [
        ("*", "example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com.", True),
        ("example.com", "sub.example.com", False),
        ("example.com", "badexample.com", False),
        ("*.example.com", "sub.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("example.com:8443", "example.com", False),
        ("example.com:443", "example.com", True),
    ],
)
def test_a_host_is_allowed_by_name(entry: str, host: str, allowed: bool) -> None:
    gate = Gate((entry,))
    if allowed:
        gate.check(host, 443)
    else:
        with pytest.raises(Undeliverable, match="allowedHosts"):
            gate.check(host, 443)


def test_a_namespace_may_use_what_all_may_and_what_it_may() -> None:
    hosts = {"*": ["slack.com"], "team": ["alerts.team.svc:8080"]}
    assert Gate.of(hosts, "team").check("slack.com", 443)
    assert not Gate.of(hosts, "team").check("alerts.team.svc", 8080)
    with pytest.raises(Undeliverable):
        Gate.of(hosts, "other").check("alerts.team.svc", 8080)


async def post(url: str, gate: Gate) -> None:
    await webhook.post({}, url=url, headers={}, content_type=webhook.JSON, gate=gate)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"])
async def test_loopback_is_refused_however_it_is_written(host: str) -> None:
    async with http_server() as server:
        with pytest.raises(Undeliverable, match=r"public address|not one"):
            await post(f"http://{host}:{server.port}/", ANYWHERE)
    assert server.requests == []


async def test_loopback_is_reached_where_it_is_named_with_its_port() -> None:
    async with http_server() as server:
        await post(f"http://localhost:{server.port}/", Gate((f"localhost:{server.port}",)))
    assert len(server.requests) == 1


def resolve_to(*addresses: str) -> Any:
    """Return a look-up that gives one address after another, and the last one from then on."""
    remaining = list(addresses)

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        address = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return lookup


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.1", "127.0.0.1"]])
async def test_a_name_is_refused_for_what_it_resolves_to(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to(*addresses))
    async with http_server() as server:
        with pytest.raises(Undeliverable, match=r"hooks.example.com has no public address"):
            await post(f"http://hooks.example.com:{server.port}/", ANYWHERE)
        with pytest.raises(Undeliverable, match=r"hooks.example.com has no public address"):
            await ANYWHERE.connect("hooks.example.com", server.port)
    assert server.requests == []


async def test_a_name_without_an_address_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(Transient, match=r"hooks.example.com"):
        await post("http://hooks.example.com/secret", ANYWHERE)
    with pytest.raises(Transient, match=r"hooks.example.com"):
        await ANYWHERE.connect("hooks.example.com", 25)


@pytest.mark.parametrize(
    "host", ["hooks..example.com", "a" * 64 + ".example.com", ".x", "b.com\0.a.com"]
)
async def test_what_can_be_no_name_is_not_tried_again(host: str) -> None:
    with pytest.raises(Undeliverable, match="not the name of a host"):
        await ANYWHERE.connect(host, 25)
    with pytest.raises(Undeliverable):
        await post(f"https://{host}/secret", ANYWHERE)


async def test_a_name_server_that_does_not_answer_holds_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        answered.wait(10)
        raise socket.gaierror(socket.EAI_FAIL, "failed")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    waiting = [asyncio.create_task(ANYWHERE.connect("hooks.example.com", 443)) for _ in range(50)]
    await asyncio.sleep(0)
    # Where the operator's other work is done in threads.
    assert await asyncio.to_thread(lambda: "done") == "done"
    answered.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {Transient}

"""Which addresses messages may go to: checked by name, and again by the address behind it."""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from labfunctions_operator.errors import Transient

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Place = tuple[int, tuple[Any, ...]]

ANY = "*"
# Of its own: a name server that does not answer must not take the threads of all others.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="notify-dns")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
CONNECT_TIMEOUT = 5.0


class Undeliverable(Exception):
    """However often it is sent, this message will not arrive; says why, without any secret."""


class Partly(Transient):
    """Some recipients may take a message later; the others have it, or never will.

    Args:
        message: Who refuses it, in one line.
        later: The addresses of those who may take it later.
        never: Says who never will; empty where nobody is.
    """

    def __init__(self, message: str, *, later: Sequence[str], never: str) -> None:
        super().__init__(message)
        self.later = tuple(later)
        self.never = never


@dataclass(frozen=True)
class Gate:
    """Says where the messages of one namespace may go.

    Attributes:
        allowed: `example.com`, `*.example.com` or `*`, at public addresses only; `host:port`, at
            whatever address that has.
        denied: Addresses that count as not public, although nothing about them says so.
    """

    allowed: tuple[str, ...]
    denied: tuple[Network, ...] = ()

    @classmethod
    def of(
        cls,
        allowed_hosts: Mapping[str, Sequence[str]],
        namespace: str,
        denied: Sequence[Network] = (),
    ) -> "Gate":
        """Return the gate of a namespace: what all may use, and what only it may."""
        hosts = (*allowed_hosts.get(ANY, ()), *allowed_hosts.get(namespace, ()))
        return cls(tuple(host.lower() for host in hosts), tuple(denied))

    def check(self, host: str, port: int) -> bool:
        """Refuse a host that is not allowed; tell whether its address must be a public one.

        Raises:
            Undeliverable: It is not allowed.
        """
        name = host.lower().rstrip(".")
        if "\0" in name:  # which would end it for whoever looks it up
            raise _no_name(host)
        shown = f"[{name}]" if ":" in name else name
        if f"{shown}:{port}" in self.allowed:
            return False
        if not any(_matches(entry, name) for entry in self.allowed):
            raise Undeliverable(
                f"{shown}:{port} is not among the operator's notifications.allowedHosts"
            )
        if (address := _literal(name)) and not self.lets_through(address):
            raise Undeliverable(f"{shown} is not a public address")
        return True

    def lets_through(self, address: Address) -> bool:
        """Whether an address is a public one, and none that is denied."""
        plain = _inner(address) or address
        return is_public(address) and not any(plain in network for network in self.denied)

    async def connect(self, host: str, port: int) -> socket.socket:
        """Connect to an address that was checked.

        Raises:
            Undeliverable: The host, or each address that it has, is refused.
            Transient: It cannot be reached.
        """
        must_be_public = self.check(host, port)
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT):
                found = await self.resolve(host, port, must_be_public=must_be_public)
                return await _connect_first(found)
        except (OSError, TimeoutError) as error:
            raise Transient(f"{host}:{port} cannot be reached: {_why(error)}") from None

    async def resolve(self, host: str, port: int, *, must_be_public: bool) -> list[Place]:
        """Return the addresses of a host that may be connected to.

        Raises:
            Undeliverable: It has none, or cannot be a host.
            OSError: It cannot be looked up.
        """
        found = await _lookup(host, port)
        if must_be_public:
            found = [(f, p) for f, p in found if (at := _literal(p[0])) and self.lets_through(at)]
            if not found:
                raise Undeliverable(f"{host} has no public address")
        return found

    def connector(self) -> aiohttp.TCPConnector:
        """Return a connector that connects to addresses that were checked, and to no others."""
        resolver = _Resolver(self)
        # Also called for hosts written as addresses, which no resolver sees.
        return aiohttp.TCPConnector(
            resolver=resolver, use_dns_cache=False, force_close=True, socket_factory=resolver.open
        )


class _Resolver(AbstractResolver):
    """Resolves through the gate, and opens sockets to what it has resolved."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._resolved: set[tuple[str, int]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host that may be connected to."""
        must_be_public = self._gate.check(host, port)
        found = await self._gate.resolve(host, port, must_be_public=must_be_public)
        self._resolved |= {(place[0], port) for _, place in found}
        return [
            ResolveResult(
                hostname=host,
                host=place[0],
                port=port,
                family=family,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for family, place in found
        ]

    async def close(self) -> None:
        """Hold nothing."""

    def open(self, info: tuple[Any, ...]) -> socket.socket:
        """Open a socket, unless it is for a host written as an address that is refused."""
        family, kind, protocol, _, place = info
        if place[:2] not in self._resolved:
            self._gate.check(place[0], place[1])
        return socket.socket(family, kind, protocol)


def is_public(address: Address) -> bool:
    """Whether an address is on the internet: not link-local, loopback, private or of a cluster."""
    if (inner := _inner(address)) is not None:
        return is_public(inner)
    if isinstance(address, ipaddress.IPv6Address) and address.teredo is not None:
        return False
    return address.is_global and not address.is_multicast


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """Return the address that an IPv6 one only wraps."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    return address.ipv4_mapped or address.sixtofour or _behind_nat64(address)


def _behind_nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address not in _NAT64:
        return None
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _matches(entry: str, name: str) -> bool:
    if entry.startswith("*."):
        return name.endswith(entry[1:])
    return entry in (ANY, name)


def _literal(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None


async def _lookup(host: str, port: int) -> list[Place]:
    loop = asyncio.get_running_loop()
    try:
        answer = await loop.run_in_executor(
            _THREADS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    except ValueError:  # a UnicodeError above all, for a label that is empty or too long
        raise _no_name(host) from None
    return [(family, place) for family, _, _, _, place in answer]


def _no_name(host: str) -> Undeliverable:
    return Undeliverable(f"{host[:100]!r} is not the name of a host")


async def _connect_first(places: Sequence[Place]) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: Exception = OSError("no address")
    for family, place in places:
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.sock_connect(connection, place)
            return connection
        except (OSError, TimeoutError) as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
    raise failure


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or type(error).__name__

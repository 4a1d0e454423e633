"""Which machines the server connects to, where a person or a forge has named the host.

Whoever adds a repo names a host that the server then asks. Unchecked, they would read what only the server
reaches: its own services, the network behind it, what a cloud tells a machine about itself. So a name is
resolved once, all its addresses must be public, and the connection goes to just these addresses: a name that
means another machine a moment later gains nothing. Each connection is checked, also after a redirect.

An admin lists exceptions in `allowed_private_hosts`: names (wherever they resolve to), addresses, networks.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from ci.errors import Forbidden, Unavailable

RESOLVE_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443, "ssh": 22}

#: From the registries of special addresses (RFC 6890 and its successors), with what each is.
_NO_PUBLIC_V4 = tuple(
    (ip_network(text), what)
    for text, what in (
        ("0.0.0.0/8", "this machine itself"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "a carrier's private network"),
        ("127.0.0.0/8", "this machine itself"),
        ("168.63.129.16/32", "a cloud's metadata"),
        ("169.254.0.0/16", "a cloud's metadata, or link-local"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a relay to IPv6"),
        ("192.168.0.0/16", "a private network"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
#: Of IPv6 only this is given to machines on the internet ...
_PUBLIC_V6 = ip_network("2000::/3")
#: ... without these. What holds an address of IPv4 is outside of it (mapped, NAT64) or here (6to4, Teredo).
_NO_PUBLIC_V6 = tuple(
    (ip_network(text), what)
    for text, what in (
        ("2001::/23", "reserved, or a tunnel to IPv4"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a tunnel to IPv4"),
        ("3fff::/20", "for documentation"),
    )
)
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\Z")
_AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")

Ip = IPv4Address | IPv6Address
#: (host, port) -> addresses as text. Raises OSError for a name that nobody knows.
Resolve = Callable[[str, int], Awaitable[Iterable[str]]]


class Refused(Forbidden):
    """The server does not connect there."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a URL leads: connect to one of `addresses`, and nowhere else."""

    host: str
    port: int
    addresses: tuple[str, ...]

    @property
    def curl_resolve(self) -> str:
        """For `http.curloptResolve` of git; empty where the host is an address already."""
        if self.addresses == (self.host,):
            return ""
        texts = (f"[{each}]" if ":" in each else each for each in self.addresses)
        return f"{self.host}:{self.port}:{','.join(texts)}"


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class Addresses:
    def __init__(self, allowed: str = "", resolve: Resolve = _resolve) -> None:
        """`allowed` is the setting `allowed_private_hosts`, checked."""
        self._names = {text for text in allowed.split(",") if text and not _as_network(text)}
        self._networks = [found for text in allowed.split(",") if text and (found := _as_network(text))]
        self._resolve = resolve

    async def of_url(self, url: str) -> Place:
        """Raises Refused, or Unavailable for a name that does not resolve now."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise Refused(f"this is no URL that the server could connect to: {error}") from error
        # curl may see another host where a user, a backslash or "#" is in it.
        if port is None:
            port = _PORTS.get(parts.scheme, 0)
        if not host or not port or not _AUTHORITY.match(parts.netloc) or re.search(r"[\\#]", url):
            raise Refused("this is no URL with a plain host, such as https://git.example.org/team/app.git")
        return Place(host=host, port=port, addresses=await self.of(host, port))

    async def of(self, host: str, port: int) -> tuple[str, ...]:
        """All addresses of a host, in the resolver's order. Raises as `of_url`."""
        host = host.lower()
        _check_form(host)
        found = await self._found(host, port)
        if host not in self._names:
            for ip in found:
                self._check(host, ip)
        return tuple(str(ip) for ip in found)

    async def _found(self, host: str, port: int) -> list[Ip]:
        if (literal := _as_ip(host)) is not None:
            return [literal]
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                texts = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise Unavailable(
                f"this server does not find the host {host}: look at its DNS and its way out"
            ) from error
        except TimeoutError as error:
            raise Unavailable(
                f"this server does not find the host {host} within {RESOLVE_SECONDS:.0f} s"
            ) from error
        found = [ip for text in dict.fromkeys(texts) if (ip := _as_ip(text)) is not None]
        if not found:
            raise Unavailable(f"the host {host} has no address")
        return found

    def _check(self, host: str, ip: Ip) -> None:
        why = what_it_is(ip)
        if not why or any(ip in network for network in self._networks):
            return
        is_literal = str(ip) == host
        where = host if is_literal else f"{host}, which is {ip}"
        raise Refused(
            f"the server does not connect to {where}: that is {why}; an admin can allow it in the setting "
            "allowed_private_hosts (SHIPWAY_ALLOWED_PRIVATE_HOSTS)"
        )


def what_it_is(ip: Ip) -> str:
    """What an address is that is not public; empty for one that is."""
    if isinstance(ip, IPv4Address):
        return next((what for network, what in _NO_PUBLIC_V4 if ip in network), "")
    if ip not in _PUBLIC_V6:
        return "this machine itself" if ip.is_loopback else "no public address"
    return next((what for network, what in _NO_PUBLIC_V6 if ip in network), "")


def _check_form(host: str) -> None:
    """Names and addresses in their one usual form. Whatever else a resolver may take is refused."""
    if _as_ip(host) is not None:
        return
    if not _NAME.match(host) or len(host) > 253:
        raise Refused(f"{host[:200]!r} is no name of a host")
    if _NUMBER.match(host.rpartition(".")[2]):
        raise Refused(f"{host!r} is no address: write four decimal numbers, such as 192.0.2.1")


def _as_ip(text: str) -> Ip | None:
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _as_network(text: str) -> Any:
    try:
        return ip_network(text)
    except ValueError:
        return None


# --- HTTP -----------------------------------------------------------------------------------------------


class CheckedTransport(httpx.AsyncHTTPTransport):
    """Connects to checked addresses only; TLS still proves the name. No proxy of the environment is asked."""

    def __init__(self, addresses: Addresses) -> None:
        super().__init__()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Backend(addresses),
        )


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        problem: Exception | None = None
        for address in await self._addresses.of(host, port):
            try:
                return await self._plain.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        assert problem is not None, "a host has an address"
        raise problem

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)

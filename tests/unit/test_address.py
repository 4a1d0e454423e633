"""The server connects to public addresses alone, whatever a name, a redirect or a second look-up says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ci.errors import Invalid, Unavailable
from ci.server.config import Settings
from ci.server.forges import address, git
from ci.server.forges.address import Addresses, CheckedTransport, Refused
from ci.server.forges.git import PlainGit
from ci.server.forges.github_api import GitHubApi, RateLimits
from ci.server.models import Repo
from tests.unit.world import HeldClock

PUBLIC = "93.184.216.34"
#: What an outsider would have the server read, and every other spelling of it that some resolver takes.
FORBIDDEN = (
    "http://127.0.0.1/",
    "http://127.0.0.1:8000/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.255.255.254/",
    "http://0/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0x7f.0.0.1/",
    "http://127.0.0.01/",
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.1.1/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://100.64.0.1/",
    "http://192.0.0.8/",
    "http://198.18.0.1/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:53aa:64c:0:0:80ff:fffe]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://ip6-localhost/",
    "http://metadata.google.internal/",
    "http://both.example/",
    "http://１２７.０.０.１/",
    "http://①②⑦.⓪.⓪.①/",
    "http://user@127.0.0.1/",
    "http://git.example@127.0.0.1/",
    "http://git.example:80@127.0.0.1/",
    "http://git.example\\@127.0.0.1/",
    "http://127.0.0.1\\@git.example/",
    "http://git.example#@127.0.0.1/",
    "http://127.0.0.1:80@git.example/",
    "http://git.example:0/",
    "http://git.example:99999/",
    "http:///etc/passwd",
    "http://",
    "http://[::1/",
    "http://-x.example/",
    "http://.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "ext::sh -c id",
)
_NAMES = {
    "git.example": [PUBLIC],
    "six.example": ["2606:2800:220:1::1", PUBLIC],
    "both.example": [PUBLIC, "10.0.0.1"],
    "localhost": ["127.0.0.1"],
    "ip6-localhost": ["::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "git.intern": ["10.1.2.3"],
}


async def resolve(host: str, port: int) -> list[str]:
    if host not in _NAMES:
        raise OSError("Name or service not known")
    return _NAMES[host]


@pytest.mark.parametrize("url", FORBIDDEN)
async def test_ssrf_table(url: str) -> None:
    with pytest.raises(Refused):
        await Addresses(resolve=resolve).of_url(url)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("https://git.example/team/app.git", (PUBLIC,)),
        ("http://GIT.example:8080/", (PUBLIC,)),
        ("https://six.example/", ("2606:2800:220:1::1", PUBLIC)),
        ("https://8.8.8.8/", ("8.8.8.8",)),
        ("https://[2606:4700::1111]/", ("2606:4700::1111",)),
        ("https://172.32.0.1/", ("172.32.0.1",)),
    ],
)
async def test_what_is_on_the_internet_is_reached(url: str, addresses: tuple[str, ...]) -> None:
    assert (await Addresses(resolve=resolve).of_url(url)).addresses == addresses


async def test_a_name_that_nobody_knows_now_may_be_known_later() -> None:
    with pytest.raises(Unavailable, match=r"does not find the host gone\.example"):
        await Addresses(resolve=resolve).of_url("https://gone.example/")


async def test_an_admin_allows_names_addresses_and_networks_and_nothing_beside() -> None:
    allowed = Addresses("git.intern,127.0.0.1,192.168.0.0/16,fd00::/8", resolve=resolve)
    for url in ("http://git.intern/", "http://127.0.0.1/", "http://192.168.7.7/", "http://[fd12::1]/"):
        await allowed.of_url(url)
    for url in (
        "http://10.1.2.3/",
        "http://127.0.0.2/",
        "http://[::ffff:127.0.0.1]/",
        "http://both.example/",
    ):
        with pytest.raises(Refused, match="does not connect to"):
            await allowed.of_url(url)


def test_the_setting_is_checked_when_the_server_starts(tmp_path: Path) -> None:
    def load(text: str) -> str:
        return Settings.load({}, {"allowed_private_hosts": text}, tmp_path).allowed_private_hosts

    assert load(" Git.Intern , 10.0.0.0/8,::1,box ") == "git.intern,10.0.0.0/8,::1,box"
    for text in ("https://git.intern", "10.0.0.1/8", "10.1", "0x7f.1", "a b", "-x.intern."):
        with pytest.raises(Invalid, match="allowed_private_hosts"):
            load(text)


# --- connections --------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answer: Callable[[], bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on loopback: its port, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def _plain() -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


async def test_a_connection_goes_where_the_check_looked_and_a_name_is_resolved_once() -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def rebinding(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async with answering(_plain) as (port, asked):
        transport = CheckedTransport(Addresses("127.0.0.0/8", resolve=rebinding))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(f"http://rebind.example:{port}/x")).text == "{}"
            assert f"host: rebind.example:{port}".encode() in asked[0].lower()
            with pytest.raises(Refused, match=r"169\.254\.169\.254"):
                await client.get(f"http://rebind.example:{port}/x")
    assert len(asked) == 1 and answers == []


async def test_a_redirect_to_what_is_private_is_not_followed() -> None:
    def redirect() -> bytes:
        return b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n"

    async with answering(redirect) as (port, _):
        transport = CheckedTransport(Addresses("127.0.0.1"))
        async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
            with pytest.raises(Refused, match=r"169\.254\.169\.254: that is a cloud's metadata"):
                await client.get(f"http://127.0.0.1:{port}/")


async def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with answering(_plain) as (port, _):
        transport = CheckedTransport(Addresses("127.0.0.0/8", resolve=two))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(f"http://two.example:{port}/")).status_code == 200
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(transport=CheckedTransport(Addresses("127.0.0.2"))) as client:
                await client.get(f"http://127.0.0.2:{port}/")


async def test_a_forge_that_a_name_puts_into_the_private_network_gets_no_token() -> None:
    async with answering(_plain) as (port, asked):
        transport = CheckedTransport(Addresses(resolve=resolve))
        async with httpx.AsyncClient(transport=transport) as client:
            limits = RateLimits(HeldClock())
            api = GitHubApi(
                api_url=f"http://localhost:{port}", token="ghp_canary", client=client, limits=limits
            )
            with pytest.raises(Refused, match="localhost, which is 127"):
                await api.repo("7")
    assert asked == []


async def test_no_proxy_of_the_environment_is_asked_in_place_of_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with answering(_plain) as (port, asked):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient(transport=CheckedTransport(Addresses(resolve=resolve))) as client:
            with pytest.raises(Refused):
                await client.get("http://metadata.google.internal/")
    assert asked == []


# --- git ----------------------------------------------------------------------------------------------


def _repo(url: str) -> Repo:
    return Repo(id=3, forge="git", forge_key=url, owner="a", name="b", clone_url=url, created_at=1.0)


async def test_git_goes_to_the_checked_address_whatever_the_name_means_by_then(tmp_path: Path) -> None:
    async def only_here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    def refs() -> bytes:
        return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

    async with answering(refs) as (port, asked):
        plain = PlainGit(tmp_path, addresses=Addresses("127.0.0.1", resolve=only_here))
        with pytest.raises(Unavailable, match="not found"):
            await plain.tip(_repo(f"http://no-such-name.invalid:{port}/x.git"), "refs/heads/main")
    assert b"GET /x.git/info/refs" in asked[0]


async def test_git_follows_no_redirect_to_what_is_private(tmp_path: Path) -> None:
    async with answering(_plain) as (there, asked):

        def redirect() -> bytes:
            where = f"http://127.0.0.1:{there}/x.git/info/refs?service=git-upload-pack".encode()
            return b"HTTP/1.1 302 Found\r\nlocation: " + where + b"\r\ncontent-length: 0\r\n\r\n"

        async with answering(redirect) as (port, _):
            plain = PlainGit(tmp_path, addresses=Addresses("127.0.0.1"))
            with pytest.raises(Unavailable):
                await plain.tip(_repo(f"http://127.0.0.1:{port}/x.git"), "refs/heads/main")
    assert asked == []


async def test_git_is_never_started_for_a_private_address(tmp_path: Path) -> None:
    async with answering(_plain) as (port, asked):
        plain = PlainGit(tmp_path, addresses=Addresses(resolve=resolve))
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(Refused):
                await plain.tip(_repo(f"http://{host}:{port}/x.git"), "refs/heads/main")
    assert asked == []


def test_the_table_of_addresses_says_what_each_is() -> None:
    assert address.what_it_is(address.ip_address(PUBLIC)) == ""
    assert address.what_it_is(address.ip_address("10.1.1.1")) == "a private network"
    assert git.PROTOCOLS == ("http", "https")

"""The servers that a person has signed in to, and the token of each: one file that only its owner reads."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ci.errors import Invalid

FILE_MODE = 0o600


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who somebody is on a server."""

    url: str
    token: str = field(default="", repr=False)
    user: str = ""


def config_folder(environ: Mapping[str, str]) -> Path:
    """Where settings of a person's programs live: XDG_CONFIG_HOME, else ~/.config."""
    home = environ.get("XDG_CONFIG_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".config"
    return base / "shipway"


def clean_url(text: str) -> str:
    """The address of a server as it is kept. Raises Invalid for what is none."""
    url = text.strip()
    if "://" not in url:
        url = f"{'http' if is_loopback('http://' + url) else 'https'}://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_good_port(parts):
        raise Invalid("that is no address of a server: give one like https://ci.example.org")
    if parts.username or parts.password:
        raise Invalid("an address has no user name or password in it: sign in with `shipway login`")
    if parts.query or parts.fragment:
        raise Invalid(f"{text!r} is the address of a page: give the server's own, as https://ci.example.org")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Servers:
    """The file. A missing one is an empty one; every change writes it whole, or not at all."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "servers.json"
        self.current = ""
        self._accounts: dict[str, Account] = {}
        self._load()

    def _load(self) -> None:
        try:
            stored = json.loads(self.path.read_text())
            self.current = str(stored["current"])
            for url, row in stored["servers"].items():
                self._accounts[url] = Account(url=url, token=str(row["token"]), user=str(row["user"]))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(f"{self.path} cannot be read; remove it and sign in again") from error

    @property
    def urls(self) -> list[str]:
        return sorted(self._accounts)

    def account(self, url: str) -> Account | None:
        return self._accounts.get(url)

    def named(self, text: str) -> str:
        """The address that `text` means: of a stored server, by its host's name too, or any other one."""
        matching = [url for url in self.urls if text in (url, urlsplit(url).netloc, urlsplit(url).hostname)]
        return matching[0] if len(matching) == 1 else clean_url(text)

    def keep(self, account: Account) -> None:
        self._accounts[account.url] = account
        self.current = account.url
        self._save()

    def forget(self, url: str) -> None:
        self._accounts.pop(url, None)
        if self.current == url:
            self.current = next(iter(self.urls), "")
        self._save()

    def _save(self) -> None:
        rows = {url: {"token": a.token, "user": a.user} for url, a in sorted(self._accounts.items())}
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        with open(fd, "w") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(json.dumps({"current": self.current, "servers": rows}, indent=2) + "\n")
        unfinished.rename(self.path)


def choose(named: str, environ: Mapping[str, str]) -> Account:
    """The server that a command speaks to, and who to be there.

    `--server` first, then SHIPWAY_URL, then the one that was signed in to last. SHIPWAY_TOKEN is for the
    server of SHIPWAY_URL, or for whichever is chosen where that is not set: it is shown to no other one.
    """
    servers = Servers(config_folder(environ))
    from_outside = clean_url(environ["SHIPWAY_URL"]) if environ.get("SHIPWAY_URL") else ""
    url = servers.named(named) if named else from_outside or servers.current
    if not url:
        raise Invalid("which server? Sign in with `shipway login URL`, or set SHIPWAY_URL and SHIPWAY_TOKEN")
    token = environ.get("SHIPWAY_TOKEN", "").strip()
    if token and from_outside in ("", url):
        return Account(url=url, token=token)
    return servers.account(url) or Account(url=url)

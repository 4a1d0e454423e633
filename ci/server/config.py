"""What can be set, in one table; and `Settings`, the values of one server.

Each setting is a key of `shipway.toml` and, in capitals behind `SHIPWAY_`, a variable of the environment.
A command line flag wins over the environment, which wins over the file, which wins over the default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ci.errors import Invalid
from ci.logging_format import FORMATS

FILE_NAME = "shipway.toml"
PREFIX = "SHIPWAY_"


@dataclass(frozen=True, kw_only=True)
class Setting:
    name: str
    type: type
    default: Any
    unit: str = ""
    choices: tuple[str, ...] = ()
    help: str


SETTINGS = (
    Setting(
        name="data_dir",
        type=Path,
        default=Path("shipway-data"),
        help="The folder with everything worth keeping: database, logs, git "
        "repositories, keys. Back this up.",
    ),
    Setting(
        name="host",
        type=str,
        default="127.0.0.1",
        help="The address to listen on. Anything but loopback shows the server to others.",
    ),
    Setting(name="port", type=int, default=8000, help="The TCP port to listen on; 0 takes a free one."),
    Setting(
        name="url",
        type=str,
        default="",
        help="How browsers, git and runners reach the server, e.g. `https://ci.example.com`. "
        "Empty: `http://HOST:PORT`.",
    ),
    Setting(
        name="runner",
        type=str,
        default="auto",
        choices=("auto", "on", "off"),
        help="Whether the server starts a runner of its own: `auto` where a container engine answers.",
    ),
    Setting(
        name="hook_max_bytes",
        type=int,
        default=5 << 20,
        unit="bytes",
        help="A webhook with a larger body is refused before it is read.",
    ),
    Setting(
        name="disconnect_limit_seconds",
        type=int,
        default=900,
        unit="seconds",
        help="How long a runner without contact to the server lets steps run before it kills them.",
    ),
    Setting(
        name="session_days",
        type=int,
        default=30,
        unit="days",
        help="How long a browser stays signed in.",
    ),
    Setting(
        name="trusted_proxies",
        type=str,
        default="127.0.0.1, ::1",
        help="Addresses or networks of reverse proxies, with commas between: what these say in "
        "`X-Forwarded-For` is where a request came from. Empty: nobody is believed.",
    ),
    Setting(
        name="allowed_private_hosts",
        type=str,
        default="",
        help="Hosts of forges and repositories that are not on the internet, with commas between: names, "
        "addresses, networks. The server connects to no other private address.",
    ),
    Setting(
        name="privileged_plugins",
        type=str,
        default="",
        help="Images, with commas between, that run with all rights where a step is told by its `settings` "
        "alone and the build is no fork's; the runner must allow it too (`SHIPWAY_ALLOW=security`).",
    ),
    Setting(
        name="log_format",
        type=str,
        default="text",
        choices=FORMATS,
        help="How the server writes its own log to stderr: `text` for people, `json` one object a line.",
    ),
)
#: A name with a letter at the start of its last part; everything else is an address or a network.
_HOST = re.compile(r"([a-z0-9_-]+\.)*[a-z][a-z0-9_-]*\Z")
_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, kw_only=True)
class Settings:
    data_dir: Path
    host: str
    port: int
    url: str
    runner: str
    hook_max_bytes: int
    disconnect_limit_seconds: int
    session_days: int
    trusted_proxies: str
    allowed_private_hosts: str
    privileged_plugins: str
    log_format: str

    @property
    def images_of_privileged_plugins(self) -> tuple[str, ...]:
        return tuple(image for image in self.privileged_plugins.split(", ") if image)

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str],
        overrides: Mapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Read flags, environment and file. Raises Invalid with every name that is not known.

        The file is the one that `SHIPWAY_CONFIG` names (it must exist), else `shipway.toml` in `folder`.
        Overrides that are None count as not given.
        """
        values = {setting.name: setting.default for setting in SETTINGS}
        values |= _from_file(environ, folder or Path.cwd())
        values |= _from_environ(environ)
        for name, value in (overrides or {}).items():
            if value is not None:
                values[name] = _convert(_known(name, "a flag"), value, f"--{name.replace('_', '-')}")
        values["url"] = values["url"].rstrip("/") or _own_url(values["host"], values["port"])
        values["data_dir"] = values["data_dir"].expanduser().absolute()
        values["trusted_proxies"] = _networks(values["trusted_proxies"])
        values["allowed_private_hosts"] = _hosts(values["allowed_private_hosts"])
        values["privileged_plugins"] = _images(values["privileged_plugins"])
        return cls(**values)


def _images(text: str) -> str:
    """The list in one form. Raises Invalid."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not part.isprintable() or " " in part or "@" in part or ":" in part.rpartition("/")[2]:
            raise Invalid(f"privileged_plugins: {part!r} is no image without a tag, such as plugins/docker")
    return ", ".join(parts)


def _own_url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _from_file(environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    named = environ.get(f"{PREFIX}CONFIG", "")
    path = Path(named) if named else folder / FILE_NAME
    if not named and not path.exists():
        return {}
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise Invalid(f"{path} is no TOML: {error}") from error
    return {
        name: _convert(_known(name, str(path)), value, f"{path}: {name}") for name, value in found.items()
    }


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if name in _BY_NAME:
            values[name] = _convert(_BY_NAME[name], text, variable)
        elif get_close_matches(name, _BY_NAME, 1, 0.85):
            # Other SHIPWAY_ variables may be the runner's or a test's; a near miss is a slip.
            _known(name, "the environment")
    return values


def _networks(text: str) -> str:
    """Checked, and with plain commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        try:
            ip_network(part)
        except ValueError as error:
            raise Invalid(f"trusted_proxies: {part!r} is no address and no network: {error}") from error
    return ",".join(parts)


def _hosts(text: str) -> str:
    """Checked, in small letters and with plain commas."""
    parts = [part.strip().lower() for part in text.split(",") if part.strip()]
    for part in parts:
        if not _HOST.match(part):
            _networks_of(part)
    return ",".join(parts)


def _networks_of(part: str) -> None:
    try:
        ip_network(part)
    except ValueError as error:
        raise Invalid(
            f"allowed_private_hosts: {part!r} is no name of a host, no address and no network"
        ) from error


def _known(name: str, place: str) -> Setting:
    if name in _BY_NAME:
        return _BY_NAME[name]
    nearest = get_close_matches(name, _BY_NAME, 1, 0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(_BY_NAME)}"
    raise Invalid(f"{place}: unknown setting {name!r}; {hint}")


def _convert(setting: Setting, value: Any, place: str) -> Any:
    if setting.type is int:
        return _integer(value, place)
    if not isinstance(value, (str, Path)):
        raise Invalid(f"{place} must be a text, not {value!r}")
    if setting.choices and value not in setting.choices:
        raise Invalid(f"{place} must be one of {', '.join(setting.choices)}, not {str(value)!r}")
    return setting.type(value)


def _integer(value: Any, place: str) -> int:
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if number < 0:
        raise Invalid(f"{place} must be a whole number from 0, not {value!r}")
    return number

"""Registries: the logins in a Docker `config.json`, by the host of the registry. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ci.errors import Invalid

#: How the file calls the registry of names without a host.
_HUB = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
HUB = "docker.io"


@dataclass(frozen=True, kw_only=True)
class Login:
    user: str
    password: str = field(repr=False)


def logins(text: str) -> dict[str, Login]:
    """Raises Invalid, without a word of the text: it is a secret."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    auths = found.get("auths", found) if isinstance(found, dict) else None
    if not isinstance(auths, dict) or not auths:
        raise Invalid('it is no config.json of Docker: a JSON object with "auths"')
    return {_host(str(name)): _login(str(name), entry) for name, entry in auths.items()}


def login_of(image: str, known: Mapping[str, Login]) -> Login | None:
    """Of a full image name, `host/path:tag`."""
    return known.get(image.partition("/")[0])


def _host(name: str) -> str:
    """`https://index.docker.io/v1/` is the hub; other hosts may come with a scheme and a path too."""
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    return HUB if host in (*_HUB, HUB) else host


def _login(name: str, entry: object) -> Login:
    if not isinstance(entry, dict):
        raise Invalid(f"its entry of {name} is no object")
    if entry.get("auth"):
        try:
            user, colon, password = (
                base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
            )
        except (binascii.Error, ValueError):
            user, colon, password = "", "", ""
        if not colon:
            raise Invalid(f'its "auth" of {name} is not user:password in base64')
        return Login(user=user, password=password)
    if not entry.get("username") or not entry.get("password"):
        raise Invalid(f'its entry of {name} has neither "auth" nor "username" and "password"')
    return Login(user=str(entry["username"]), password=str(entry["password"]))

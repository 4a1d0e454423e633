"""Settings of an engine: read from the runner's environment, the same in supervisor and job process."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ci.errors import Invalid
from ci.rights import SWITCHES
from runners.engines.sandbox import Allowed

#: A range that is seldom used; each job takes a small subnet of it.
DEFAULT_SUBNETS = "10.213.0.0/16"


@dataclass(frozen=True, kw_only=True)
class DockerSettings:
    """`image_mirrors`: pairs of a prefix of a full image name and what stands in its place; the longest
    prefix wins. `dns`: resolvers for containers; empty: the engine's own."""

    image_mirrors: tuple[tuple[str, str], ...] = ()
    ca_bundle: Path | None = None
    subnets: str = DEFAULT_SUBNETS
    dns: tuple[str, ...] = ()
    allowed: Allowed = field(default_factory=Allowed)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> DockerSettings:
        """From SHIPWAY_IMAGE_MIRRORS, SHIPWAY_CA_BUNDLE, SHIPWAY_SUBNETS, SHIPWAY_DNS, SHIPWAY_ALLOW and
        SHIPWAY_HOST_FOLDERS."""
        bundle = environ.get("SHIPWAY_CA_BUNDLE", "")
        return cls(
            image_mirrors=_mirrors(environ.get("SHIPWAY_IMAGE_MIRRORS", "")),
            ca_bundle=_bundle(bundle) if bundle else None,
            subnets=_subnets(environ.get("SHIPWAY_SUBNETS", "") or DEFAULT_SUBNETS),
            dns=tuple(_address(text) for text in _words(environ.get("SHIPWAY_DNS", ""))),
            allowed=Allowed(
                rights=frozenset(_switch(text) for text in _words(environ.get("SHIPWAY_ALLOW", ""))),
                host_folders=tuple(_folder(text) for text in _words(environ.get("SHIPWAY_HOST_FOLDERS", ""))),
            ),
        )


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _switch(text: str) -> str:
    if text not in SWITCHES:
        raise Invalid(f"SHIPWAY_ALLOW: {text!r} is none of {', '.join(SWITCHES)}")
    return text


def _folder(text: str) -> str:
    plain = text.rstrip("/") or "/"
    if not text.startswith("/") or posixpath.normpath(plain) != plain:
        raise Invalid(f"SHIPWAY_HOST_FOLDERS: {text!r} is no absolute path of a folder, such as /srv/cache")
    return plain


def _mirrors(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in text.replace(",", " ").split():
        prefix, equals, replacement = item.partition("=")
        if not equals or not prefix:
            raise Invalid(
                f"SHIPWAY_IMAGE_MIRRORS: {item!r} is not of the form prefix=replacement, "
                "e.g. docker.io/library/=mirror.example.org/"
            )
        pairs.append((prefix, replacement))
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def _bundle(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or not path.is_file():
        raise Invalid(f"SHIPWAY_CA_BUNDLE: {text!r} is not the absolute path of a file on this machine")
    return path


def _subnets(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Invalid(f"SHIPWAY_SUBNETS: {error}; write a range like {DEFAULT_SUBNETS}") from None
    if network.prefixlen > 24:
        raise Invalid(f"SHIPWAY_SUBNETS: {text} is too small; at least a /24 is needed")
    return str(network)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise Invalid(f"SHIPWAY_DNS: {error}") from None

"""Secrets: set, never shown; given to a job that names them, masked in all it says.

Theory of operation. A row is sealed and bound to its place and name. Of one name the narrowest place wins:
repo, owner, server. Whether a step may read one is decided when the build is made (a person reads why not,
with the line, before anything runs) and again when its job is assigned. A stranger's code gets none (law 8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ci.errors import Invalid, NotFound, Problem
from ci.event import Event, Kind
from ci.mask import MINIMUM_BYTES, is_useless
from ci.pipeline.compile import SecretUse
from ci.server.auth import Actor
from ci.server.clock import Clock
from ci.server.models import Repo, Secret
from ci.server.store import audit, secrets
from ci.server.store.database import Connection, Store
from ci.server.store.secrets import NewSecret
from ci.server.vault import Vault
from ci.settings import secret_names
from ci.spec import JobSpec, StepSpec

MAX_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}\Z")
_GOOD_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Who may read it. Each is empty for everybody."""

    events: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What one job gets: values by name."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    refusal: str = ""  #: why the job must not start


class Secrets:
    def __init__(self, store: Store, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock

    # --- set ----------------------------------------------------------------------------------------

    async def put(self, place: str, name: str, value: str, filters: Filters, actor: Actor) -> str:
        """Set it, or set it anew. Returns a warning, or nothing. Raises Invalid for what cannot be one."""
        name = name.strip().lower()
        check_name(name)
        _check(value, filters)
        weak = weakness(value)
        new = NewSecret(
            place=place,
            name=name,
            sealed=self._vault.seal(value.encode(), _purpose(place, name)),
            events=filters.events,
            images=tuple(repository(image) for image in filters.images),
            steps=filters.steps,
            is_weak=bool(weak),
            by=actor.name,
        )
        now = self._clock.now()

        def write(connection: Connection) -> None:
            is_new = secrets.put(connection, new, now)
            _note(connection, actor, place, "secret.set" if is_new else "secret.change", name, now)

        await self._store.write(write)
        return weak

    async def remove(self, place: str, name: str, actor: Actor) -> None:
        name, now = name.lower(), self._clock.now()

        def write(connection: Connection) -> None:
            if not secrets.remove(connection, place, name):
                raise NotFound(f"there is no secret {name!r} here")
            _note(connection, actor, place, "secret.remove", name, now)

        await self._store.write(write)

    # --- read -----------------------------------------------------------------------------------------

    def problems(
        self, connection: Connection, uses: Sequence[SecretUse], event: Event, repo: Repo
    ) -> list[Problem]:
        """What is wrong with the secrets that a build names: errors, and warnings for what is withheld."""
        if event.is_untrusted:
            return [_withheld(use) for use in uses]
        found = secrets.named(connection, repo, {use.name for use in uses})
        problems = []
        for use in uses:
            row = found.get(use.name)
            why = _unreadable(row, use.step, use.image, event.kind) if row else _missing(use, repo)
            if why:
                problems.append(
                    _problem(use, f"step {use.step!r} cannot read the secret {use.name!r}: {why}")
                )
        return problems

    def for_job(
        self, connection: Connection, spec: JobSpec, event: Event, repo: Repo, build: str
    ) -> Resolved:
        """The values that the job's steps name, checked again; and the note of their use, as `build`."""
        steps = [step for step in spec.steps if not step.skip_reason]
        names = {name for step in steps for name in names_of(step)}
        if not names or event.is_untrusted or not spec.is_trusted:
            return Resolved()
        found = secrets.named(connection, repo, names)
        for step in steps:
            for name in names_of(step):
                row = found.get(name)
                why = _unreadable(row, step.name, step.image, event.kind) if row else "it is gone"
                if why:
                    return Resolved(refusal=f"step {step.name!r} cannot read the secret {name!r}: {why}")
        secrets.used(connection, [row.id or 0 for row in found.values()], build, self._clock.now())
        return Resolved(values={name: self._open(row) for name, row in found.items()})

    def _open(self, row: Secret) -> str:
        return self._vault.open(row.sealed, _purpose(row.place, row.name)).decode()


def names_of(step: StepSpec) -> set[str]:
    return {*step.secrets.values(), *secret_names(step.settings)}


def _purpose(place: str, name: str) -> str:
    return f"secret {place} {name}"


def repository(image: str) -> str:
    """The repository of an image, without tag and digest, with the names that Docker leaves out."""
    bare = image.partition("@")[0]
    head, slash, last = bare.rpartition("/")
    bare = f"{head}{slash}{last.partition(':')[0]}"
    host = bare.partition("/")[0]
    has_host = "/" in bare and ("." in host or ":" in host or host == "localhost")
    full = bare if has_host else f"docker.io/{bare}"
    return full.replace("docker.io/", "docker.io/library/", 1) if full.count("/") == 1 else full


def weakness(value: str) -> str:
    """Why a value protects little, as a sentence; empty for a good one."""
    plain = value.strip()
    if len(plain.encode()) < MINIMUM_BYTES:
        return (
            f"it is shorter than {MINIMUM_BYTES} characters, so it is not masked in logs: take a longer one"
        )
    if is_useless(value):
        return (
            "it is a common word, a short number or one character again and again, which logs hold anyway, "
            "so it is not masked: take a random one"
        )
    if len(plain) < _GOOD_LENGTH:
        return f"it is shorter than {_GOOD_LENGTH} characters, so it is easily guessed"
    return ""


def check_name(name: str) -> None:
    if not _NAME.match(name):
        raise Invalid(
            f"{name[:100]!r} cannot be the name of a secret: letters, digits, `_`, `-` and `.`, at most 100"
        )


def _check(value: str, filters: Filters) -> None:
    if not value:
        raise Invalid("the value is empty")
    if "\0" in value or len(value.encode(errors="surrogatepass")) > MAX_BYTES:
        raise Invalid(f"a secret has at most {MAX_BYTES >> 10} KiB, and no NUL in it")
    kinds = {kind.value for kind in Kind}
    for event in filters.events:
        if event not in kinds:
            raise Invalid(f"there is no event {event!r}; there are {', '.join(sorted(kinds))}")


def _unreadable(row: Secret, step: str, image: str, event: Kind) -> str:
    if row.events and event.value not in row.events:
        return f"it is for {_list(row.events)}, this is {event.value}"
    if row.steps and step not in row.steps:
        return f"it is for the steps {_list(row.steps)}"
    if row.images and repository(image) not in row.images:
        return f"it is for the images {_list(row.images)}, this is {repository(image)}"
    return ""


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


def _missing(use: SecretUse, repo: Repo) -> str:
    command = f"shipway secret set {use.name} --repo {repo.owner}/{repo.name}"
    return f"there is none of this name; `{command}` sets it"


def _withheld(use: SecretUse) -> Problem:
    sentence = (
        f"the secret {use.name!r} is withheld from a stranger's pull request: "
        f"step {use.step!r} sees an empty value"
    )
    return _problem(use, sentence, is_warning=True)


def _problem(use: SecretUse, sentence: str, *, is_warning: bool = False) -> Problem:
    return Problem(
        message=sentence, file=use.file, line=use.mark.line, column=use.mark.column, is_warning=is_warning
    )


def _note(connection: Connection, actor: Actor, place: str, action: str, name: str, now: float) -> None:
    kind, _, rest = place.partition(":")
    repo_id = int(rest) if kind == "repo" else None
    details = {"server": "for the whole server", "org": f"for every repo of {rest}"}.get(kind, "")
    audit.note(
        connection, actor, audit.Deed(action=action, object=name, repo_id=repo_id, details=details), now
    )

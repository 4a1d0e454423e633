"""Secrets: set, never shown; given to a job that names them, masked in all it says.

Theory of operation. A row is sealed and bound to its place and name. Of one name the narrowest place wins:
repo, owner, server. Whether a step may read one is decided when the build is made (a person reads why not,
with the line, before anything runs) and again when its job is assigned. A stranger's code gets none (law 8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ci.errors import Conflict, Invalid, NotFound, Problem
from ci.event import Event, Kind
from ci.images import repository
from ci.mask import MINIMUM_BYTES, is_useless
from ci.pipeline.compile import SecretUse
from ci.pipeline.containers import IMAGE
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
MAX_IN_A_PLACE = 500
MAX_FILTERS = 50
_MAX_STEP_NAME = 200
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}\Z")
_GOOD_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Who may read it. Each is empty for everybody. An image is a repository, with or without a digest."""

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

    async def put(self, place: str, name: str, value: str | None, filters: Filters, actor: Actor) -> str:
        """Set it, or set it anew; without a value only who may read it. Returns a warning, or nothing.

        Raises Invalid for what cannot be one, NotFound where there is no value to keep, Conflict where there
        are too many.
        """
        name = name.strip().lower()
        check_name(name)
        _check_filters(filters)
        new = self._new(place, name, value, filters, actor)
        now = self._clock.now()

        def write(connection: Connection) -> None:
            is_new = secrets.put(connection, new, now)
            if is_new is None:
                raise NotFound(f"there is no secret {name!r} here yet: give it a value")
            if is_new and secrets.count(connection, place) > MAX_IN_A_PLACE:
                raise Conflict(f"there are {MAX_IN_A_PLACE} secrets here already; remove one first")
            action = "secret.set" if is_new else "secret.change" if value is not None else "secret.filters"
            _note(connection, actor, place, action, name, now)

        await self._store.write(write)
        return weakness(value) if value is not None else ""

    def _new(self, place: str, name: str, value: str | None, filters: Filters, actor: Actor) -> NewSecret:
        sealed = None
        if value is not None:
            _check_value(value)
            sealed = self._vault.seal(value.encode(), secrets.purpose(place, name))
        return NewSecret(
            place=place,
            name=name,
            sealed=sealed,
            events=filters.events,
            images=tuple(dict.fromkeys(image_filter(image) for image in filters.images)),
            steps=filters.steps,
            is_weak=value is not None and bool(weakness(value)),
            by=actor.name,
        )

    async def remove(self, place: str, name: str, actor: Actor) -> None:
        name, now = name.lower(), self._clock.now()

        def write(connection: Connection) -> None:
            if not secrets.remove(connection, place, name):
                raise NotFound(f"there is no secret {name[:100]!r} here")
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
            why = _unreadable(row, use, event.kind) if row else _missing(use, repo)
            if why:
                who = f"step {use.step!r}" if use.step else '"pull_secrets"'
                problems.append(_problem(use, f"{who} cannot read the secret {use.name!r}: {why}"))
        return problems

    def for_job(
        self, connection: Connection, spec: JobSpec, event: Event, repo: Repo, build: str
    ) -> Resolved:
        """The values that the job's steps name, checked again; and the note of their use, as `build`."""
        steps = [step for step in spec.steps if not step.skip_reason]
        names = {name for step in steps for name in names_of(step)} | set(spec.pull_secrets)
        if not names or event.is_untrusted or not spec.is_trusted:
            return Resolved()
        found = secrets.named(connection, repo, names)
        for step in steps:
            reader = _reader(step)
            for name in sorted(names_of(step)):
                row = found.get(name)
                if why := _unreadable(row, reader, event.kind) if row else "it is gone":
                    return Resolved(refusal=f"step {step.name!r} cannot read the secret {name!r}: {why}")
        for name in spec.pull_secrets:
            row = found.get(name)
            if why := _unreadable(row, _PULLS, event.kind) if row else "it is gone":
                return Resolved(refusal=f"images cannot be pulled with the secret {name!r}: {why}")
        secrets.used(connection, [row.id or 0 for row in found.values()], build, self._clock.now())
        return Resolved(values={name: self._open(row) for name, row in found.items()})

    def _open(self, row: Secret) -> str:
        return self._vault.open(row.sealed, secrets.purpose(row.place, row.name)).decode()


def names_of(step: StepSpec) -> set[str]:
    return {*step.secrets.values(), *secret_names(step.settings)}


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


def _check_value(value: str) -> None:
    if not value:
        raise Invalid("the value is empty")
    if "\0" in value or len(value.encode(errors="surrogatepass")) > MAX_BYTES:
        raise Invalid(f"a secret has at most {MAX_BYTES >> 10} KiB, and no NUL in it")


def _check_filters(filters: Filters) -> None:
    kinds = {kind.value for kind in Kind}
    for event in filters.events:
        if event not in kinds:
            raise Invalid(f"there is no event {event[:100]!r}; there are {', '.join(sorted(kinds))}")
    for image in filters.images:
        if not IMAGE.match(image):
            raise Invalid(f"{image[:200]!r} is not the name of an image")
    for step in filters.steps:
        if len(step) > _MAX_STEP_NAME or not step.isprintable():
            raise Invalid(f"{step[:_MAX_STEP_NAME]!r} is not the name of a step")
    if max(len(filters.events), len(filters.images), len(filters.steps)) > MAX_FILTERS:
        raise Invalid(f"a secret is for at most {MAX_FILTERS} images and {MAX_FILTERS} steps, or for all")


# --- who may read -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Who asks for a secret: the same of a SecretUse and of a step."""

    step: str
    image: str
    is_told_by_settings_alone: bool


def _reader(step: StepSpec) -> _Reader:
    alone = step.is_told_by_settings_alone
    return _Reader(step=step.name, image=step.image, is_told_by_settings_alone=alone)


#: Who pulls: no step and no image.
_PULLS = _Reader(step="", image="", is_told_by_settings_alone=False)


def _unreadable(row: Secret, reader: _Reader | SecretUse, event: Kind) -> str:
    """Why a step may not read it, as a clause; empty: it may."""
    if row.events and event.value not in row.events:
        return f"it is for {_list(row.events)}, this is {event.value}"
    if row.steps and reader.step not in row.steps:
        return f"it is for the steps {_list(row.steps)}"
    if row.images and not any(_is_image(wanted, reader.image) for wanted in row.images):
        return f"it is for the images {_list(row.images)}, this is {image_filter(reader.image)}"
    if row.images and not reader.is_told_by_settings_alone:
        # With commands or an environment of its own, an image does whatever the file says.
        return (
            f"it is for what the images {_list(row.images)} do by themselves: this step must be a plugin, "
            "without commands and environment"
        )
    return ""


def _is_image(wanted: str, image: str) -> bool:
    """Whether `image` is of the repository, and where a digest is wanted, exactly that one."""
    bare, _, digest = wanted.partition("@")
    return repository(image) == bare and digest in ("", image.partition("@")[2])


def image_filter(image: str) -> str:
    """How an image is kept in a filter: its whole repository and its digest, without the tag."""
    _, at, digest = image.partition("@")
    return f"{repository(image)}{at}{digest}"


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


def _missing(use: SecretUse, repo: Repo) -> str:
    command = f"shipway secret set {use.name} --repo {repo.owner}/{repo.name}"
    return f"there is none of this name; `{command}` sets it"


def _withheld(use: SecretUse) -> Problem:
    effect = f"step {use.step!r} sees an empty value" if use.step else "images are pulled without it"
    sentence = f"the secret {use.name!r} is withheld from a stranger's pull request: {effect}"
    return _problem(use, sentence, is_warning=True)


def _problem(use: SecretUse, sentence: str, *, is_warning: bool = False) -> Problem:
    return use.mark.problem(use.file, sentence, is_warning=is_warning)


def _note(connection: Connection, actor: Actor, place: str, action: str, name: str, now: float) -> None:
    details = f"of {secrets.words(place)}"
    deed = audit.Deed(action=action, object=name, repo_id=secrets.repo_id_of(place), details=details)
    audit.note(connection, actor, deed, now)

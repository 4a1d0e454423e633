"""Problems: collects everything that is wrong in one file, so that a person sees it all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from ci.errors import ConfigError, Problem

#: More than a person reads. What comes after them is not even looked at, which bounds the work.
MAX_PROBLEMS = 100
_SUGGESTIONS = 25
_SUGGESTION_LENGTH = 60
_SUGGESTION_CHOICES = 500


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; both count from 1."""

    line: int = 1
    column: int = 1


@dataclass(kw_only=True)
class Problems:
    """The problems of one file, in the order in which they were found."""

    file: str
    found: list[Problem] = field(default_factory=list)
    _errors: int = 0

    @property
    def has_errors(self) -> bool:
        return self._errors > 0

    @property
    def is_full(self) -> bool:
        return len(self.found) >= MAX_PROBLEMS

    def error(self, mark: Mark, message: str) -> None:
        self._errors += 1
        self._add(mark, message, is_warning=False)

    def warn(self, mark: Mark, message: str) -> None:
        self._add(mark, message, is_warning=True)

    def _add(self, mark: Mark, message: str, *, is_warning: bool) -> None:
        if self.is_full and (is_warning or self._errors > 1):
            return
        problem = Problem(
            message=message, file=self.file, line=mark.line, column=mark.column, is_warning=is_warning
        )
        if problem not in self.found:
            self.found.append(problem)

    def did_you_mean(self, word: str, choices: Iterable[str]) -> str:
        """`; did you mean "x"?`, or nothing where no choice is near."""
        names = [name for name in choices if len(name) <= _SUGGESTION_LENGTH][:_SUGGESTION_CHOICES]
        if len(self.found) > _SUGGESTIONS or len(word) > _SUGGESTION_LENGTH:
            return ""
        near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
        return f'; did you mean "{near[0]}"?' if near else ""

    @property
    def in_order(self) -> tuple[Problem, ...]:
        return tuple(sorted(self.found, key=lambda problem: (problem.line, problem.column)))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.in_order if problem.is_warning)

    def raise_errors(self) -> None:
        """Raise ConfigError with all problems, warnings too, if one of them is an error."""
        if self.has_errors:
            raise ConfigError(self.in_order)


def shown(text: str, limit: int = 60) -> str:
    """`text` in quotes for a message: on one line, and never long."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    flat = "".join(char if char.isprintable() else " " for char in cut)
    return f'"{flat}"'

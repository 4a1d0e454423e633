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
    """A place in a file; line and column count from 1. `file`: where it is not the one that is read."""

    line: int = 1
    column: int = 1
    file: str = ""

    def problem(self, file: str, message: str, *, is_warning: bool = False) -> Problem:
        """Here, in `file` if the mark names none."""
        return Problem(
            message=message,
            file=self.file or file,
            line=self.line,
            column=self.column,
            is_warning=is_warning,
        )


@dataclass(kw_only=True)
class Problems:
    """The problems of one file, in the order in which they were found."""

    file: str
    found: list[Problem] = field(default_factory=list)
    errors: int = 0  #: how many of them are no warnings

    @property
    def has_errors(self) -> bool:
        return self.errors > 0

    @property
    def is_full(self) -> bool:
        return len(self.found) >= MAX_PROBLEMS

    def error(self, mark: Mark, message: str) -> None:
        self.errors += 1
        self._add(mark, message, is_warning=False)

    def warn(self, mark: Mark, message: str) -> None:
        self._add(mark, message, is_warning=True)

    def _add(self, mark: Mark, message: str, *, is_warning: bool) -> None:
        if self.is_full and (is_warning or self.errors > 1):
            return
        self._keep(mark.problem(self.file, message, is_warning=is_warning))

    def take(self, other: Problems) -> None:
        """Those of a file that this one includes."""
        for problem in other.in_order:
            self.errors += not problem.is_warning
            self._keep(problem)

    def _keep(self, problem: Problem) -> None:
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
        """Of the file first, then of each that it includes."""

        def place(problem: Problem) -> tuple[bool, str, int, int]:
            return (problem.file != self.file, problem.file, problem.line, problem.column)

        return tuple(sorted(self.found, key=place))

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

"""Rules: what a plain scalar is taken for, and what a key that stands twice means, in each dialect's YAML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_LONGEST = 64


class Kind(StrEnum):
    """What a plain scalar is taken for."""

    TEXT = "text"
    NULL = "nothing"
    BOOL = "true or false"
    INT = "a number"
    FLOAT = "a fraction"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`kinds` are looked at in order; what none matches is text."""

    kinds: tuple[tuple[Kind, re.Pattern[str]], ...]
    fills_further: bool = False  #: a key that stands twice, or after `<<`, fills the first map in its place
    splits_by_lines: bool = False  #: documents are parts of the text, whatever YAML says of the line
    #: These servers fill in references before they read YAML, so that nothing in one means anything there;
    #: and the first of two backslashes, or one before a slash, is an escape. Source: parse/scan.go of what
    #: they fill in with.
    fills_in_first: bool = False

    def kind_of(self, text: str) -> Kind:
        """What the plain scalar `text` is taken for."""
        if len(text) > _LONGEST:
            return Kind.TEXT
        return next((kind for kind, pattern in self.kinds if pattern.match(text)), Kind.TEXT)


_OLD_WORDS = ("true", "false", "yes", "no", "on", "off")
_NULL = (Kind.NULL, re.compile(r"(?:null|Null|NULL|~|)\Z"))
_BOOL = (Kind.BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"))
_FLOAT = (
    Kind.FLOAT,
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
)
_CORE_INT = (Kind.INT, re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"))
_GO_INT = (Kind.INT, re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)\Z"))
_OLD_BOOL = (
    Kind.BOOL,
    re.compile(rf"(?:[yYnN]|{'|'.join(f'{word}|{word.title()}|{word.upper()}' for word in _OLD_WORDS)})\Z"),
)

#: The core schema of YAML 1.2: `yes` and `on` are text everywhere, and `010` is ten.
NATIVE = Rules(kinds=(_NULL, _BOOL, _CORE_INT, _FLOAT))
#: Go's reader of YAML 1.2, with what it keeps of 1.1: `1_000` is a number.
#: Source: the study of the peer that has it, 1.2.
GO = Rules(kinds=(_NULL, _BOOL, _GO_INT, _FLOAT), fills_in_first=True)
#: Go's reader of YAML 1.1, whose sixty-based numbers and dates are text.
#: Source: corpus.md 1, and the study of the peer that has it, 4.1.
GO_11 = Rules(
    kinds=(_NULL, _OLD_BOOL, _GO_INT, _FLOAT),
    fills_further=True,
    splits_by_lines=True,
    fills_in_first=True,
)

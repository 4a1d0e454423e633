"""Lexer: the tokens of an expression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from ci.pipeline.expression.errors import BadExpression

MAX_SOURCE = 10_000


class Kind(Enum):
    NUMBER = "number"
    TEXT = "text"
    NAME = "name"
    OPERATOR = "operator"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str  #: of TEXT its value
    offset: int

    def is_op(self, *texts: str) -> bool:
        return self.kind is Kind.OPERATOR and self.text in texts


#: Names that are operators.
WORDS = frozenset(
    {"not", "and", "or", "in", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"}
)
_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
        |(?:[0-9][0-9_]*)?\.[0-9][0-9_]*(?:[eE][+-]?[0-9]+)?|[0-9][0-9_]*(?:[eE][+-]?[0-9]+)?)
    |(?P<name>\$?[^\W\d]\w*)
    |(?P<raw>`[^`]*`)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<operator>\*\*|\.\.|\?\.|\?\?|==|!=|<=|>=|&&|\|\||::|/(?!\*)|[-+*%^<>!?:,;.|\#=()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL
)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def tokens(source: str) -> list[Token]:
    """Ends with an END. Raises BadExpression."""
    if len(source) > MAX_SOURCE:
        raise BadExpression(f"it is longer than {MAX_SOURCE:,} characters", MAX_SOURCE)
    found: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise BadExpression(_unknown(source, at), at)
        if match.lastgroup != "space":
            found.append(_token(match))
            _refuse_glued(source, match)
        at = match.end()
    return [*found, Token(Kind.END, "", len(source))]


def _token(match: re.Match[str]) -> Token:
    text, at = match[0], match.start()
    match match.lastgroup:
        case "number":
            return Token(Kind.NUMBER, text.replace("_", ""), at)
        case "name":
            return Token(Kind.OPERATOR if text in WORDS else Kind.NAME, text, at)
        case "raw":
            return Token(Kind.TEXT, text[1:-1], at)
        case "text":
            return Token(Kind.TEXT, _ESCAPE.sub(_unescaped, text[1:-1]), at)
        case _:
            return Token(Kind.OPERATOR, text, at)


def _refuse_glued(source: str, match: re.Match[str]) -> None:
    """`1a` is no number and a name."""
    after = source[match.end() : match.end() + 1]
    if match.lastgroup == "number" and (after.isalnum() or after == "_"):
        raise BadExpression(f"{match[0] + after!r} is no number", match.start())


def _unescaped(match: re.Match[str]) -> str:
    for digits, base in ((match[1], 16), (match[2], 16), (match[3], 16), (match[4], 8)):
        if digits:
            number = int(digits, base)
            return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
    # What is no escape stays as it is, as in a regular expression.
    return _PLAIN.get(match[5], match[5] if match[5] in "\\'\"`" else match[0])


def _unknown(source: str, at: int) -> str:
    if source[at] in "\"'`":
        return "the text that begins here has no end"
    if source.startswith("/*", at):
        return "the comment that begins here has no end"
    return f"{source[at]!r} means nothing here"

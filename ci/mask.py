"""The masker: secrets become `***` before a byte leaves the runner.

Theory of operation. All the forms in which a secret may be printed (see `forms`) are patterns of one
Aho-Corasick automaton. Occurrences that overlap are joined, and each joined range is replaced by one
`***`. Of a stream that comes in pieces the masker holds back the longest end that begins a pattern, and
nothing else: until more bytes or the end come, never by time. If that end is already part of a found
range, its `***` is given out at once, and `_covered` says how many of the held bytes it stands for. So the
output depends on the bytes alone, never on how they were cut.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

import ahocorasick_rs

REPLACEMENT = b"***"
#: Shorter values are not masked: they would blot out the log and hide nothing. Saving one warns.
MINIMUM_BYTES = 4
#: Digits alone stand in every log as ports, years and counts, unless there are many.
MINIMUM_DIGITS = 8
#: Words that stand in many logs anyway: to mask them hides nothing and shreds what people read.
COMMON = frozenset(
    {
        *("true", "false", "null", "none", "undefined", "enabled", "disabled", "default"),
        *("main", "master", "trunk", "latest", "stable", "test", "tests", "prod", "production", "staging"),
        *("admin", "root", "user", "guest", "password", "passwd", "secret", "token", "localhost"),
    }
)
#: Above this sum of all patterns the compact automaton is used.
MAX_TABLE_BYTES = 32 * 1024
#: Where `base64` and `openssl base64` break their lines.
_WRAPS = (76, 64)
_MINIMUM_WRAPPED = 6


def is_useless(value: str) -> bool:
    """Whether to mask `value` would shred logs and hide nothing: short, common, or one character again and
    again. The white space around it does not count."""
    plain = value.strip()
    if len(plain.encode("utf-8", "surrogateescape")) < MINIMUM_BYTES or len(set(plain)) == 1:
        return True
    is_number = plain.isascii() and plain.isdigit()
    return plain.lower() in COMMON or (is_number and len(plain) < MINIMUM_DIGITS)


def forms(secret: str) -> set[bytes]:
    """Every byte string that gives the secret away; none for a useless one.

    The value as it is and without the white space around it, and each of its lines; each of these also
    in base64 (at all three alignments, both alphabets, broken into lines), hex, URL-quoted, escaped for
    JSON, and quoted for a shell: in single quotes, in double quotes, with backslashes.
    """
    if is_useless(secret):
        return set()
    found = _encoded(secret) | _encoded(secret.strip())
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        for line in lines:
            if not is_useless(line):
                found |= _encoded(line)
    return found


def _encoded(text: str) -> set[bytes]:
    raw = text.encode("utf-8", "surrogateescape")
    found = {raw, raw.hex().encode(), raw.hex().upper().encode()}
    found |= set(_base64_forms(raw))
    printable = raw.decode("utf-8", "replace")
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        found |= {quoted.encode(), _lower_percents(quoted).encode()}
    for is_ascii in (True, False):
        escaped = json.dumps(printable, ensure_ascii=is_ascii)[1:-1]
        found |= {escaped.encode(), escaped.replace("/", "\\/").encode(), _html_safe(escaped).encode()}
    return found | {quoted.encode() for quoted in _shell_forms(printable)}


def _html_safe(escaped: str) -> str:
    """JSON as those write it who think of HTML."""
    return escaped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shell_forms(text: str) -> Iterator[str]:
    for apostrophe in ("'\\''", "'\"'\"'", "\\'"):
        yield text.replace("'", apostrophe)
    yield text.replace("\\", "\\\\").replace("'", "\\'")  # $'...'
    yield re.sub(r'(["$`\\])', r"\\\1", text)  # "..."
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)  # every special character by itself


def _lower_percents(quoted: str) -> str:
    first, *rest = quoted.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """What `raw` looks like inside base64 of a longer text, whatever stands around it."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        # The first and last characters also depend on the neighbours: only the middle is certain.
        certain = encoded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
        yield from _both_alphabets(certain)
    alone = base64.b64encode(raw)
    for wrap in _WRAPS:
        if len(alone) > wrap:
            for begin in range(0, len(alone) - _MINIMUM_WRAPPED, wrap):
                yield from _both_alphabets(alone[begin : begin + wrap])


def _both_alphabets(encoded: bytes) -> Iterator[bytes]:
    if len(encoded) >= MINIMUM_BYTES:
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))


def _automaton(patterns: list[bytes]) -> ahocorasick_rs.BytesAhoCorasick | None:
    if not patterns:
        return None
    is_small = sum(map(len, patterns)) <= MAX_TABLE_BYTES
    # The full table reads more than twice as fast; it costs about 20 us and 1 KB for each pattern byte.
    implementation = ahocorasick_rs.Implementation.DFA if is_small else None
    return ahocorasick_rs.BytesAhoCorasick(patterns, implementation=implementation)


class Patterns:
    """The compiled forms of some secrets; may be shared by the maskers of several streams and threads."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._sorted = sorted({form for secret in secrets for form in forms(secret)})
        self.longest = max(map(len, self._sorted), default=0)
        heads = sorted({pattern[:MINIMUM_BYTES] for pattern in self._sorted})
        self._whole = _automaton(self._sorted)
        self._heads = _automaton(heads)

    def mask(self, text: str) -> str:
        """A whole text at once."""
        masker = Masker(self)
        raw = text.encode("utf-8", "surrogateescape")
        return (masker.feed(raw) + masker.finish()).decode("utf-8", "replace")

    def occurrences(self, data: bytes) -> list[tuple[int, int]]:
        """(begin, end) of every occurrence, in no particular order."""
        assert self._whole is not None
        found = self._whole.find_matches_as_indexes(data, overlapping=True)
        return [(begin, end) for _, begin, end in found]

    def hold_from(self, data: bytes) -> int:
        """Where the longest end of `data` that begins a pattern, but is none, begins."""
        assert self._heads is not None
        first = max(0, len(data) - self.longest + 1)
        matches = self._heads.find_matches_as_indexes(memoryview(data)[first:], overlapping=True)
        for _, begin, _ in matches:
            if self._is_beginning(data[first + begin :]):
                return first + begin
        for at in range(max(first, len(data) - MINIMUM_BYTES + 1), len(data)):
            if self._is_beginning(data[at:]):
                return at
        return len(data)

    def _is_beginning(self, tail: bytes) -> bool:
        # Any pattern that `tail` begins stands at, or right after, its own place in the order.
        at = bisect_left(self._sorted, tail)
        if at < len(self._sorted) and self._sorted[at] == tail:
            at += 1
        return at < len(self._sorted) and self._sorted[at].startswith(tail)


class Masker:
    """Mask one stream. Not safe for several threads at once."""

    def __init__(self, secrets: Iterable[str] | Patterns) -> None:
        self._patterns = secrets if isinstance(secrets, Patterns) else Patterns(secrets)
        self._held = b""
        self._covered = 0  # so many of the first held bytes have their `***` out already
        self._given = 0
        self._places: list[int] = []  # not settled yet; counted from the first held byte
        self._settled: list[int] = []

    def feed(self, data: bytes) -> bytes:
        if not self._patterns.longest:
            self._given += len(data)
            return data
        data = self._held + data if self._held else data
        return self._give(data, self._patterns.hold_from(data))

    def finish(self) -> bytes:
        """What was held back: the end of the stream has come."""
        return self._give(self._held, len(self._held)) if self._held else b""

    def place(self) -> None:
        """Ask where in the output the present end of the input is; `settled` will tell."""
        if len(self._held) <= self._covered:
            self._settled.append(self._given)
        else:
            self._places.append(len(self._held))

    def settled(self) -> list[int]:
        """Answers to `place` that are certain by now, in the order asked, each once.

        A place within a secret is after its `***`.
        """
        answers, self._settled = self._settled, []
        return answers

    def _give(self, data: bytes, hold: int) -> bytes:
        """Give out `data` up to `hold`, masked, and hold the rest."""
        ranges = [found for found in self._ranges(data) if found[0] < hold]
        parts: list[bytes] = []
        at = 0
        for begin, end in ranges:
            if begin >= 0:
                parts += (data[at:begin], REPLACEMENT)
            at = end
        parts.append(data[at:hold] if at or hold < len(data) else data)
        covered = max(0, at - hold)
        if self._places:
            self._settle(ranges, hold, covered)
        given = parts[0] if len(parts) == 1 else b"".join(parts)
        self._held, self._covered = data[hold:], covered
        self._given += len(given)
        return given

    def _ranges(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets are, in order, those that overlap joined; one begun earlier begins at -1."""
        found = self._patterns.occurrences(data)
        if self._covered:
            found.append((-1, self._covered))
        if len(found) < 2:
            return found
        found.sort()
        joined = found[:1]
        for begin, end in found[1:]:
            last_begin, last_end = joined[-1]
            if begin < last_end:
                joined[-1] = (last_begin, max(last_end, end))
            else:
                joined.append((begin, end))
        return joined

    def _settle(self, ranges: list[tuple[int, int]], hold: int, covered: int) -> None:
        known = [place for place in self._places if place <= hold + covered]
        for place in known:
            offset = self._given + place
            for begin, end in ranges:
                if begin < place:
                    shown = len(REPLACEMENT) if begin >= 0 else 0
                    offset += shown - (min(end, place) - max(begin, 0))
            self._settled.append(offset)
        self._places = [place - hold for place in self._places[len(known) :]]

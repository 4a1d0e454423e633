"""Mutates pipeline files and compiles them: nothing but ConfigError may come out, and none may take a second.

Seeds are our own files and, where they are here, the corpus of public ones. The seed of a mutant that did
worse is printed, and the mutant kept in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ci.errors import ConfigError  # noqa: E402
from ci.pipeline.compile import build_jobs  # noqa: E402
from ci.pipeline.dialects import DIALECTS  # noqa: E402
from ci.pipeline.plan import CONTEXT, event_of  # noqa: E402
from tests.corpus import CORPUS  # noqa: E402

_SLOW_SECONDS = 1.0
_PIECES = (
    *(
        "${",
        "${A:-${B",
        "$$",
        "{{",
        "}}",
        "[",
        "]",
        "{",
        "}",
        "- ",
        ": ",
        "\n",
        "\t",
        " ",
        "#",
        "|",
        ">",
        "'",
        '"',
    ),
    *(
        "&a ",
        "*a",
        "<<: *a\n",
        "<<: [*a, *a]\n",
        "---\n",
        "...\n",
        "!!binary ",
        "%YAML 1.1\n",
        "\\",
        "\x00",
        "\ufeff",
    ),
    *(
        "when:",
        "matrix:",
        "evaluate: ",
        "(((",
        "depends_on: ",
        "from_secret: ",
        "*" * 50,
        "é",
        "\u2028",
        "~",
        "1e999",
    ),
    *("{include: [", "a{b,c}{d,e}", "**/", "[!a-z]", "9" * 40, "x" * 5000, "  " * 60 + "a:\n"),
)


def seeds() -> list[tuple[str, str]]:
    """(dialect, text) of each file."""
    own = [*ROOT.glob("examples/*/.ci.yml"), *ROOT.glob("tests/golden/*.yml"), ROOT / ".ci.yml"]
    found = [("native", path.read_text()) for path in sorted(own)]
    for dialect in DIALECTS:
        folder = CORPUS / dialect
        files = sorted(folder.glob("*")) if folder.is_dir() else []
        found += [(dialect, path.read_text(errors="replace")) for path in files]
    return found


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 8)):
        at, length = chance.randint(0, len(text)), chance.choice((0, 1, 2, 5, 20, 200))
        match chance.randint(0, 5):
            case 0:
                text = text[:at] + text[at + length :]
            case 1:
                text = text[:at] + chance.choice(_PIECES) + text[at:]
            case 2:
                text = text[:at] + text[at : at + length] * chance.randint(2, 30) + text[at + length :]
            case 3:
                other = chance.randint(0, len(text))
                text = text[:at] + text[other : other + length] + text[at:]
            case 4:
                lines = text.split("\n")
                chance.shuffle(lines)
                text = "\n".join(lines) if chance.random() < 0.1 else text
            case _:
                text = (
                    text[:at]
                    + chr(chance.choice((0, 9, 10, 13, 32, 34, 39, 0x85, 0x2028, 0x1F600)))
                    + text[at + 1 :]
                )
    return text


def _keep(seed: int, number: int, text: str) -> None:
    path = Path(tempfile.gettempdir()) / f"shipway-fuzz-{seed}-{number}.yml"
    path.write_text(text)
    print(f"kept as {path}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    files, until = seeds(), time.monotonic() + options.seconds
    events = [event_of(kind, branch="main", tag="v1") for kind in ("push", "tag", "pull_request", "manual")]
    refused = done = 0
    slowest = 0.0
    for number in range(options.count):
        if time.monotonic() > until:
            break
        chance = random.Random(f"{options.seed}/{number}")
        dialect, text = chance.choice(files)
        text = mutated(text, chance)
        began = time.perf_counter()
        try:
            build_jobs({"p.yml": text}, chance.choice(events), CONTEXT, dialect=dialect)
        except ConfigError:
            refused += 1
        except Exception as error:
            print(
                f"seed {options.seed}/{number} ({dialect}): {type(error).__name__}: {error}", file=sys.stderr
            )
            _keep(options.seed, number, text)
            return 1
        took = time.perf_counter() - began
        slowest, done = max(slowest, took), done + 1
        if took > _SLOW_SECONDS:
            print(f"seed {options.seed}/{number} ({dialect}): {took:.2f} s", file=sys.stderr)
            _keep(options.seed, number, text)
            return 1
    counts = f"{done:,} mutants of {len(files)} files, {refused:,} refused"
    print(f"seed {options.seed}: {counts}, the slowest {slowest:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What holds for every test."""

from __future__ import annotations

import csv
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

#: A test that reads data beside the checkout may skip where that is absent.
ALLOWED = "not beside this checkout"


#: A process started in the background of a script, or under nohup, ignores these, and so would its children:
#: a test that interrupts a program would wait for ever.
USUAL = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def pytest_configure() -> None:
    for number, usual in USUAL.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any("test_corpus" in report.nodeid for report in terminalreporter.stats.get("passed", [])):
        terminalreporter.write_line(f"corpus: {_corpus()}")
    for report in _forbidden(terminalreporter):
        terminalreporter.write_line(f"SKIPPED, and may not be: {report.nodeid}: {report.longrepr}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything was asked for, a Docker or browser test that is skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _forbidden(reporter) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _corpus() -> str:
    """How many public files of each dialect are accepted and refused."""
    text = (Path(__file__).parent / "corpus/expect.tsv").read_text()
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    counts = Counter((row["dialect"], row["expect"]) for row in rows)
    return ", ".join(f"{dialect} {count} {word}" for (dialect, word), count in sorted(counts.items()))


def _forbidden(reporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    if "SHIPWAY_TEST_ALL" not in os.environ:
        return []
    skipped = reporter.stats.get("skipped", [])
    return [
        report
        for report in skipped
        if {"docker", "browser"} & set(report.keywords) and ALLOWED not in str(report.longrepr)
    ]

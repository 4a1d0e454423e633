"""How a benchmark tells what it measured: machine, n, medians and raw lists; `--json` one figure a line."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Report:
    """Figures of one benchmark, printed as they are added."""

    bench: str
    is_json: bool = field(default_factory=lambda: "--json" in sys.argv)

    def __post_init__(self) -> None:
        if not self.is_json:
            load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
            machine = f"{platform.machine()}, {os.cpu_count()} cores, kernel {platform.release()}"
            print(f"{self.bench}: {machine}, load {load}")

    def add(self, figure: str, values: Sequence[float], unit: str, baseline: str = "") -> float:
        """A figure from its raw values: the median counts. Returns it."""
        return self.add_value(figure, statistics.median(values), values, unit, baseline)

    def ratio(self, figure: str, ours: Sequence[float], theirs: Sequence[float], baseline: str) -> float:
        """Median against median, of rounds that were interleaved in this run."""
        value = statistics.median(ours) / statistics.median(theirs)
        rounds = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        return self.add_value(figure, value, rounds, "x", baseline)

    def add_value(
        self, figure: str, value: float, values: Sequence[float], unit: str, baseline: str
    ) -> float:
        if self.is_json:
            row = {"bench": self.bench, "figure": figure, "value": round(value, 4), "unit": unit}
            row |= {"n": len(values), "low": round(min(values), 4), "high": round(max(values), 4)}
            print(json.dumps({**row, "baseline": baseline}), flush=True)
        else:
            against = f"   against: {baseline}" if baseline else ""
            print(f"  {figure:<44} {value:9.3f} {unit:<5} n={len(values)}{against}")
            print(f"      raw: {' '.join(f'{each:.3f}' for each in values[:40])}", flush=True)
        return value

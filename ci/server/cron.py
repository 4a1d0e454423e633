"""When a schedule runs: five cron fields in a time zone. Pure.

Where clocks change, a run at a fixed time happens exactly once a day: one that would fall into the hour
that is left out runs right after it, one in the hour that comes twice runs in the first. A run with `*` or
`*/n` in its minute or hour keeps its distance and runs in both. Times are UTC seconds since 1970.
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ci.errors import Invalid

#: What is counted of runs that were missed.
MAX_COUNT = 1000


@dataclass(frozen=True, kw_only=True)
class Cron:
    """Made by `parse` alone."""

    expression: str
    zone: ZoneInfo

    def after(self, seconds: float) -> float:
        """The first time behind `seconds`. Raises Invalid where there is none in 50 years."""
        times = CronSim(self.expression, self._local(seconds))
        try:
            found = next(times).timestamp()
            # In the second of two equal hours it answers with times of the first.
            while found <= seconds:
                found = next(times).timestamp()
        except StopIteration:
            raise Invalid(f"{self.expression!r} names a day that does not come") from None
        return found

    def between(self, first: float, last: float) -> tuple[int, float]:
        """(how many times there are from `first`, which is one, up to `last`; the latest of them). At most
        MAX_COUNT are counted; the latest is true all the same."""
        count, latest = 1, first
        while count < MAX_COUNT and (following := self.after(latest)) <= last:
            count, latest = count + 1, following
        if count == MAX_COUNT and self.after(latest) <= last:
            latest = self._latest_before(last)
        return count, latest

    def _latest_before(self, last: float) -> float:
        step = 60.0
        while (found := self.after(last - step)) > last:
            step *= 2
        while (following := self.after(found)) <= last:
            found = following
        return found

    def _local(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(int(seconds // 1), self.zone)

    def words(self, seconds: float) -> str:
        """A time as people in the zone write it."""
        local = self._local(seconds)
        return f"{local:%a} {local.day} {local:%b %Y, %H:%M} {local.tzname() or ''}".rstrip()

    @property
    def meaning(self) -> str:
        """The expression in words."""
        return CronSim(self.expression, self._local(0.0)).explain()


def parse(expression: str, time_zone: str) -> Cron:
    """Raises Invalid with what is wrong, and what would be right."""
    text = " ".join(expression.split())
    if len(text.split(" ")) != 5:
        raise Invalid(
            f"a schedule has five fields (minute, hour, day of the month, month, day of the week), not "
            f"{text[:80]!r}; every night at 2:30 is '30 2 * * *'"
        )
    zone = _zone(time_zone.strip())
    try:
        found = Cron(expression=text, zone=zone)
        CronSim(text, found._local(0.0))
    except CronSimError as error:
        raise Invalid(f"{text[:80]!r} is no schedule: {str(error)[:1].lower()}{str(error)[1:]}") from error
    found.after(0.0)
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        if not name.isascii() or len(name) > 60:
            raise ValueError
        return ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise Invalid(
            f"there is no time zone {name[:60]!r}; zones are named like Europe/Berlin, or UTC"
        ) from None

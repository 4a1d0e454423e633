"""`/metrics` in Prometheus' text format, and `/healthz`.

Gauges are counted in the database when they are asked for; requests are counted as they are answered, by
the route's pattern and never by its address, so that no name of a repo becomes a label.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, Response

from ci import __version__
from ci.server.store import meta, metrics
from ci.server.store.metrics import Measures
from web.guard import Call

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ("route", "method")
        self._requests = Counter(
            "shipway_http_requests", "Answers by status code.", (*labels, "code"), registry=self._registry
        )
        self._seconds = Histogram(
            "shipway_http_request_seconds",
            "Time to an answer's first byte.",
            labels,
            registry=self._registry,
            buckets=_SECONDS,
        )

    def answered(self, route: str, method: str, code: int, seconds: float) -> None:
        self._requests.labels(route, method, str(code)).inc()
        self._seconds.labels(route, method).observe(seconds)

    async def scrape(self, call: Call) -> Response:
        measures = await call.parts.store.read(metrics.measure)
        counted = CollectorRegistry()
        counted.register(_Counted(measures, call.parts.clock.now()))
        text = generate_latest(counted) + generate_latest(self._registry)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def health(self, call: Call) -> Response:
        """200 while the database can be read and written; an error's answer else."""
        now = call.parts.clock.now()
        server_id = await call.parts.store.write(lambda connection: meta.server_id(connection, now))
        return JSONResponse({"status": "ok", "server": server_id, "version": __version__})


class _Counted(Collector):
    def __init__(self, measures: Measures, now: float) -> None:
        self._measures = measures
        self._now = now

    def collect(self) -> Iterator[Metric]:
        found = self._measures
        yield _gauge("shipway_builds", "Builds that are kept, by status.", found.builds, "status")
        yield _gauge("shipway_jobs", "Jobs of these builds, by status.", found.jobs, "status")
        yield _gauge("shipway_runners", "Registered runners, by state.", found.runners, "state")
        since = found.oldest_pending_at
        waits = max(0.0, self._now - since) if since is not None else 0.0
        for name, words, value in (
            ("shipway_oldest_pending_job_seconds", "How long the longest waiting job has waited.", waits),
            ("shipway_runner_places", "Jobs that connected runners can run at once.", found.places),
            ("shipway_runner_places_taken", "Jobs that runners hold now.", found.places_taken),
            ("shipway_deliveries_waiting", "Deliveries not processed yet.", found.deliveries_waiting),
            ("shipway_statuses_waiting", "Commit statuses a forge was not told yet.", found.statuses_waiting),
        ):
            yield GaugeMetricFamily(name, words, value)
        yield _gauge("shipway_info", "Always 1.", {__version__: 1}, "version")


def _gauge(name: str, words: str, values: dict[str, int], label: str) -> Metric:
    family = GaugeMetricFamily(name, words, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family

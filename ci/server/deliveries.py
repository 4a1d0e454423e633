"""What a delivery was about, in a few words for a reader. Everything in it may be hostile text."""

from __future__ import annotations

from ci.errors import Invalid
from ci.server.forges.base import parse_push
from ci.server.forges.directory import Forges
from ci.server.forges.news import (
    SCHEDULE,
    News,
    PullRequestNews,
    Push,
    ReleaseNews,
    RepoNews,
    ScheduleNews,
    parse_schedule,
)
from ci.server.store.deliveries import Delivery

_MAX = 200
_MAX_REFS = 4


def by(delivery: Delivery) -> str:
    """How it came."""
    if delivery.row.forge_event == SCHEDULE:
        return "schedule"
    return f"hook ({delivery.forge})" if delivery.row.hook_id else "git push"


def words(delivery: Delivery, forges: Forges) -> str:
    """Empty where the body is not small, or says nothing."""
    row = delivery.row
    if not row.body:
        return row.forge_event
    try:
        return _words(_news(delivery, forges))[:_MAX] or row.forge_event
    except (Invalid, KeyError):
        return row.forge_event


def _news(delivery: Delivery, forges: Forges) -> News:
    row = delivery.row
    if row.hook_id is None:
        return parse_schedule(row.body) if row.forge_event == SCHEDULE else parse_push(row.body)
    return forges.named(delivery.forge).news(row.forge_event, row.delivery, row.body)


def _words(news: News) -> str:
    if isinstance(news, Push):
        more = f" and {len(news.refs) - _MAX_REFS} more" if len(news.refs) > _MAX_REFS else ""
        return ", ".join(update.noun[:80] for update in news.refs[:_MAX_REFS]) + more
    if isinstance(news, PullRequestNews):
        return f"pull request {news.number} {news.action}: {news.title}"
    if isinstance(news, ReleaseNews):
        return f"release {news.tag} {news.action}"
    if isinstance(news, RepoNews):
        return f"the repo: {news.action}"
    if isinstance(news, ScheduleNews):
        return f"schedule {news.schedule}"
    return ""

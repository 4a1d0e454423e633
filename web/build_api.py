"""What a person decides about a build, for programs: approve, reject, and how an unknown job ended."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from ci.errors import NotFound
from ci.server.approvals import FileChange, Question
from web import build_page
from web.api import build
from web.guard import Call


async def approval(call: Call) -> Response:
    """What a build waits for, as its page shows it. 404 for one that waits for no approval."""
    view = await build_page.find_view(call)
    question = await call.parts.approvals.question(view.repo, view.build)
    if question is None:
        raise NotFound(f"build {view.build.number} waits for no approval")
    return JSONResponse({"reason": view.build.reason, **_question(question)})


def _question(question: Question) -> dict[str, object]:
    return {
        "binding": question.binding,
        "pull_request": question.pull_request,
        "title": question.title,
        "link": question.link,
        "sender": question.stranger,
        "sender_key": question.stranger_key,
        "source_repo": question.source_repo,
        "is_from_fork": question.is_from_fork,
        "head": question.head,
        "target": question.target,
        "merge": question.merge,
        "moved": question.moved,
        "changed_files": None if question.changed_files is None else list(question.changed_files),
        "compared_with": question.base,
        "changes_config": question.changes_config,
        "config": [_file(file) for file in question.files],
    }


def _file(file: FileChange) -> dict[str, object]:
    return {"file": file.name, "note": file.note, "diff": "\n".join(file.lines)}


async def approve(call: Call) -> Response:
    await build_page.decide(call, is_approved=True)
    return await build(call)


async def reject(call: Call) -> Response:
    await build_page.decide(call, is_approved=False)
    return await build(call)


async def resolve(call: Call) -> Response:
    await build_page.resolve(call)
    return await build(call)

"""What a person decides about a build, for programs: approve, reject, and how an unknown job ended."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from ci.errors import Conflict, Invalid, NotFound
from ci.server.approvals import FileChange, Question
from web import build_page
from web.api import build
from web.guard import Call
from web.openapi import Operation, describe
from web.schemas import ApprovalFacts, VerdictBody, WholeBuild


@describe(Operation(summary="What a build waits for an approval of", answer=ApprovalFacts))
async def approval(call: Call) -> Response:
    """What a build waits for, as its page shows it. 404 for one that waits for no approval."""
    view = await build_page.find_view(call)
    question = await call.parts.approvals.question(view.repo, view.build)
    if question is None:
        raise NotFound(f"build {view.build.number} waits for no approval")
    return JSONResponse({"reason": question.why, **_question(question)})


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


@describe(Operation(summary="Let a stranger's build run", answer=WholeBuild, errors=(Conflict,)))
async def approve(call: Call) -> Response:
    await build_page.decide(call, is_approved=True)
    return await build(call)


@describe(
    Operation(summary="Say that a stranger's build shall not run", answer=WholeBuild, errors=(Conflict,))
)
async def reject(call: Call) -> Response:
    await build_page.decide(call, is_approved=False)
    return await build(call)


@describe(
    Operation(
        summary="Say how a job ended of which nobody knows it",
        answer=WholeBuild,
        body=VerdictBody,
        errors=(Conflict, Invalid),
    )
)
async def resolve(call: Call) -> Response:
    await build_page.resolve(call)
    return await build(call)

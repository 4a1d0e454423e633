"""What each address under /api/ is for, takes and answers: the OpenAPI document, made from the route table.

An endpoint says it beside itself, by `@describe(Operation(...))`; path, method, who may call it and the
errors that follow from that come from its row in the table. tests/unit/test_openapi.py fails for an /api/
route that is not described, and holds the real answers to their schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.responses import JSONResponse, Response

from ci import __version__
from ci.errors import Conflict, Forbidden, Invalid, NotFound, ShipwayError, TooLarge, Unauthenticated
from web import problems
from web.guard import Call, Policy

F = TypeVar("F", bound=Callable[..., Any])
_KEPT_AS = "shipway_operation"
_PARAMETER = re.compile(r"{(\w+)(?::(\w+))?}")
_REF = "#/components/schemas/{model}"
#: What a part of a path is, wherever it stands.
_OF_PATH = {
    "owner": "the owner in the repo's path",
    "name": "the repo's name",
    "number": "the build's number in its repo",
    "job": "the job's slug",
    "step": "the step's slug",
    "id": "its id",
    "user": "the person's name",
}


class Mistake(BaseModel):
    """One thing that is wrong in a pipeline file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    is_warning: bool


class Problem(BaseModel):
    """What is wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    problems: list[Mistake] | None = None


@dataclass(frozen=True, kw_only=True)
class Query:
    """A parameter behind the `?`. `most`: a number, cut to it."""

    name: str
    says: str
    most: int | None = None
    is_number: bool = False


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What an endpoint does. `answer` None: the answer has no JSON body."""

    summary: str
    answer: type[BaseModel] | None
    status: int = 200
    body: type[BaseModel] | None = None
    query: tuple[Query, ...] = ()
    path: Mapping[str, str] = field(default_factory=dict)  #: words for parts of the path that are its own
    errors: tuple[type[ShipwayError], ...] = ()  #: beside those that follow from policy, path and body


def describe(operation: Operation) -> Callable[[F], F]:
    def keep(endpoint: F) -> F:
        setattr(endpoint, _KEPT_AS, operation)
        return endpoint

    return keep


def operation_of(endpoint: object) -> Operation | None:
    found = getattr(endpoint, _KEPT_AS, None)
    return found if isinstance(found, Operation) else None


class Row(Protocol):
    """A row of web/routes.py."""

    @property
    def path(self) -> str: ...
    @property
    def endpoint(self) -> Callable[..., Any]: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def methods(self) -> tuple[str, ...]: ...


class OpenAPI(BaseModel):
    """A document of OpenAPI 3.1."""

    openapi: str
    info: dict[str, str]
    servers: list[dict[str, str]]
    security: list[dict[str, list[str]]]
    paths: dict[str, dict[str, Any]]
    components: dict[str, Any]


class Description:
    """Serves the document; told of the whole table once that stands."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = {}

    def tell(self, table: Iterable[Row]) -> None:
        self._document = document(table)

    @describe(Operation(summary="This description, as an OpenAPI document", answer=OpenAPI))
    async def serve(self, call: Call) -> Response:
        return JSONResponse({**self._document, "servers": [{"url": call.parts.url}]})


def described(table: Iterable[Row]) -> list[tuple[Row, Operation]]:
    found = [(row, operation_of(row.endpoint)) for row in table if row.path.startswith("/api/")]
    return [(row, operation) for row, operation in found if operation is not None]


def document(table: Iterable[Row]) -> dict[str, Any]:
    rows = described(table)
    paths: dict[str, dict[str, Any]] = {}
    for row, operation in rows:
        path = _PARAMETER.sub(r"{\1}", row.path)
        for method in row.methods:
            paths.setdefault(path, {})[method.lower()] = _operation(row, method, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shipway",
            "version": __version__,
            "description": "What the pages show, for programs. Times are seconds since 1970 (UTC). "
            "Fields may be added; those named here stay.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(operation for _, operation in rows),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the page Account.",
                }
            },
        },
    }


def _operation(row: Row, method: str, operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": _name(method, row.path),
        "summary": operation.summary,
        "description": f"Who may: `{row.policy}`.",
        "tags": [_tag(row.path)],
        "parameters": [*_path_parameters(row.path, operation), *map(_query, operation.query)],
        "responses": _responses(row, operation),
    }
    if row.policy in (Policy.PUBLIC, Policy.SETUP) or row.policy.is_for_machines:
        found["security"] = [{}, {"token": []}] if row.policy is Policy.PUBLIC else []
    if operation.body is not None:
        schema = {"$ref": _REF.format(model=operation.body.__name__)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _name(method: str, path: str) -> str:
    """`GET /api/repos/{owner}/{name}/builds` -> `get_repos_owner_name_builds`."""
    words = re.sub(r"\W+", "_", _PARAMETER.sub(r"\1", path.removeprefix("/api/"))).strip("_")
    return f"{method.lower()}_{words}"


def _tag(path: str) -> str:
    """The last noun of a path: what the address is about."""
    nouns = [part for part in path.removeprefix("/api/").split("/") if "{" not in part]
    return nouns[1] if len(nouns) > 1 and nouns[0] == "repos" else nouns[0].removesuffix(".json")


def _path_parameters(path: str, operation: Operation) -> list[dict[str, Any]]:
    words = {**_OF_PATH, **operation.path}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": words[name],
            "schema": {"type": "integer" if kind == "int" else "string"},
        }
        for name, kind in _PARAMETER.findall(path)
    ]


def _query(query: Query) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer" if query.is_number or query.most else "string"}
    if query.most:
        schema |= {"minimum": 1, "maximum": query.most}
    return {"name": query.name, "in": "query", "description": query.says, "schema": schema}


def _responses(row: Row, operation: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": operation.summary}
    if operation.answer is not None:
        schema = {"$ref": _REF.format(model=operation.answer.__name__)}
        good["content"] = {"application/json": {"schema": schema}}
    found = {str(operation.status): good}
    for kind in sorted(_errors(row, operation), key=lambda kind: (problems.status_of(kind), kind.code)):
        status = str(problems.status_of(kind).value)
        words = problems.TITLES[kind.code]
        if status in found:
            words = f"{found[status]['description']}; or: {words[0].lower()}{words[1:]}"
        schema = {"$ref": _REF.format(model="Problem")}
        found[status] = {"description": words, "content": {problems.MEDIA_TYPE: {"schema": schema}}}
    return found


def _errors(row: Row, operation: Operation) -> set[type[ShipwayError]]:
    found = {*operation.errors, problems.Internal, Unauthenticated}
    if row.policy not in (Policy.PUBLIC, Policy.SETUP, Policy.READ):
        found.add(Forbidden)
    if "{" in row.path or row.policy is Policy.SETUP:
        found.add(NotFound)
    if operation.body is not None:
        found |= {Invalid, TooLarge}
    if "POST" in row.methods and operation.body is None:
        found.add(Conflict)
    return found


def _schemas(operations: Iterable[Operation]) -> dict[str, Any]:
    serialized: JsonSchemaMode = "serialization"
    models: dict[str, type[BaseModel]] = {Problem.__name__: Problem}
    for operation in operations:
        for model in (operation.answer, operation.body):
            if model is not None:
                assert models.setdefault(model.__name__, model) is model, f"two schemas {model.__name__}"
    _, found = models_json_schema([(model, serialized) for model in models.values()], ref_template=_REF)
    schemas: dict[str, Any] = found["$defs"]
    return schemas

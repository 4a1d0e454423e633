"""Secrets and variables for programs: the same as their page, as JSON. No answer holds a secret's value."""

from __future__ import annotations

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from ci.errors import Conflict, Invalid, NotFound
from ci.server.models import PlainVariable, Secret
from ci.server.store import secrets as rows
from ci.server.store import variables
from web.guard import Call
from web.openapi import Operation, describe
from web.secret_pages import filters_of, scope_of, text_of

_SECRET = {"secret": "the name, in capitals or small letters"}
_VARIABLE = {"variable": "the name; letter case counts"}


class SecretBody(BaseModel):
    """Empty lists forbid nothing."""

    value: str | None = Field(default=None, description="left out: the value stays")
    events: list[str] = []
    images: list[str] = []
    steps: list[str] = []


class SecretFacts(BaseModel):
    name: str
    events: list[str]
    images: list[str]
    steps: list[str]
    is_weak: bool = Field(description="too short or too common to protect much")
    created_at: float = Field(description="seconds since 1970 (UTC)")
    changed_at: float
    changed_by: str
    used_at: float | None
    used_in: str = Field(description="path of the build that used it last: owner/name/12")


class StoredSecret(SecretFacts):
    warning: str = Field(description="why the value is weak, or nothing")


class SecretList(BaseModel):
    secrets: list[SecretFacts]


class VariableBody(BaseModel):
    value: str


class VariableFacts(BaseModel):
    name: str
    value: str
    changed_at: float = Field(description="seconds since 1970 (UTC)")
    changed_by: str


class VariableList(BaseModel):
    variables: list[VariableFacts]


@describe(Operation(summary="The secrets of a place, without their values", answer=SecretList))
async def secrets(call: Call) -> Response:
    place = scope_of(call).place
    found = await call.parts.store.read(lambda c: rows.at(c, place))
    return JSONResponse(SecretList(secrets=[_secret(row) for row in found]).model_dump())


@describe(
    Operation(
        summary="Set a secret, or set it anew; without a value only who may read it",
        answer=StoredSecret,
        body=SecretBody,
        path=_SECRET,
        errors=(Invalid, NotFound, Conflict),
    )
)
async def put_secret(call: Call) -> Response:
    place, name = scope_of(call).place, call.path("secret").lower()
    value = text_of(call) if "value" in call.form else None
    warning = await call.parts.secrets.put(place, name, value, filters_of(call), call.actor)
    row = await call.parts.store.read(lambda c: rows.find(c, place, name))
    if row is None:
        raise NotFound(f"the secret {name!r} was removed in this moment")
    return JSONResponse(StoredSecret(**_secret(row).model_dump(), warning=warning).model_dump())


@describe(Operation(summary="Remove a secret", answer=None, status=204, path=_SECRET, errors=(NotFound,)))
async def remove_secret(call: Call) -> Response:
    await call.parts.secrets.remove(scope_of(call).place, call.path("secret"), call.actor)
    return Response(status_code=204)


def _secret(row: Secret) -> SecretFacts:
    return SecretFacts.model_validate(row, from_attributes=True)


@describe(Operation(summary="The variables of a place", answer=VariableList))
async def variables_of(call: Call) -> Response:
    place = scope_of(call).place
    found = await call.parts.store.read(lambda c: variables.at(c, place))
    return JSONResponse(VariableList(variables=[_variable(row) for row in found]).model_dump())


@describe(
    Operation(
        summary="Set a variable, or set it anew",
        answer=VariableFacts,
        body=VariableBody,
        path=_VARIABLE,
        errors=(Invalid, Conflict),
    )
)
async def put_variable(call: Call) -> Response:
    if "value" not in call.form:
        raise Invalid("value is missing")
    scope, name = scope_of(call), call.path("variable")
    row = await call.parts.variables.put(scope.place, name, text_of(call), call.actor)
    return JSONResponse(_variable(row).model_dump())


@describe(Operation(summary="Remove a variable", answer=None, status=204, path=_VARIABLE, errors=(NotFound,)))
async def remove_variable(call: Call) -> Response:
    await call.parts.variables.remove(scope_of(call).place, call.path("variable"), call.actor)
    return Response(status_code=204)


def _variable(row: PlainVariable) -> VariableFacts:
    return VariableFacts.model_validate(row, from_attributes=True)

"""JSON Schema of the language, for editors. Made of the one schema, as the documentation is."""

from __future__ import annotations

import json
from typing import Any

from ci.pipeline import schema
from ci.pipeline.schema import Key, Section, Shape

_URL = "https://json-schema.org/draft/2020-12/schema"
_TEXT: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_NUMBER = {"type": ["integer", "string"]}
_SECRET = {
    "type": "object",
    "properties": {"from_secret": {"type": "string"}},
    "required": ["from_secret"],
    "additionalProperties": False,
}
_LISTS = {"type": "object", "additionalProperties": _TEXTS}
_FILTER = {
    "anyOf": [
        *_TEXTS["anyOf"],
        {
            "type": "object",
            "properties": {"include": _TEXTS, "exclude": _TEXTS},
            "additionalProperties": False,
        },
    ]
}
_ANYTHING: dict[str, Any] = {}


def document() -> dict[str, Any]:
    """The schema of a `.ci.yml`."""
    return {
        "$schema": _URL,
        "title": "A Shipway pipeline",
        **_object(schema.PIPELINE),
        "$defs": {name_of(section): _object(section) for section in schema.SECTIONS},
    }


def command() -> int:
    """Print the JSON Schema of pipeline files, for editors."""
    print(json.dumps(document(), indent=2))
    return 0


def name_of(section: Section) -> str:
    return section.title.removeprefix("a ").removeprefix("an ").removeprefix("the ").replace(" ", "_")


def _ref(section: Section) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name_of(section)}"}


def _object(section: Section) -> dict[str, Any]:
    required = [key.name for key in section.ready if key.is_required]
    return {
        "type": "object",
        "properties": {key.name: _key(section, key) for key in section.ready},
        "patternProperties": {"^x-": _ANYTHING},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _key(section: Section, key: Key) -> dict[str, Any]:
    found = _shape(section, key)
    return {"description": key.meaning, **({"deprecated": True} if key.instead else {}), **found}


def _shape(section: Section, key: Key) -> dict[str, Any]:
    simple = _SIMPLE.get(key.shape)
    if simple is not None:
        return simple
    match key.shape:
        case Shape.WORD:
            return {"enum": list(key.words)} if key.words else _TEXT
        case Shape.WORDS | Shape.EVENTS:
            word = {"enum": list(key.words)} if key.words else _TEXT
            either = [word, {"type": "array", "items": word}]
            if key.shape is Shape.EVENTS:
                either.append({"type": "object"})
            return {"anyOf": either}
        case Shape.PULL:
            return {"enum": [True, False, *key.words]}
        case Shape.CONTAINERS:
            one = _ref(schema.SERVICE if key.name == "services" else schema.STEP)
            return _list_or_map(one)
        case Shape.WHEN:
            one = _ref(schema.CONDITION)
            return {"anyOf": [one, {"type": "array", "items": one}]}
        case Shape.INPUTS:
            one = {"anyOf": [_TEXT, {"type": "null"}, _ref(schema.INPUT)]}
            return {"type": "object", "additionalProperties": one}
        case Shape.CLONE:
            return {"anyOf": [_ref(schema.CLONE), *_list_or_map(_ref(schema.STEP))["anyOf"]]}
        case _:
            return _with_map(key.shape)


def _list_or_map(one: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "array", "items": one}, {"type": "object", "additionalProperties": one}]}


def _with_map(shape: Shape) -> dict[str, Any]:
    """A short form, or the map of a section."""
    section = _MAPS.get(shape)
    if shape is Shape.INCLUDES:
        one = [_TEXT, _ref(schema.INCLUDE)]
        return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}]}
    return {"anyOf": [_TEXT, _ref(section)]} if section else _ANYTHING


_SIMPLE: dict[Shape, dict[str, Any]] = {
    Shape.TEXT: _TEXT,
    Shape.TEXTS: _TEXTS,
    Shape.FLAG: {"type": "boolean"},
    Shape.NUMBER: _NUMBER,
    Shape.NUMBERS: {"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER}]},
    Shape.AMOUNT: {"type": ["number", "string"]},
    Shape.SIZE: {"type": ["integer", "string"]},
    Shape.DURATION: {"type": ["integer", "string"]},
    Shape.VARIABLES: {
        "anyOf": [
            {"type": "object", "additionalProperties": {"anyOf": [_TEXT, {"type": "null"}, _SECRET, {}]}},
            {"type": "array", "items": {"type": "string"}},
        ]
    },
    Shape.TEXT_MAP: {"type": "object", "additionalProperties": _TEXT},
    Shape.TEXTS_MAP: _LISTS,
    Shape.PATTERNS: _FILTER,
    Shape.AXES: {"type": "object"},
    Shape.ROWS: {"type": "array", "items": {"type": "object"}},
    Shape.SETTINGS: {"type": "object"},
    Shape.NEEDS: {
        "anyOf": [
            _TEXT,
            {
                "type": "array",
                "items": {
                    "anyOf": [
                        _TEXT,
                        {
                            "type": "object",
                            "properties": {"name": _TEXT, "optional": {"type": "boolean"}},
                            "required": ["name"],
                        },
                    ]
                },
            },
        ]
    },
    Shape.DEVICES: _TEXTS,
}
_MAPS: dict[Shape, Section] = {
    Shape.RETRY: schema.RETRY,
    Shape.READY: schema.READY,
    Shape.WORKSPACE: schema.WORKSPACE,
    Shape.CONCURRENCY: schema.CONCURRENCY,
}

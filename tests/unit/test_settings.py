"""The settings of a plugin: how each kind of value reaches its image."""

from __future__ import annotations

import json

import pytest

from ci.settings import plugin_variables, secret_names

SETTINGS = {
    "repo": "ada/app",
    "dry-run": True,
    "tries": 3,
    "ratio": 0.5,
    "nothing": None,
    "tags": ["latest", 1, False],
    "empty": [],
    "blank": "",
    "ssl.verify": False,
    "gaps": ["a", None, ""],
    "password": {"from_secret": "registry"},
    "api-key": {"from_secret": "key"},
    "users": ["ada", {"from_secret": "second"}],
    "deep": {"a": [1, {"key": {"from_secret": "key"}}], "b": "\u00fc"},
}
SECRETS = {"registry": "s3cret", "second": "bob", "key": 'a "quoted" one'}


def test_every_kind_of_value_has_its_encoding() -> None:
    made = plugin_variables(SETTINGS, SECRETS)
    deep = made.pop("PLUGIN_DEEP")
    assert made == {
        "PLUGIN_REPO": "ada/app",
        "PLUGIN_DRY_RUN": "true",
        "PLUGIN_DRY-RUN": "true",
        "PLUGIN_TRIES": "3",
        "PLUGIN_RATIO": "0.5",
        "PLUGIN_TAGS": "latest,1,false",
        "PLUGIN_EMPTY": "",
        "PLUGIN_BLANK": "",
        "PLUGIN_SSL_VERIFY": "false",
        "PLUGIN_SSL.VERIFY": "false",
        "PLUGIN_GAPS": "a,,",
        "PLUGIN_PASSWORD": "s3cret",
        "PLUGIN_API_KEY": 'a "quoted" one',
        "PLUGIN_USERS": "ada,bob",
    }
    assert json.loads(deep) == {"a": [1, {"key": 'a "quoted" one'}], "b": "\u00fc"}


def test_the_secrets_that_settings_name_are_found_at_any_depth() -> None:
    assert list(secret_names(SETTINGS)) == ["registry", "key", "second", "key"]


def test_a_secret_that_is_not_there_is_never_an_empty_value() -> None:
    with pytest.raises(KeyError):
        plugin_variables({"password": {"from_secret": "gone"}}, {})

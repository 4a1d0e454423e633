"""Logins of registries in a Docker config.json."""

from __future__ import annotations

import json

import pytest

from ci import registries
from ci.errors import Invalid
from ci.registries import Login

ADA = Login(user="ada", password="pa:ss")
AUTH = {"auth": "YWRhOnBhOnNz"}


@pytest.mark.parametrize(
    ("entries", "image"),
    [
        ({"https://index.docker.io/v1/": AUTH}, "docker.io/library/busybox:1"),
        ({"docker.io": AUTH}, "docker.io/ada/private:1"),
        ({"registry.example:5000": AUTH}, "registry.example:5000/a/b:1"),
        ({"https://registry.example/v2/": AUTH}, "registry.example/a:1"),
        ({"registry.example": {"username": "ada", "password": "pa:ss"}}, "registry.example/a:1"),
    ],
)
def test_a_login_is_found_by_the_host_of_the_image(entries: dict[str, object], image: str) -> None:
    for text in (json.dumps({"auths": entries, "credsStore": "x"}), json.dumps(entries)):
        assert registries.login_of(image, registries.logins(text)) == ADA
    assert registries.login_of("other.example/a:1", registries.logins(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cr3t",
        "[]",
        "{}",
        '{"auths": {}}',
        '{"auths": {"a": "s3cr3t"}}',
        '{"auths": {"a": {"auth": "s3cr3t"}}}',
        '{"auths": {"a": {"username": "s3cr3t"}}}',
    ],
)
def test_what_is_no_login_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(Invalid) as error:
        registries.logins(text)
    assert "s3cr3t" not in str(error.value)
    assert "s3cr3t" not in repr(Login(user="a", password="s3cr3t"))

"""What a person means by a repo or a build."""

from __future__ import annotations

import pytest

from ci.client import place
from ci.client.http import Api
from ci.client.servers import Account, clean_url
from ci.errors import Invalid

SERVER = "https://ci.example.org"


@pytest.mark.parametrize(
    ("remote", "path"),
    [
        ("https://ci.example.org/git/team/app.git", "team/app"),
        ("https://ada:t0ken@ci.example.org/git/team/app", "team/app"),
        ("git@github.com:team/app.git", "team/app"),
        ("ssh://git@git.example.org:2222/team/app.git", "team/app"),
        ("git@git.example.org:group/below/app.git", "below/app"),
        ("/srv/git/team/app.git", "team/app"),
        ("app.git", None),
        ("", None),
    ],
)
def test_a_remote_names_the_repo_by_the_last_two_parts_of_its_path(remote: str, path: str | None) -> None:
    found = place.of_remote(remote)
    assert (None if found is None else str(found)) == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("team/app/12", "team/app/12"),
        ("team/app#12", "team/app/12"),
        ("https://ci.example.org/r/team/app/12", "team/app/12"),
        ("https://ci.example.org/r/team/app/12/ci/test?attempt=2#L7", "team/app/12"),
    ],
)
def test_a_build_is_a_path_or_the_link_of_a_page(text: str, path: str) -> None:
    with Api(Account(url=SERVER)) as api:
        assert str(place.build(text, api)) == path


@pytest.mark.parametrize("text", ["team", "a/b/c/d", "team/app/x", "a b/c"])
def test_what_is_no_build_is_said_before_anything_is_asked(text: str) -> None:
    with Api(Account(url=SERVER)) as api, pytest.raises(Invalid, match="is no build: give OWNER/NAME/NUMBER"):
        place.build(text, api)


def test_names_of_any_kind_stand_safely_in_an_address() -> None:
    path = place.BuildPath(repo=place.RepoPath(owner="a?b", name="ü"), number=1)
    assert path.api == "/api/repos/a%3Fb/%C3%BC/builds/1"
    assert path.log("../x", "a/b") == "/r/a%3Fb/%C3%BC/1/..%2Fx/a%2Fb/raw"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ci.example.org", "https://ci.example.org"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000/", "http://localhost:8000"),
        ("HTTPS://CI.example.org/", "https://ci.example.org"),
    ],
)
def test_an_address_of_a_server_is_kept_in_one_form(text: str, url: str) -> None:
    assert clean_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["ftp://x", "https://", "https://ada:secret@ci.example.org", "https://ci.example.org/?a=1", "http://a:b"],
)
def test_what_is_no_address_is_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        clean_url(text)
    assert "secret" not in str(refused.value)

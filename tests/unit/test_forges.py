"""Both forges on real repositories: what is read, what is refused, what is fetched."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ci.errors import Forbidden, Invalid, Unavailable
from ci.event import Event, Kind
from ci.server.forges import git
from ci.server.forges.address import Addresses
from ci.server.forges.bare import BUILD_REFS, Bare, GitFailed, is_ref_name, is_sha
from ci.server.forges.base import Push, Update, parse_push
from ci.server.forges.builtin import Builtin
from ci.server.forges.config_files import MAX_CONFIG_BYTES
from ci.server.forges.git import PlainGit
from ci.server.models import Repo
from tests.unit.gitting import CONFIG, ZERO, Work

REPO = Repo(id=1, forge="builtin", forge_key="k", owner="ada", name="app", clone_url="", created_at=1.0)
A, B = "a" * 40, "b" * 40


@pytest.fixture
async def builtin(tmp_path: Path) -> Builtin:
    forge = Builtin(tmp_path / "git", "http://ci.test")
    await forge.create(1)
    return forge


@pytest.fixture
def work(builtin: Builtin, tmp_path: Path) -> Work:
    return Work(tmp_path / "work", builtin.path(1))


def push_of(update: Update) -> Push:
    return Push(push_id="p", refs=(update,), pusher="bob")


# --- the built-in git ---------------------------------------------------------------------------------


async def test_a_repository_is_made_once_and_bare(builtin: Builtin) -> None:
    path = await builtin.create(1)
    assert (path / "HEAD").exists()
    assert [each.name for each in path.parent.iterdir()] == ["1.git"]
    assert builtin.clone_url(REPO) == "http://ci.test/git/ada/app.git"


async def test_head_follows_the_first_pushed_branch_and_stays(builtin: Builtin, work: Work) -> None:
    bare = builtin.bare(1)
    work.commit_files({"a": "1"})
    work.git("push", "-q", "origin", "HEAD:refs/heads/trunk", "HEAD:refs/heads/other")
    assert await bare.follow_head(["refs/heads/trunk", "refs/heads/other"]) == "refs/heads/trunk"
    assert await bare.follow_head(["refs/heads/other"]) is None
    cloned = work.path.parent / "clone"
    subprocess.run(("git", "clone", "-q", str(bare.path), str(cloned)), check=True)
    assert (cloned / "a").read_text() == "1"


async def test_a_commit_of_any_bytes_is_text(builtin: Builtin, work: Work) -> None:
    sha = work.commit_files({}, b"t\xc3\xa4st \x1b[31m\xff\n\nbody <script>\n")
    work.git("push", "-q", "origin", "main")
    commit = await builtin.bare(1).commit(sha)
    assert commit.message.startswith("täst \x1b[31m")
    assert commit.message.endswith("body <script>")
    assert (commit.author, commit.author_email, commit.timestamp_seconds > 0) == (
        "Ada",
        "ada@example.com",
        True,
    )


async def test_a_push_is_an_event_with_its_changed_files(builtin: Builtin, work: Work) -> None:
    first = work.commit_files({"a": "1", "dir/b ü\n.txt": "1"})
    second = work.commit_files({"a": "2"}, "change a\n\nmore")
    work.git("push", "-q", "origin", "main")
    update = Update(ref="refs/heads/main", before=first, after=second)
    event = await builtin.event_of(REPO, push_of(update), update)
    assert isinstance(event, Event)
    assert (event.kind, event.branch, event.title, event.sender) == (Kind.PUSH, "main", "change a", "bob")
    assert event.changed_files == ("a",)
    new = Update(ref="refs/heads/main", after=second)
    event = await builtin.event_of(REPO, push_of(new), new)
    assert isinstance(event, Event) and event.changed_files is None


async def test_an_annotated_tag_is_the_commit_behind_it(builtin: Builtin, work: Work) -> None:
    sha = work.commit_files({"a": "1"})
    work.git("tag", "-a", "v1", "-m", "one")
    work.git("push", "-q", "origin", "v1")
    update = Update(ref="refs/tags/v1", after=work.sha("v1"))
    event = await builtin.event_of(REPO, push_of(update), update)
    assert isinstance(event, Event)
    assert (event.kind, event.tag, event.after, event.branch) == (Kind.TAG, "v1", sha, "")


async def test_what_is_no_event_has_a_sentence(builtin: Builtin, work: Work) -> None:
    work.commit_files({"a": "1"})
    work.git("tag", "tree", work.sha("HEAD^{tree}"))
    work.git("push", "-q", "origin", "main", "tree", "HEAD:refs/notes/x")
    for ref, after, says in (
        ("refs/heads/main", ZERO, "branch main was deleted"),
        ("refs/notes/x", work.sha(), "neither a branch nor a tag"),
        ("refs/tags/tree", work.sha("tree"), "does not point to a commit"),
        ("refs/heads/\ufffd", work.sha(), "not UTF-8"),
    ):
        update = Update(ref=ref, after=after)
        said = await builtin.event_of(REPO, push_of(update), update)
        assert isinstance(said, str) and says in said


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"a": "1"}, []),
        ({".ci.yml": "x"}, [".ci.yml"]),
        ({".ci.yaml": "x"}, [".ci.yaml"]),
        ({".ci.yml": "x", ".ci.yaml": "x", ".ci/a.yml": "x"}, [".ci.yml"]),
        (
            {".ci/b.yaml": "x", ".ci/a.yml": "x", ".ci/c.txt": "x", ".ci/d/e.yml": "x"},
            [".ci/a.yml", ".ci/b.yaml"],
        ),
        ({"dir/.ci.yml": "x"}, []),
    ],
)
async def test_the_first_pipeline_file_that_exists_wins(
    builtin: Builtin, work: Work, files: dict[str, str | bytes], found: list[str]
) -> None:
    sha = work.commit_files(files)
    work.git("push", "-q", "origin", "main")
    assert list(await builtin.bare(1).config_files(sha)) == found


async def test_a_link_in_place_of_a_pipeline_file_is_not_followed(builtin: Builtin, work: Work) -> None:
    (work.path / ".ci.yml").symlink_to("/etc/passwd")
    sha = work.commit_files({"a": "1"})
    work.git("push", "-q", "origin", "main")
    with pytest.raises(Invalid, match=r"\.ci\.yml is a link"):
        await builtin.bare(1).config_files(sha)


async def test_a_pipeline_file_whose_name_is_no_text_is_read_all_the_same(
    builtin: Builtin, work: Work
) -> None:
    folder = work.path / ".ci"
    folder.mkdir()
    Path(os.fsdecode(bytes(folder) + b"/\xff.yml")).write_text("steps: {}")
    sha = work.commit_files({"a": "1"})
    work.git("push", "-q", "origin", "main")
    assert await builtin.bare(1).config_files(sha) == {".ci/\ufffd.yml": "steps: {}"}


async def test_a_pipeline_file_that_is_no_text_or_too_big_is_named(builtin: Builtin, work: Work) -> None:
    binary = work.commit_files({".ci.yml": b"a: \xff"})
    big = work.commit_files({".ci.yml": b"x" * (MAX_CONFIG_BYTES + 1)})
    work.git("rm", "-q", ".ci.yml")
    many = work.commit_files({f".ci/{number}.yml": b"x" for number in range(101)})
    work.git("push", "-q", "origin", "main")
    for sha, says in ((binary, "byte 3 is 0xff"), (big, "1,048,577 bytes"), (many, "101 pipeline files")):
        with pytest.raises(Invalid, match=says):
            await builtin.bare(1).config_files(sha)


async def test_our_own_refs_are_hidden_and_hold_a_commit_after_a_force_push(
    builtin: Builtin, work: Work
) -> None:
    bare = builtin.bare(1)
    lost = work.commit_files({"a": "1"})
    work.git("push", "-q", "origin", "main")
    await builtin.keep(REPO, 1, lost)
    work.git("commit", "-q", "--amend", "-m", "other")
    work.git("push", "-q", "-f", "origin", "main")
    await bare.git("reflog", "expire", "--expire=now", "--all")
    await bare.git("gc", "--quiet", "--prune=now")
    assert await bare.commit_of(lost) == lost
    assert "shipway" not in work.git("ls-remote", "origin")
    assert list(await bare.refs()) == ["refs/heads/main"]
    work.git("push", "-q", "origin", f"HEAD:{BUILD_REFS}/9", check=False)
    assert await bare.ref(f"{BUILD_REFS}/9") is None
    fresh = Work(work.path.parent / "fresh", bare.path)
    fresh.git("fetch", "-q", "--depth=1", "origin", lost)
    assert fresh.sha("FETCH_HEAD") == lost


async def test_where_a_ref_has_been_is_known_after_it_moved_on(builtin: Builtin, work: Work) -> None:
    bare = builtin.bare(1)
    shas = []
    for number in range(3):
        shas.append(work.commit_files({"a": str(number)}))
        work.git("push", "-q", "origin", "main")
    ref = "refs/heads/main"
    assert await bare.has_moved(ref, shas[0], shas[1])
    assert await bare.has_moved(ref, shas[1], shas[2])
    assert not await bare.has_moved(ref, shas[0], A)
    assert not await bare.has_moved("refs/heads/none", ZERO, A)
    work.git("push", "-q", "origin", ":main")
    assert await bare.has_moved(ref, shas[2], ZERO)


@pytest.mark.parametrize(
    "ref",
    [
        "main",
        "refs/heads/a..b",
        "refs/heads/a b",
        "refs/heads/a@{1}",
        "refs/heads/a^",
        "refs/heads/x.lock",
        "refs/heads/\n",
        "refs/heads/",
        "-x",
    ],
)
async def test_a_name_that_git_would_read_as_more_is_no_ref(builtin: Builtin, ref: str) -> None:
    assert not is_ref_name(ref)
    assert await builtin.bare(1).ref(ref) is None


async def test_an_id_is_hexadecimal_and_whole(builtin: Builtin) -> None:
    assert is_sha(A) and is_sha("a" * 64)
    for text in ("", "a" * 39, "A" * 40, "-" * 40, A + "\n"):
        assert not is_sha(text)
        with pytest.raises(Invalid):
            await builtin.bare(1).commit_of(text)


async def test_a_git_that_fails_says_why(builtin: Builtin) -> None:
    with pytest.raises(GitFailed, match="unknown-thing"):
        await builtin.bare(1).git("rev-parse", "unknown-thing", "--")


# --- the payload ----------------------------------------------------------------------------------------


def test_a_payload_of_one_ref_and_one_of_many_are_the_same_push() -> None:
    ref = {"ref": "refs/heads/main", "before": A, "after": B}
    one = parse_push(json.dumps({"push_id": "p", "pusher": "x", **ref}).encode())
    many = parse_push(json.dumps({"push_id": "p", "pusher": "x", "refs": [ref]}).encode())
    assert one == many
    assert one.refs == (Update(ref="refs/heads/main", before=A, after=B),)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "this is no push"),
        (b"{}", "push_id"),
        (b'{"push_id": "p", "refs": []}', "refs"),
        (b'{"push_id": "", "refs": [{}]}', "push_id"),
        (b'{"push_id": "p", "ref": "main", "after": "%s"}' % A.encode(), "no full ref name"),
        (b'{"push_id": "p", "ref": "refs/heads/a", "after": "HEAD"}', "no commit id"),
        (b'{"push_id": "p", "ref": "refs/heads/a"}', "refs.0.after"),
    ],
)
def test_what_is_no_push_is_refused_with_the_place(body: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_push(body)


def test_a_signature_is_of_these_bytes_under_this_secret() -> None:
    signed = git.signature(b"body", b"secret")
    assert git.is_signed(b"body", signed, [b"secret"])
    for body, header, secret in (
        (b"bodY", signed, b"secret"),
        (b"body", signed, b"other"),
        (b"body", "", b"secret"),
        (b"body", "sha256=ü", b"secret"),
        (b"body", git.signature(b"body", b""), b""),
    ):
        assert not git.is_signed(body, header, [secret])


# --- a plain repository elsewhere -------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> PlainGit:
    return PlainGit(tmp_path / "cache", protocols=("file",))


def elsewhere(builtin: Builtin) -> Repo:
    url = f"file://{builtin.path(1)}"
    return Repo(id=2, forge="git", forge_key=url, owner="ada", name="far", clone_url=url, created_at=1.0)


async def test_a_commit_elsewhere_is_fetched_and_read(builtin: Builtin, work: Work, plain: PlainGit) -> None:
    repo = elsewhere(builtin)
    first = work.commit_files({".ci.yml": CONFIG, "a": "1"})
    second = work.commit_files({"a": "2"}, "second")
    work.git("push", "-q", "origin", "main")
    update = Update(ref="refs/heads/main", before=first, after=second)
    event = await plain.event_of(repo, push_of(update), update)
    assert isinstance(event, Event)
    assert (event.title, event.changed_files) == ("second", ("a",))
    assert await plain.read_config(repo, event) == {".ci.yml": CONFIG}
    assert await plain.ref_stands_at(repo, "refs/heads/main", second)
    assert not await plain.ref_stands_at(repo, "refs/heads/main", first)


async def test_a_commit_that_is_gone_elsewhere_is_unavailable(
    builtin: Builtin, work: Work, plain: PlainGit
) -> None:
    work.commit_files({"a": "1"})
    work.git("push", "-q", "origin", "main")
    update = Update(ref="refs/heads/main", after=A)
    with pytest.raises(Unavailable, match="cannot fetch from"):
        await plain.event_of(elsewhere(builtin), push_of(update), update)


async def test_an_unreachable_repository_is_unavailable_and_a_password_in_its_url_stays_secret(
    tmp_path: Path,
) -> None:
    plain = PlainGit(tmp_path / "cache", addresses=Addresses("127.0.0.1"))
    for url, kind in (
        ("http://127.0.0.1:9/x.git", Unavailable),
        ("http://user:hush@127.0.0.1:9/x.git", Forbidden),
    ):
        repo = Repo(id=3, forge="git", forge_key=url, owner="a", name="b", clone_url=url, created_at=1.0)
        with pytest.raises(kind) as error:
            await plain.ref_stands_at(repo, "refs/heads/main", A)
        assert "hush" not in str(error.value)


async def test_foreign_protocols_are_never_run(builtin: Builtin, work: Work, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for url in (f"ext::sh -c touch% {marker}", f"file://{builtin.path(1)}", str(builtin.path(1))):
        with pytest.raises(Invalid):
            git.check_clone_url(url)
        repo = Repo(id=4, forge="git", forge_key=url, owner="a", name="b", clone_url=url, created_at=1.0)
        with pytest.raises(Unavailable, match="not allowed"):
            await PlainGit(tmp_path / "cache").ref_stands_at(repo, "refs/heads/main", A)
    assert not marker.exists()


@pytest.mark.parametrize("url", ["", "x", "http://", "ssh://h/x", "http://h/a b", "http://[", "-oProxy=x"])
def test_a_clone_url_is_http_with_a_host(url: str) -> None:
    with pytest.raises(Invalid):
        git.check_clone_url(url)
    assert git.check_clone_url("https://example.com/a.git")


@pytest.mark.parametrize("url", ["http://user:hush@h/x.git", "https://token@h/x.git"])
def test_a_clone_url_holds_no_credential_that_every_step_would_read(url: str) -> None:
    with pytest.raises(Invalid, match="holds no user and no password") as error:
        git.check_clone_url(url)
    assert "hush" not in str(error.value)


async def test_local_git_commands_reach_no_network(builtin: Builtin) -> None:
    with pytest.raises(GitFailed, match="not allowed"):
        await Bare(builtin.path(1)).git("ls-remote", "http://127.0.0.1:9/x")

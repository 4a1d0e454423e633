"""`shipway repo`: the repos of a server, their settings, what opens them, and who may what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client import place, typed
from ci.client.command import Answer, facts, said, speaks, table
from ci.client.http import Api, segment
from ci.client.options import RepoArgument, RepoOption, YesOption, group, pairs
from ci.client.output import ago, status
from ci.client.place import RepoPath
from ci.errors import Invalid

repo = group("Repos of a server: list, look at, add, switch on and off, remove, change.")
hook = group("Hooks: where a forge sends what happens, and their secrets.")
member = group("Members: who may what in the repo.")
repo.add_typer(hook, name="hook")
repo.add_typer(member, name="member")

GITHUB = "github"
KINDS = ("token", "password")
_PATH = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its path on the server.")]
_KIND = Annotated[str, typer.Option(help="What opens it, from standard input: token or password.")]
_USER = Annotated[str, typer.Option(help="With a password: whose.")]


@repo.command("ls")
@speaks
def list_repos(api: Api) -> Answer:
    """The repos that you may see."""
    found = api.get("/api/repos")
    columns = ("REPO", "FORGE", "SEEN BY", "LAST", "WHEN", "WHAT")
    empty = "no repo yet: `shipway repo add OWNER/NAME --clone-url URL`, or push one"
    return table(found, columns, map(_row, found["repos"]), empty=empty)


def _row(each: dict[str, Any]) -> tuple[Any, ...]:
    last = each["last_build"]
    return (
        each["repo"],
        each["forge"],
        "private" if each["is_private"] else "public",
        status(last["status"]) if last else "",
        ago(last["created_at"]) if last else "",
        last["event"]["title"] if last else "",
    )


@repo.command()
@speaks
def show(api: Api, repo: RepoArgument = "") -> Answer:
    """One repo."""
    found = api.get(place.repo(repo, api.account.url).api)
    last = found["last_build"]
    return facts(
        found,
        [
            ("repo", found["repo"]),
            ("forge", found["forge"]),
            ("seen by", "those who may" if found["is_private"] else "everybody"),
            ("default branch", found["default_branch"]),
            ("branches", ", ".join(found["branches"])),
            (
                "last build",
                f"{last['number']} {last['status']} {ago(last['created_at'])}" if last else "none",
            ),
            ("link", found["url"]),
        ],
    )


@repo.command()
@speaks
def add(  # noqa: PLR0913 - each is an option of the command line
    api: Api,
    path: _PATH,
    forge: Annotated[
        str, typer.Option(help="builtin, github or git; left out: git with --clone-url, else builtin.")
    ] = "",
    clone_url: Annotated[str, typer.Option(help="Of git: where it is fetched from, http or https.")] = "",
    api_url: Annotated[str, typer.Option(help="Of github: where its API is; left out: github.com's.")] = "",
    kind: _KIND = "",
    user: _USER = "",
    public: Annotated[bool, typer.Option("--public", help="Of builtin: everybody sees it.")] = False,
) -> Answer:
    """Add a repo; prints its webhook and the secret, once.

    Of GitHub, a token that may read it is asked for, or read from standard input; of git with --kind, the
    token or the password is.
    """
    body: dict[str, Any] = {
        "path": str(place.repo(path, api.account.url)),
        "forge": forge,
        "clone_url": clone_url,
        "api_url": api_url,
        "is_private": not public,
    }
    if forge == GITHUB:
        body["token"] = typed.line(f"Token of GitHub for {path}: ", "a token of GitHub")
    if kind:
        body |= _credential(kind, user)
    found = api.post("/api/repos", body)
    return facts(found, [("repo", found["repo"]), ("hook", found["hook"]), ("secret", found["secret"])])


def _credential(kind: str, user: str) -> dict[str, str]:
    if kind not in KINDS:
        raise Invalid(f"--kind is {' or '.join(KINDS)}, not {kind!r}")
    return {"kind": kind, "user": user, "value": typed.line(f"The {kind}: ", f"the {kind}")}


@repo.command()
@speaks
def credential(
    api: Api,
    repo: RepoArgument = "",
    kind: _KIND = "",
    user: _USER = "",
    none: Annotated[bool, typer.Option("--none", help="Take it away: the repo is public.")] = False,
) -> Answer:
    """Set what opens the repo at its forge, from standard input. It is never shown again."""
    where = place.repo(repo, api.account.url)
    if bool(kind) == none:
        raise Invalid("give --kind token, --kind password, or --none to take it away")
    body = {"kind": ""} if none else _credential(kind, user)
    found = api.post(f"{where.api}/credential", body)
    return said(found, f"nothing opens {where} any more" if none else f"the {kind} opens {where} now")


@repo.command()
@speaks
def enable(api: Api, repo: RepoArgument = "") -> Answer:
    """Let its events make builds again."""
    where = place.repo(repo, api.account.url)
    return said(api.post(f"{where.api}/enable"), f"{where} is enabled")


@repo.command()
@speaks
def disable(api: Api, repo: RepoArgument = "") -> Answer:
    """Keep its deliveries, but build nothing."""
    where = place.repo(repo, api.account.url)
    return said(api.post(f"{where.api}/disable"), f"{where} is disabled")


@repo.command()
@speaks
def settings(
    api: Api,
    repo: RepoArgument = "",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; may be repeated."),
    ] = None,
) -> Answer:
    """What an administrator has set for a repo; --set changes it."""
    where = place.repo(repo, api.account.url)
    given = {name.replace("-", "_"): value for name, value in pairs("--set", change).items()}
    found = api.post(f"{where.api}/settings", given) if given else api.get(f"{where.api}/settings")
    return facts(found, [(name, _shown(value)) for name, value in found.items()])


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@repo.command("rm")
@speaks
def remove(api: Api, path: _PATH, yes: YesOption = False) -> Answer:
    """Delete a repo with its builds, logs, secrets and schedules; what runs is cancelled first."""
    where = place.repo(path, api.account.url)
    typed.confirm(f"Delete {where} with all that is its? Nothing brings it back", is_sure=yes)
    return said(api.post(f"{where.api}/delete", {"path": str(where)}), f"{where} is deleted")


# --- hooks -----------------------------------------------------------------------------------------


@hook.command("ls")
@speaks
def list_hooks(api: Api, repo: RepoArgument = "") -> Answer:
    """Where its deliveries go, and why the last one that was refused was."""
    found = api.get(f"{place.repo(repo, api.account.url).api}/hooks")
    rows = [
        (
            each["hook"],
            each["forge"],
            ago(each["old_secret_until"]),
            ago(each["last_refused_at"]) or "never",
            each["last_refusal"],
        )
        for each in found["hooks"]
    ]
    columns = ("HOOK", "FORGE", "OLD SECRET ENDS", "REFUSED", "WHY")
    empty = "it has no hook: a push to the built-in git needs none"
    return table(found, columns, rows, empty=empty, is_last_below=True)


@hook.command()
@speaks
def rotate(
    api: Api,
    repo: RepoArgument = "",
    hook: Annotated[str, typer.Option(help="Its id, as its address ends; left out: the only one.")] = "",
) -> Answer:
    """A new secret for its hook, printed once; the one before signs for 24 hours more."""
    where = place.repo(repo, api.account.url)
    found = api.post(f"{where.api}/hooks/{segment(hook or _only_hook(api, where))}/rotate")
    return facts(found, [("hook", found["hook"]), ("secret", found["secret"])])


def _only_hook(api: Api, where: RepoPath) -> str:
    hooks = [str(each["id"]) for each in api.get(f"{where.api}/hooks")["hooks"]]
    if len(hooks) != 1:
        raise Invalid(f"{where} has {len(hooks)} hooks: give --hook, one of {', '.join(hooks) or 'none'}")
    return hooks[0]


# --- members ---------------------------------------------------------------------------------------

_WHO = Annotated[str, typer.Argument(metavar="PERSON", help="The name of the account.")]


@member.command("ls")
@speaks
def list_members(api: Api, repo: RepoArgument = "") -> Answer:
    """Who may do what in the repo, and why."""
    found = api.get(f"{place.repo(repo, api.account.url).api}/members")
    rows = [
        (each["name"], each["role"], ago(each["since"]), each["source"] + ", disabled" * each["is_disabled"])
        for each in found["members"]
    ]
    return table(found, ("PERSON", "ROLE", "SINCE", "BY"), rows, empty="nobody has a role here")


@member.command("set")
@speaks
def set_member(
    api: Api,
    person: _WHO,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="read, write or admin.")],
    repo: RepoOption = "",
) -> Answer:
    """Give somebody a role in the repo."""
    where = place.repo(repo, api.account.url)
    found = api.post(f"{where.api}/members", {"name": person, "role": role})
    return said(found, f"{person} has the role {role} in {where}")


@member.command("rm")
@speaks
def remove_member(api: Api, person: _WHO, repo: RepoOption = "") -> Answer:
    """Take somebody's role away."""
    where = place.repo(repo, api.account.url)
    return said(
        api.post(f"{where.api}/members/{segment(person)}/remove"), f"{person} has no role in {where} any more"
    )

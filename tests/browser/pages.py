"""Every page that a person can open, with something on it and with nothing, for tests that look at all."""

from __future__ import annotations

from ci.server.auth import Actor
from ci.server.store import repos
from ci.server.store.schedules import Plan
from tests.scene import Done, Scene, blocked, fill, with_secrets

#: For somebody who is not signed in.
DOORS = {"sign in": "/sign-in", "sign in, and on": "/sign-in?next=/queue", "join": "/join"}
PAGES = {
    "builds": "/",
    "nothing found": "/?q=nothing-has-this-title",
    "repos": "/repos",
    "repo": "/r/ada/api",
    "inbox": "/r/ada/api/inbox",
    "delivery": "/r/ada/api/inbox/1",
    "add a repo": "/repos/add",
    "add a repo of GitHub": "/repos/add?forge=github",
    "add a repo elsewhere": "/repos/add?forge=git",
    "settings": "/r/ada/lib/settings",
    "hook": "/r/ada/lib/hook",
    "run by hand": "/r/ada/api/run",
    "schedules": "/r/ada/lib/schedules",
    "no schedules": "/r/ada/api/schedules",
    "queue": "/queue",
    "runners": "/runners",
    "no runner expected yet": "/runners?after=99",
    "a runner at work": "/runners/1",
    "a runner that is away": "/runners/3",
    "account": "/account",
    "people": "/admin/people",
    "audit": "/admin/audit",
    "members": "/r/ada/api/members",
    "audit of a repo": "/r/ada/api/audit",
    "secrets": "/r/ada/api/secrets?set=branch",
    "a secret": "/r/ada/api/secrets?edit=deploy_key&variable=LONG",
    "secrets of an owner": "/o/ada/secrets",
    "secrets of the server": "/admin/secrets",
    "no secrets": "/r/ada/worker/secrets",
    "join": "/join",
    "passed": "/r/ada/api/7",
    "failed": "/r/ada/api/8",
    "step": "/r/ada/api/8/ci/test?attempt=1",
    "pending": "/r/ada/api/9",
    "matrix": "/r/ada/api/10",
    "running": "/r/ada/api/11",
    "config": "/r/ada/worker/1",
    "attempts": "/r/ada/worker/2/ci/build?attempt=1",
    "cancelled": "/r/ada/worker/3",
    "unknown": "/r/ada/worker/4",
    "approval": "/r/ada/asked/2",
    "a long reason": "/r/ada/wide/1",
    "missing": "/r/ada/api/999",
    "no such page": "/nothing/here",
}


async def furnish(scene: Scene) -> None:
    """What stands on PAGES."""
    await fill(scene)
    await blocked(scene, await scene.repo("ada", "asked"))
    await with_secrets(scene, 1)
    await lib(scene)
    pulled = Done(name="build", status="error", outcome="image", reason="no such host as this one, " * 20)
    await scene.build(await scene.repo("ada", "wide"), [("ci", [pulled])])


async def lib(scene: Scene) -> tuple[str, str]:
    """A repo elsewhere whose forge refuses us, with a schedule; gives its hook's id and secret."""
    ada = Actor(user_id=1, name="ada")
    added = await scene.repos.add_plain(("ada", "lib"), "https://git.example.com/lib.git", None, ada)
    number = added.repo.id or 0
    sentence = "cannot fetch from https://git.example.com/lib.git: " + "no such host " * 9
    await scene.store.write(lambda c: repos.set_forge_problem(c, number, sentence, scene.clock.now()))
    plan = Plan(name="nightly", cron="30 2 * * *", time_zone="Europe/Berlin", branch="x" * 90)
    await scene.schedules.add(added.repo, plan, ada)
    return added.hook_id, added.secret

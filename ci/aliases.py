"""Aliases: the names under which other servers of this line give the same values. Pure.

Files and plugins of theirs read these names: steps get them beside ours, and `${NAME}` fills them in.
Source: drone_strider.md 1.7. A value that only we can choose stays one that only we can choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ci import versions
from ci.environ import TABLE, Variable

#: Alias -> the variable of ours that has the value.
SAME: Mapping[str, str] = {
    "DRONE_WORKSPACE": "CI_WORKSPACE",
    "DRONE_SYSTEM_HOST": "CI_SYSTEM_HOST",
    "DRONE_SYSTEM_HOSTNAME": "CI_SYSTEM_HOST",
    "DRONE_SYSTEM_VERSION": "CI_SYSTEM_VERSION",
    "DRONE_REPO": "CI_REPO",
    "DRONE_REPO_OWNER": "CI_REPO_OWNER",
    "DRONE_REPO_NAMESPACE": "CI_REPO_OWNER",
    "DRONE_REPO_NAME": "CI_REPO_NAME",
    "DRONE_REPO_LINK": "CI_REPO_URL",
    "DRONE_REPO_BRANCH": "CI_REPO_DEFAULT_BRANCH",
    "DRONE_REPO_PRIVATE": "CI_REPO_PRIVATE",
    "DRONE_REMOTE_URL": "CI_REPO_CLONE_URL",
    "DRONE_GIT_HTTP_URL": "CI_REPO_CLONE_URL",
    "DRONE_GIT_SSH_URL": "CI_REPO_CLONE_SSH_URL",
    "DRONE_BRANCH": "CI_COMMIT_BRANCH",
    "DRONE_SOURCE_BRANCH": "CI_COMMIT_SOURCE_BRANCH",
    "DRONE_TARGET_BRANCH": "CI_COMMIT_TARGET_BRANCH",
    "DRONE_TAG": "CI_COMMIT_TAG",
    "DRONE_PULL_REQUEST": "CI_COMMIT_PULL_REQUEST",
    "DRONE_COMMIT": "CI_COMMIT_SHA",
    "DRONE_COMMIT_SHA": "CI_COMMIT_SHA",
    "DRONE_COMMIT_AFTER": "CI_COMMIT_SHA",
    "DRONE_COMMIT_BEFORE": "CI_PREV_COMMIT_SHA",
    "DRONE_COMMIT_REF": "CI_COMMIT_REF",
    "DRONE_COMMIT_BRANCH": "CI_COMMIT_BRANCH",
    "DRONE_COMMIT_LINK": "CI_PIPELINE_FORGE_URL",
    "DRONE_COMMIT_MESSAGE": "CI_COMMIT_MESSAGE",
    "DRONE_COMMIT_AUTHOR": "CI_COMMIT_AUTHOR",
    "DRONE_COMMIT_AUTHOR_NAME": "CI_COMMIT_AUTHOR",
    "DRONE_COMMIT_AUTHOR_EMAIL": "CI_COMMIT_AUTHOR_EMAIL",
    "DRONE_COMMIT_AUTHOR_AVATAR": "CI_COMMIT_AUTHOR_AVATAR",
    "DRONE_BUILD_NUMBER": "CI_PIPELINE_NUMBER",
    "DRONE_BUILD_PARENT": "CI_PIPELINE_PARENT",
    "DRONE_BUILD_LINK": "CI_PIPELINE_URL",
    "DRONE_BUILD_CREATED": "CI_PIPELINE_CREATED",
    "DRONE_BUILD_STARTED": "CI_PIPELINE_STARTED",
    "DRONE_BUILD_STATUS": "CI_PIPELINE_STATUS",
    "DRONE_STAGE_NAME": "CI_WORKFLOW_NAME",
    "DRONE_STAGE_NUMBER": "CI_WORKFLOW_NUMBER",
    "DRONE_STAGE_MACHINE": "CI_MACHINE",
    "DRONE_STAGE_STARTED": "CI_PIPELINE_STARTED",
    "DRONE_STAGE_STATUS": "CI_PIPELINE_STATUS",
    "DRONE_STEP_NAME": "CI_STEP_NAME",
    "DRONE_STEP_NUMBER": "CI_STEP_NUMBER",
    "DRONE_BUILD_ACTION": "CI_PIPELINE_EVENT_REASON",
    "DRONE_BUILD_TRIGGER": "CI_PIPELINE_AUTHOR",
    "DRONE_DEPLOY_TO": "CI_PIPELINE_DEPLOY_TARGET",
    "CI_REPO_LINK": "CI_REPO_URL",
    "CI_REMOTE_URL": "CI_REPO_CLONE_URL",
    "CI_REPO_REMOTE": "CI_REPO_CLONE_URL",
    "CI_REPO_CLONE_URL_HTTP": "CI_REPO_CLONE_URL",
    "CI_BUILD_NUMBER": "CI_PIPELINE_NUMBER",
    "CI_BUILD_EVENT": "CI_PIPELINE_EVENT",
    "CI_BUILD_LINK": "CI_PIPELINE_URL",
    "CI_BUILD_CREATED": "CI_PIPELINE_CREATED",
    "CI_BUILD_STARTED": "CI_PIPELINE_STARTED",
    "CI_BUILD_STATUS": "CI_PIPELINE_STATUS",
    "CI_BUILD_TARGET": "CI_PIPELINE_DEPLOY_TARGET",
    "CI_BUILD_DEPLOY_TARGET": "CI_PIPELINE_DEPLOY_TARGET",
    "CI_PARENT_BUILD_NUMBER": "CI_PIPELINE_PARENT",
    "CI_COMMIT_LINK": "CI_PIPELINE_FORGE_URL",
    "CI_COMMIT_URL": "CI_PIPELINE_FORGE_URL",
    "CI_COMMIT_AUTHOR_NAME": "CI_COMMIT_AUTHOR",
    "CI_TAG": "CI_COMMIT_TAG",
    "CI_JOB_NUMBER": "CI_WORKFLOW_NUMBER",
    "CI_JOB_STARTED": "CI_PIPELINE_STARTED",
    "CI_JOB_STATUS": "CI_PIPELINE_STATUS",
}
_EVENTS = {"deployment": "promote", "manual": "custom"}
_SEMVER = ("", "MAJOR", "MINOR", "PATCH", "PRERELEASE", "BUILD", "SHORT", "ERROR")
_CALVER = ("", "MAJOR", "MINOR", "MICRO", "MODIFIER", "SHORT", "MAJOR_MINOR")


def _name(prefix: str, field: str) -> str:
    return f"{prefix}_{field}" if field else prefix


def _of_semver(field: str, tag: str) -> str:
    return versions.semver(tag).get(field, "")


def _of_calver(field: str, tag: str) -> str:
    return versions.calver(tag).get(field, "")


#: Alias -> (the variable of ours that it is made of, how).
MADE: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "DRONE": ("CI", lambda value: "true"),
    "DRONE_REPO_SCM": ("CI", lambda value: "git"),
    "DRONE_SYSTEM_PROTO": ("CI_SYSTEM_URL", lambda value: value.partition(":")[0]),
    "DRONE_BUILD_EVENT": ("CI_PIPELINE_EVENT", lambda value: _EVENTS.get(value, value)),
    "DRONE_REPO_VISIBILITY": (
        "CI_REPO_PRIVATE",
        lambda value: "private" if value == "true" else "public",
    ),
    **{_name("DRONE_SEMVER", field): ("CI_COMMIT_TAG", partial(_of_semver, field)) for field in _SEMVER},
    **{_name("DRONE_CALVER", field): ("CI_COMMIT_TAG", partial(_of_calver, field)) for field in _CALVER},
}
#: Every name that has a meaning: ours, then the aliases.
NAMES: tuple[str, ...] = (*TABLE, *SAME, *MADE)


def variable_of(name: str) -> Variable | None:
    """The variable of ours that the name means, directly or as an alias."""
    own = SAME.get(name) or (MADE[name][0] if name in MADE else name)
    return TABLE.get(own)


def made(variables: Mapping[str, str]) -> dict[str, str]:
    """The aliases of these variables that have a value."""
    found = {name: variables[own] for name, own in SAME.items() if own in variables}
    found |= {name: make(variables[own]) for name, (own, make) in MADE.items() if own in variables}
    return {name: value for name, value in found.items() if value}


def plugin_view(variables: Mapping[str, str]) -> dict[str, str]:
    """Of all that a job and its step know, what a plugin sees beside its settings and its own `environment`:
    our variables, also under the names that plugin images look for. Plain variables are for commands.
    """
    ours = {name: value for name, value in variables.items() if name in TABLE}
    return {**made(ours), **ours}

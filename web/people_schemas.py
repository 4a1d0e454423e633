"""What programs get and send about people: accounts, tokens, sessions, members, the audit log."""

from __future__ import annotations

from pydantic import BaseModel, Field

_TIME = "seconds since 1970 (UTC)"


class JoinBody(BaseModel):
    """A code that an admin has made, and the password to set."""

    code: str
    password: str


class JoinAnswer(BaseModel):
    user: str


class WhoAmI(BaseModel):
    user: str
    is_admin: bool
    scopes: list[str] | None = Field(description="of the token; null for a session")


class PasswordBody(BaseModel):
    old: str
    new: str


class TokenBody(BaseModel):
    name: str
    scopes: list[str] = Field(description="read, write, admin")
    days: str = Field(default="90", description="until it expires; 0: never")


class NewTokenAnswer(BaseModel):
    name: str
    token: str = Field(description="not shown again")


class TokenFacts(BaseModel):
    id: int
    name: str
    scopes: list[str]
    created_at: float = Field(description=_TIME)
    expires_at: float | None
    used_at: float | None


class TokenList(BaseModel):
    tokens: list[TokenFacts]


class SessionFacts(BaseModel):
    id: int
    address: str
    software: str
    created_at: float = Field(description=_TIME)
    expires_at: float
    seen_at: float | None
    is_this: bool


class SessionList(BaseModel):
    sessions: list[SessionFacts]


class EndedSessions(BaseModel):
    ended: int


class PersonFacts(BaseModel):
    id: int
    name: str
    is_admin: bool
    is_disabled: bool
    has_password: bool
    created_at: float = Field(description=_TIME)
    seen_at: float | None
    sessions: int
    tokens: int
    repos: int = Field(description="in which they have a role")


class PersonList(BaseModel):
    people: list[PersonFacts]


class PersonBody(BaseModel):
    name: str
    is_admin: bool = False
    takes_over: bool = Field(default=False, description="the namespace of repos that are there already")


class InvitedAnswer(BaseModel):
    id: int
    name: str
    code: str = Field(description="sets a password, once, within a day")
    url: str = Field(description="where it is typed")


class AdminBody(BaseModel):
    is_admin: bool


class DisabledBody(BaseModel):
    is_disabled: bool


class MemberFacts(BaseModel):
    name: str
    role: str
    source: str = Field(description="where the role comes from")
    is_given: bool = Field(description="by a member's row, which can be taken away")
    is_disabled: bool
    since: float | None = Field(description=_TIME)


class MemberList(BaseModel):
    members: list[MemberFacts]


class MemberBody(BaseModel):
    name: str
    role: str = Field(description="read, write, admin")


class AuditFacts(BaseModel):
    id: int
    at: float = Field(description=_TIME)
    user_name: str
    action: str
    object: str
    repo_id: int | None
    details: str
    address: str


class AuditList(BaseModel):
    """The newest first; `before` continues the list, null at its end."""

    audit: list[AuditFacts]
    before: int | None

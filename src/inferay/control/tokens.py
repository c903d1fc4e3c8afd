"""Who may do what: tokens with a role, found by digest, and the rule that a route states.

`admin` may do anything; `reader` may look at anything; `scorer` may invoke one endpoint (or all)
and look at the jobs that came of it, and at an online endpoint's address. A secret is compared by
its digest, never itself.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.control.tables import Token, now
from inferay.engine.resources.references import NAME, NAME_RULE
from inferay.errors import Conflict, InvalidInput, NotAuthorized, NotFound

ROLES = ("admin", "reader", "scorer")

#: Name of the token that the CLI and the client find by themselves.
ADMIN = "admin"

#: A century: who wants more leaves it out.
DAYS_MAX = 36_500


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        name: Of the token.
        role: Its role.
        endpoint: The one endpoint that a scorer is bound to, or None.
    """

    name: str
    role: str
    endpoint: str | None = None

    def check_admin(self) -> None:
        """Check that this one may change things.

        Raises:
            NotAuthorized: It may not.
        """
        if self.role != "admin":
            raise _forbidden(self, "admin")

    def check_reader(self) -> None:
        """Check that this one may look at everything.

        Raises:
            NotAuthorized: It may not.
        """
        if self.role not in ("admin", "reader"):
            raise _forbidden(self, "reader")

    def check_scorer(self, endpoint: str) -> None:
        """Check that this one may invoke the endpoint.

        Raises:
            NotAuthorized: It may not.
        """
        if self.role == "reader" or (self.role == "scorer" and not self._reaches(endpoint)):
            raise _forbidden(self, f"scorer of endpoint '{endpoint}'")

    def check_reader_of(self, endpoint: str) -> None:
        """Check that this one may look at the endpoint and its jobs.

        Raises:
            NotAuthorized: It may not.
        """
        if self.role == "scorer" and not self._reaches(endpoint):
            raise _forbidden(self, "reader")

    def _reaches(self, endpoint: str) -> bool:
        return self.endpoint is None or self.endpoint == endpoint


def digest(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def ensure_admin(session: Session, path: Path) -> None:
    """Make the workspace's own token valid, and no other under its name; idempotent."""
    wanted = digest(path.read_text().strip())
    for token in session.scalars(select(Token).where(Token.name == ADMIN)):
        if token.digest == wanted:
            return
        session.delete(token)
        session.flush()
    session.add(Token(digest=wanted, name=ADMIN, role="admin"))


def authenticate(session: Session, header: str | None) -> Principal:
    """Return who an `Authorization` header stands for.

    Raises:
        NotAuthorized: There is none, or it stands for nobody; always the same answer.
    """
    scheme, _, secret = (header or "").partition(" ")
    token = session.get(Token, digest(secret.strip())) if scheme.lower() == "bearer" else None
    if token is None or (token.expires_at is not None and token.expires_at < now()):
        raise NotAuthorized(
            "a valid token is needed: Authorization: Bearer TOKEN", code="Unauthenticated"
        )
    return Principal(token.name, token.role, token.endpoint)


def create_token(
    session: Session, name: str, role: str, endpoint: str | None, days: float | None
) -> str:
    """Add a token and return its secret, which is kept nowhere.

    Raises:
        InvalidInput: The name, role or days are wrong, or an endpoint is given for another role
            than scorer.
        Conflict: The name is taken.
    """
    if role not in ROLES:
        raise InvalidInput(f"role: expected one of {', '.join(ROLES)}, got '{role}'")
    if endpoint is not None and role != "scorer":
        raise InvalidInput("endpoint: only a token of role scorer is bound to an endpoint")
    if not NAME.fullmatch(name):
        raise InvalidInput(f"name: expected {NAME_RULE}", target="name")
    if days is not None and not abs(days) <= DAYS_MAX:   # also false for a NaN
        raise InvalidInput(f"days: expected at most {DAYS_MAX}, got {days}", target="days")
    if session.scalar(select(Token).where(Token.name == name)) is not None:
        raise Conflict(f"a token '{name}' exists already; delete it first, or choose another name")
    secret = secrets.token_urlsafe(32)
    session.add(Token(
        digest=digest(secret), name=name, role=role, endpoint=endpoint,
        expires_at=None if days is None else now() + timedelta(days=days),
    ))
    return secret


def delete_token(session: Session, name: str) -> None:
    """Delete a token by name; it is refused from now on.

    Raises:
        NotFound: There is none.
        Conflict: It is the workspace's own.
    """
    if name == ADMIN:
        raise Conflict("the workspace's own token cannot be deleted")
    token = session.scalar(select(Token).where(Token.name == name))
    if token is None:
        raise NotFound(f"there is no token '{name}'")
    session.delete(token)


def _forbidden(who: Principal, needed: str) -> NotAuthorized:
    return NotAuthorized(
        f"the token '{who.name}' of role {who.role} may not do this; it takes {needed}",
        code="Forbidden",
    )

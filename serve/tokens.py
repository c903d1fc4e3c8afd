"""Tokens of online endpoints: short-lived, signed, and kept nowhere."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import jwt

#: Who signs them: the edge takes no other.
ISSUER = "inferay"
ALGORITHM = "HS256"

LIFETIME = timedelta(hours=1)

#: After half of its life a token is better replaced.
REFRESH_AFTER = LIFETIME / 2

#: First versions are drawn from so many; a database's integers have twice as many.
VERSIONS = 1 << 30


def first_version() -> int:
    """Return the version of a new endpoint's tokens.

    It is drawn: the tokens of a deleted endpoint shall not open the next one of its name.
    """
    return 1 + secrets.randbelow(VERSIONS)


def sign(key: str, endpoint: str, version: int, at: datetime) -> dict[str, str | int]:
    """Return a token of the endpoint as Azure's answer has it.

    Args:
        key: What the edge verifies it with.
        endpoint: The only one that it opens.
        version: Of the endpoint's tokens; another one ends them.
        at: Now, in UTC.
    """
    ends = at + LIFETIME
    claims = {
        "iss": ISSUER, "aud": f"endpoint:{endpoint}", "ver": version,
        "iat": int(at.timestamp()), "exp": int(ends.timestamp()),
    }
    return {
        "accessToken": jwt.encode(claims, key, algorithm=ALGORITHM),
        "expiryTimeUtc": int(ends.timestamp()),
        "refreshAfterTimeUtc": int((at + REFRESH_AFTER).timestamp()),
        "tokenType": "Bearer",
    }

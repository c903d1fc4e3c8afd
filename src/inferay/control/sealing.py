"""Secrets in rows of the database: encrypted with a key in the workspace's folder of secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken

from inferay.config import Workspace
from inferay.errors import InferayError
from inferay.processes import write_private


def seal(workspace: Workspace, values: Mapping[str, str]) -> str:
    """Return the values, encrypted."""
    return _cipher(workspace).encrypt(json.dumps(dict(values)).encode()).decode()


def unseal(workspace: Workspace, sealed: str, whose: str) -> dict[str, str]:
    """Return the values that `seal` was given.

    Args:
        workspace: The one that sealed them.
        sealed: What `seal` returned.
        whose: What they belong to, for the error.

    Raises:
        InferayError: They were sealed with another key.
    """
    try:
        values: dict[str, str] = json.loads(_cipher(workspace).decrypt(sealed.encode()))
    except InvalidToken:
        raise InferayError(
            f"the credentials of {whose} cannot be decrypted: {workspace.storage_key} is not the "
            "key that they were stored with; create it again",
            code="CredentialsUnreadable", target=whose,
        ) from None
    return values


def _cipher(workspace: Workspace) -> Fernet:
    path = workspace.storage_key
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, Fernet.generate_key())
    return Fernet(path.read_bytes())

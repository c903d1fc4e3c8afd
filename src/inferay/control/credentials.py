"""What opens an online endpoint: two keys, or short-lived tokens.

Keys are kept encrypted, for they are shown again, and by their digests, which the edge is told. A
token is signed and kept nowhere; it ends with the endpoint's `token_version`.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from inferay.config import Workspace
from inferay.control.sealing import seal, unseal
from inferay.control.tables import Endpoint
from inferay.errors import Conflict, InvalidInput
from inferay.serve.routing import digest_of
from inferay.serve.tokens import sign

KEY_BYTES = 32
KEY_KINDS = ("primary", "secondary")

#: A key that a caller chooses: as hard to guess as ours if it is random, and fit for a header.
_CHOSEN = re.compile(r"[A-Za-z0-9+/=_.~-]{32,256}")


def uses_keys(row: Endpoint) -> bool:
    """Return whether keys open the endpoint; else tokens do."""
    return str(row.properties.get("authMode")).lower() == "key"


def ensure_keys(workspace: Workspace, row: Endpoint) -> None:
    """Make the keys of an endpoint that is opened by keys and has none."""
    if uses_keys(row) and row.secrets is None:
        _keep(workspace, row, {kind: _new_key() for kind in KEY_KINDS})


def keys_of(workspace: Workspace, row: Endpoint) -> dict[str, str]:
    """Return the endpoint's `primary` and `secondary` key.

    Raises:
        Conflict: Tokens open it.
        InferayError: The keys cannot be decrypted.
    """
    if not uses_keys(row) or row.secrets is None:
        raise Conflict(
            f"endpoint '{row.name}' has auth_mode {_words(row)}, and no keys; get a token: inferay "
            f"online-endpoint get-credentials -n {row.name}",
            code="NoKeys", target=row.name,
        )
    return unseal(workspace, row.secrets, f"the endpoint '{row.name}'")


def regenerate(workspace: Workspace, row: Endpoint, kind: str, value: str | None = None) -> None:
    """Replace one key, or end all tokens of an endpoint that tokens open.

    Args:
        workspace: Whose endpoint it is.
        row: The endpoint, in the caller's transaction.
        kind: `primary` or `secondary`.
        value: The new key; a random one if it is None, or the key of now, which Azure's SDK sends.

    Raises:
        InvalidInput: The value is no good key.
    """
    if not uses_keys(row):
        row.token_version += 1
        return
    keys = keys_of(workspace, row)
    if value is not None and value != keys[kind]:
        if not _CHOSEN.fullmatch(value):
            raise InvalidInput(
                "keyValue: expected 32 to 256 letters, digits and + / = _ . ~ -, or none for a "
                "random key",
                target="/keyValue",
            )
        keys[kind] = value
    else:
        keys[kind] = _new_key()
    _keep(workspace, row, keys)


def issue_token(workspace: Workspace, row: Endpoint, at: datetime) -> dict[str, str | int]:
    """Return a token of the endpoint as Azure's answer has it.

    Args:
        workspace: Whose key signs it.
        row: The endpoint.
        at: Now, in UTC.

    Raises:
        Conflict: Keys open it.
    """
    if uses_keys(row):
        raise Conflict(
            f"endpoint '{row.name}' has auth_mode key, and no tokens; get a key: inferay "
            f"online-endpoint get-credentials -n {row.name}",
            code="NoTokens", target=row.name,
        )
    return sign(workspace.token_key.read_text().strip(), row.name, row.token_version, at)


def utc() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def _new_key() -> str:
    return secrets.token_urlsafe(KEY_BYTES)


def _keep(workspace: Workspace, row: Endpoint, keys: dict[str, str]) -> None:
    row.secrets = seal(workspace, keys)
    row.key_digests = [digest_of(keys[kind]) for kind in KEY_KINDS]


def _words(row: Endpoint) -> str:
    return {"amltoken": "aml_token", "aadtoken": "aad_token"}[row.properties["authMode"].lower()]

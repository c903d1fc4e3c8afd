"""The identifiers of a request, as the headers of its answer tell them.

Source: Azure's inference server. `x-ms-request-id` is the old name of `x-ms-client-request-id`.
"""

from __future__ import annotations

import random

from inferay.serve.server.http import Headers, Refused

LENGTH_MAX = 100

_REQUEST, _OLD, _CLIENT = b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id"
_TRACE = b"traceid"
#: Not `uuid4`, which asks the system, and lets another thread have the interpreter meanwhile.
_draw = random.Random().getrandbits
_VERSION_4, _RANDOM = 0x4000_8000_0000_0000_0000, ~0xF000_C000_0000_0000_0000

NAMES = frozenset((_REQUEST, _OLD, _CLIENT, _TRACE))


def echoed_ids(headers: Headers) -> Headers:
    """Return the identifiers as headers of the answer; one of ours where the client gave none.

    Raises:
        Refused: One is too long (431); its headers are those that may be echoed.
    """
    given = {name: value for name, value in headers if name in NAMES}
    trace = [(_TRACE, given[_TRACE])] if _TRACE in given else []
    request = given.get(_REQUEST) or _new_id()
    if len(request) > LENGTH_MAX:
        said = f"x-request-id must not exceed {LENGTH_MAX} characters"
        raise Refused(431, said, headers=trace)
    client = given.get(_CLIENT) or given.get(_OLD)
    old = given.get(_OLD) or client or request
    if max(len(old), len(client or b"")) > LENGTH_MAX:
        raise Refused(
            431, f"x-ms-request-id and x-ms-client-request-id must not exceed {LENGTH_MAX} "
            "characters",
            headers=[(_REQUEST, request), *trace],
        )
    return [(_REQUEST, request), (_OLD, old), *([(_CLIENT, client)] if client else []), *trace]


def _new_id() -> bytes:
    """Return a random UUID as text."""
    digits = b"%032x" % (_draw(128) & _RANDOM | _VERSION_4)
    return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

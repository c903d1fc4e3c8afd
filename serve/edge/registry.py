"""Which replicas have announced themselves, and which constructors failed; pure but for a clock."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from inferay.errors import InvalidInput
from inferay.serve.edge.render import Revision

#: A replica announces itself every 2 s; without a word for this long, and down, it is gone.
SILENCE_S = 10.0

#: Failures that are kept, the newest.
FAILURES_MAX = 200

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True)
class Replica:
    """A replica that listens.

    Attributes:
        id: Its own, in the whole edge.
        counters: What it says of itself, for whoever asks for the edge's state.
        announced_s: When it was last heard of, on the edge's clock.
        is_leaving: Whether it wants no more requests.
    """

    id: str
    endpoint: str
    deployment: str
    revision: str
    host: str
    port: int
    counters: Mapping[str, Any] = field(default_factory=dict)
    announced_s: float = 0.0
    is_leaving: bool = False

    @property
    def of(self) -> Revision:
        """What it is a replica of."""
        return (self.endpoint, self.deployment, self.revision)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Replica:
        """Return the replica that a registration says.

        Raises:
            InvalidInput: It says it wrongly; nothing of it may reach HAProxy's socket.
        """
        found = cls(
            id=_matched(body, "id", _ID), endpoint=_matched(body, "endpoint", _NAME),
            deployment=_matched(body, "deployment", _NAME),
            revision=_matched(body, "revision", _NAME),
            host=_matched(body, "host", re.compile(r"[0-9A-Fa-f:.]{2,45}")),
            port=body["port"] if isinstance(body.get("port"), int) else 0,
            counters=body["counters"] if isinstance(body.get("counters"), dict) else {},
        )
        try:
            ipaddress.ip_address(found.host)
        except ValueError:
            raise InvalidInput("host: expected an IP address", target="host") from None
        if not 0 < found.port < 1 << 16:
            raise InvalidInput("port: expected 1 to 65535", target="port")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what is kept of it over a restart."""
        return asdict(self)


def _matched(body: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidInput(f"{name}: expected {pattern.pattern}", target=name)
    return value


class Registry:
    """The replicas and failures that the edge knows."""

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self.failures: dict[Revision, dict[str, Any]] = {}

    def announce(self, replica: Replica, now_s: float) -> bool:
        """Take a replica in, or hear of it again; return whether anything changed.

        Who else had its address is gone: a port has one owner.

        Raises:
            InvalidInput: The id is another replica's.
        """
        known = self.replicas.get(replica.id)
        if known is not None and (known.host, known.port) != (replica.host, replica.port):
            raise InvalidInput(f"replica '{replica.id}' is at another address; an id is of one")
        is_leaving = known is not None and known.is_leaving
        self.replicas[replica.id] = replace(
            replica, announced_s=now_s, is_leaving=is_leaving
        )
        if known is not None:
            return False
        for other in list(self.replicas.values()):
            has_its_place = (other.host, other.port) == (replica.host, replica.port)
            if has_its_place and other.id != replica.id:
                del self.replicas[other.id]
        self.failures.pop(replica.of, None)
        return True

    def leave(self, id: str) -> None:
        """Give a replica no more requests; idempotent."""
        if id in self.replicas:
            self.replicas[id] = replace(self.replicas[id], is_leaving=True)

    def fail(self, of: Revision, replica: str, error: Mapping[str, Any]) -> None:
        """Keep why a replica of this revision could not start."""
        self.failures.pop(of, None)
        self.failures[of] = {
            "endpoint": of[0], "deployment": of[1], "revision": of[2], "replica": replica,
            "error": dict(error),
        }
        while len(self.failures) > FAILURES_MAX:
            del self.failures[next(iter(self.failures))]

    def forget_silent(self, now_s: float, up: set[str]) -> list[Replica]:
        """Forget and return the replicas that are not up and were not heard of for long."""
        gone = [
            one for one in self.replicas.values()
            if one.id not in up and now_s - one.announced_s > SILENCE_S
        ]
        for one in gone:
            del self.replicas[one.id]
        return gone

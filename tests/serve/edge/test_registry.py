from __future__ import annotations

import pytest

from inferay.errors import InvalidInput
from inferay.serve.edge.registry import FAILURES_MAX, SILENCE_S, Registry, Replica


def replica(id: str = "r", port: int = 1, revision: str = "1") -> Replica:
    return Replica(id, "e", "blue", revision, "127.0.0.1", port)


def test_only_the_first_word_of_a_replica_changes_anything() -> None:
    registry = Registry()
    assert registry.announce(replica(), now_s=0)
    assert not registry.announce(replica(), now_s=2)
    assert registry.replicas["r"].announced_s == 2


def test_who_had_a_new_replicas_address_is_gone() -> None:
    registry = Registry()
    registry.announce(replica("old"), 0)
    registry.announce(replica("new"), 1)
    assert list(registry.replicas) == ["new"]


def test_an_id_is_of_one_address() -> None:
    registry = Registry()
    registry.announce(replica(port=1), 0)
    with pytest.raises(InvalidInput, match="at another address"):
        registry.announce(replica(port=2), 1)


def test_a_replica_that_left_does_not_come_back_by_a_late_word() -> None:
    registry = Registry()
    registry.announce(replica(), 0)
    registry.leave("r")
    registry.announce(replica(), 1)
    assert registry.replicas["r"].is_leaving


def test_what_is_silent_and_down_is_forgotten_and_what_is_up_is_not() -> None:
    registry = Registry()
    for number, id in enumerate(("silent", "up", "loud")):
        registry.announce(replica(id, port=number + 1), 0)
    registry.announce(replica("loud", port=3), SILENCE_S)
    assert registry.forget_silent(SILENCE_S, {"up"}) == []
    assert [one.id for one in registry.forget_silent(SILENCE_S + 1, {"up"})] == ["silent"]
    assert sorted(registry.replicas) == ["loud", "up"]


def test_the_newest_failures_are_kept_until_a_replica_of_the_revision_is_up() -> None:
    registry = Registry()
    for number in range(FAILURES_MAX + 5):
        registry.fail(("e", "blue", str(number)), "r", {"code": "X"})
    assert len(registry.failures) == FAILURES_MAX
    assert ("e", "blue", "0") not in registry.failures
    registry.announce(replica(revision=str(FAILURES_MAX)), 0)
    assert ("e", "blue", str(FAILURES_MAX)) not in registry.failures

from __future__ import annotations

import json

from inferay.serve.replica_spec import (
    ApplicationSpec,
    Probe,
    ReplicaResources,
    ReplicaSpec,
    Scale,
)
from inferay.serve.server.calls import Batching
from inferay.serve.server.limits import Limits
from inferay.serve.server.spec import ServerSpec

SPEC = ReplicaSpec(
    ServerSpec(
        "svc", "1", "/code", "score.py", packages=("numpy",), batching=Batching(8),
        limits=Limits(4, queue_wait_s=1.0, request_timeout_s=20.0),
    ),
    "digits", "blue", "r1", edge_url="http://127.0.0.1:1", credential="secret word",
    liveness=Probe(failure_threshold=3),
)


def test_a_spec_comes_back_from_json_as_it_was() -> None:
    application = ApplicationSpec(
        SPEC, instances=2, scale=Scale(1, 3, 70.0), resources=ReplicaResources(0.5, 1.0)
    )
    assert ReplicaSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC
    assert ApplicationSpec.from_args(json.loads(json.dumps(application.to_args()))) == application


def test_the_edge_sends_what_runs_and_waits_and_a_shutdown_waits_for_it() -> None:
    assert SPEC.requests_max == 8
    assert SPEC.drain_s == 36.0


def test_a_printed_spec_shows_no_credential() -> None:
    assert "secret word" not in repr(SPEC)

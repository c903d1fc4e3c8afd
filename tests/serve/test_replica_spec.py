from __future__ import annotations

import json
from dataclasses import replace

import pytest

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
    assert ReplicaSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_the_edge_sends_what_runs_and_waits_and_a_shutdown_waits_for_it() -> None:
    assert SPEC.requests_max == 8
    assert SPEC.drain_s == 36.0


def test_a_printed_spec_shows_no_credential() -> None:
    assert "secret word" not in repr(SPEC)


def test_the_number_of_replicas_is_no_argument_of_the_builder() -> None:
    fixed = ApplicationSpec(SPEC, instances=2, resources=ReplicaResources(0.5, 1.0))
    scaled = ApplicationSpec(SPEC, scale=Scale(1, 3, 70.0), resources=ReplicaResources(0.5, 1.0))
    one, other = json.loads(json.dumps([fixed.to_dict(), scaled.to_dict()]))
    assert one["name"] == "digits.blue.r1"
    assert one["args"] == other["args"]
    assert ApplicationSpec.from_args(one["args"]) == ApplicationSpec(
        SPEC, resources=ReplicaResources(0.5, 1.0)
    )
    assert one["deployments"] == [{"name": "replica", "num_replicas": 2}]
    scaling = other["deployments"][0]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 3)
    assert scaling["target_ongoing_requests"] == pytest.approx(2.8)


def test_a_renewal_changes_an_option_and_no_argument() -> None:
    one = ApplicationSpec(SPEC)
    renewed = replace(one, renewals=2).to_dict()
    assert renewed["args"] == one.to_dict()["args"]
    assert renewed["deployments"] == [{"name": "replica", "num_replicas": 1,
                                       "max_queued_requests": 1002}]

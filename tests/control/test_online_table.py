from __future__ import annotations

from dataclasses import asdict
from typing import Any

from inferay.control.online_table import endpoint_route
from inferay.control.tables import Endpoint, Revision
from inferay.serve.declared import EDGE_MARGIN_S
from inferay.serve.replica_spec import ApplicationSpec, ReplicaSpec
from inferay.serve.routing import DeploymentRoute
from inferay.serve.server.limits import Limits
from inferay.serve.server.spec import ServerSpec


def endpoint(mode: str = "Key", **properties: Any) -> Endpoint:
    return Endpoint(
        name="digits", kind="online", key_digests=["p", "s"], token_version=3, trusted_keys=[],
        properties={"authMode": mode, "properties": {}, "traffic": {}, "mirrorTraffic": {},
                    **properties},
    )


def live(deployment: str, **limits: Any) -> Revision:
    server = ServerSpec("svc", "1", "/code", "score.py", limits=Limits(**limits))
    application = ApplicationSpec(ReplicaSpec(server, "digits", deployment, "r7"))
    return Revision(
        endpoint="digits", deployment=deployment, name="r7", is_live=True,
        application=asdict(application),
    )


def test_an_endpoint_is_opened_by_its_keys_or_by_tokens_of_its_version() -> None:
    by_key = endpoint_route(endpoint("Key"), [])
    assert (by_key.key_digests, by_key.token_version) == (("p", "s"), None)
    for mode in ("AMLToken", "AADToken"):
        by_token = endpoint_route(endpoint(mode), [])
        assert (by_token.key_digests, by_token.token_version) == ((), 3)


def test_a_deployment_has_its_live_revision_and_its_limits() -> None:
    of = live("blue", concurrent_requests_max=3, request_timeout_s=2.0, queue_wait_s=0.5)
    route = endpoint_route(endpoint(), [of])
    assert route.deployments == (DeploymentRoute("blue", "r7", 6, 2.5 + EDGE_MARGIN_S, False),)


def test_requests_that_were_sent_are_sent_again_only_where_the_endpoint_says_so() -> None:
    for value, is_retried in (("true", True), ("false", False)):
        row = endpoint(properties={"inferay.retry_sent_requests": value})
        (route,) = endpoint_route(row, [live("blue")]).deployments
        assert route.is_retried == is_retried


def test_shares_of_nothing_and_of_what_is_not_there_are_left_out() -> None:
    row = endpoint(
        traffic={"blue": 90, "green": 10, "red": 0}, mirrorTraffic={"blue": 5, "gone": 7}
    )
    route = endpoint_route(row, [live("blue"), live("green")])
    assert (route.traffic, route.mirror) == ({"blue": 90, "green": 10}, {"blue": 5})

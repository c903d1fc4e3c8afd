"""What HAProxy is told, as a pure function of the routing table, the slots and the replicas.

A slot is a backend of HAProxy, declared ahead: 2.8 cannot add one while it runs. Each revision of a
deployment has one, so that its replicas can be checked before any request reaches them, and one
entry of a map switches a deployment to its new revision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from inferay.serve.edge.config import EdgeConfig
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, TrustedKey
from inferay.serve.server.limits import BODY_BYTES_MAX

#: Of HAProxy's buffers: 64 KiB of a body that may be sent again, its headers, and what rules add.
BUFFER_BYTES = 96 << 10
REWRITE_BYTES = 8 << 10

#: Backends and mirror targets beyond those in use, so that new ones seldom need a reload.
SPARE_SLOTS = 16
SPARE_MIRRORS = 4

#: (endpoint, deployment, revision)
Revision = tuple[str, str, str]


@dataclass(frozen=True)
class Server:
    """A replica as HAProxy knows it."""

    id: str
    host: str
    port: int


@dataclass(frozen=True)
class Shape:
    """How much the configuration has room for; more takes a reload."""

    slots: int = SPARE_SLOTS
    mirrors: int = SPARE_MIRRORS

    def grown(self, slots: int, mirrors: int) -> Shape:
        """Return a shape with room for this much and some more, or this one if it has it."""
        if slots <= self.slots and mirrors <= self.mirrors:
            return self
        return Shape(
            max(self.slots, slots + SPARE_SLOTS), max(self.mirrors, mirrors + SPARE_MIRRORS)
        )


@dataclass(frozen=True)
class Secrets:
    """What the configuration holds that nobody else may know.

    Attributes:
        edge: Between the edge and its replicas.
        token: The key of the endpoints' tokens, or None.
    """

    edge: str
    token: str | None


def slot_name(slot: int) -> str:
    """Return the name of a slot's backend."""
    return f"slot{slot:04d}"


def maps_of(table: RoutingTable, slots: Mapping[Revision, int]) -> dict[str, dict[str, str]]:
    """Return the content of each map by its name."""
    maps: dict[str, dict[str, str]] = {
        "endpoints": {}, "keys": {}, "deployments": {}, "split": {}, "mirrors": {},
    }
    for endpoint in table.endpoints:
        name = endpoint.name
        token = endpoint.token_version
        maps["endpoints"][name] = "key" if token is None else f"token:{token}"
        opens = [*endpoint.key_digests, *(one.digest for one in endpoint.trusted_keys)]
        maps["keys"] |= {f"{name}/{digest}": "1" for digest in opens}
        routes = _routes(endpoint, slots)
        maps["deployments"] |= {f"{name}/{key}": value for key, value in routes.items()}
        maps["split"] |= {
            f"{name}/{number}": routes[chosen]
            for number, chosen in enumerate(_hundred(endpoint.traffic)) if chosen in routes
        }
        targets = [(one, share) for one, share in sorted(endpoint.mirror.items()) if share]
        if targets:
            maps["mirrors"][name] = str(len(targets))
        maps["mirrors"] |= {
            f"{name}/{place}/{number}": target
            for place, (target, share) in enumerate(targets) for number in range(share)
        }
    return maps


def trusted_keys(table: RoutingTable) -> dict[str, TrustedKey]:
    """Return the keys of issuers outside, by digest; a new one takes a reload."""
    found = {one.digest: one for endpoint in table.endpoints for one in endpoint.trusted_keys}
    return dict(sorted(found.items()))


def mirrors_of(table: RoutingTable) -> int:
    """Return how many targets the endpoint with the most has."""
    return max((len(one.mirror) for one in table.endpoints), default=0)


def _routes(endpoint: EndpointRoute, slots: Mapping[Revision, int]) -> dict[str, str]:
    found = {}
    for one in endpoint.deployments:
        slot = slots.get((endpoint.name, one.name, one.revision))
        if slot is not None:
            found[one.name] = _route(one, slot)
    return found


def _route(route: DeploymentRoute, slot: int) -> str:
    timeout_ms = max(1, round(route.timeout_s * 1e3))
    retried = int(route.is_retried)
    return f"{route.name}:{slot_name(slot)}:{route.requests_max}:{timeout_ms}:{retried}"


def _hundred(traffic: Mapping[str, int]) -> list[str]:
    return [name for name, share in sorted(traffic.items()) for _ in range(share)]


def configuration(
    config: EdgeConfig, secrets: Secrets, shape: Shape, trusted: Mapping[str, TrustedKey],
    servers: Mapping[int, Sequence[Server]], *, files: Path, socket: Path,
    connections_max: int, threads: int,
) -> str:
    """Return the text of haproxy.cfg.

    Args:
        config: The edge's own.
        secrets: What it knows.
        shape: How much there is room for.
        trusted: Keys of issuers outside; each is a file of its digest's name.
        servers: The replicas by slot; they can change without this text.
        files: The folder of the maps, the certificate and the error files.
        socket: Of HAProxy's runtime API.
        connections_max: At once.
        threads: Of HAProxy.
    """
    template = Template((resources.files(__package__) / "haproxy.cfg").read_text())
    return template.substitute(
        {name: _returned(status, *rest) for name, (status, *rest) in REFUSALS.items()},
        socket=socket, maps=files, certificate=files / "public.pem", secret=secrets.edge,
        connections_max=connections_max, threads=threads, buffer_bytes=BUFFER_BYTES,
        rewrite_bytes=REWRITE_BYTES, body_bytes_max=BODY_BYTES_MAX,
        address=_address(config.host, config.port),
        mirror_address=_address(config.management_host, config.mirror_port),
        error_files="\n".join(
            f"    errorfile {status} {files}/{status}.http" for status in ERROR_BODIES
        ),
        token_rules=_token_rules(secrets.token, trusted, files),
        mirror_rules=_mirror_rules(shape.mirrors, files),
        control_rule="" if config.control_port is None else "    default_backend control",
        backends="\n".join([
            *(["backend control", f"    server control 127.0.0.1:{config.control_port}", ""]
              if config.control_port is not None else []),
            *(_backend(slot, secrets.edge, servers.get(slot, ())) for slot in range(shape.slots)),
        ]),
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _mirror_rules(count: int, files: Path) -> str:
    """Return the draws: one for each target, and the live deployment is no target."""
    lines = [f"set-var(txn.mirrors) var(txn.endpoint),map_str({files}/mirrors.map),add(0) "
             "if is_scoring"]
    for place in range(count):
        is_there = f"{{ var(txn.mirrors) -m int gt {place} }}"
        lines += [
            f"set-var(txn.draw) rand(100) if {is_there}",
            f"set-var(txn.target{place}) var(txn.endpoint),concat(/{place}/,txn.draw),"
            f"map_str({files}/mirrors.map) if {is_there}",
            f"set-var-fmt(txn.targets) %[var(txn.targets)]%[var(txn.target{place})], "
            f"if {{ var(txn.target{place}) -m found }} "
            f"!{{ var(txn.target{place}),strcmp(txn.deployment) eq 0 }}",
        ]
    lines += [
        "set-header x-inferay-mirror %[var(txn.targets)] if { var(txn.targets) -m found }",
        "set-header x-inferay-request %[uuid] if { var(txn.targets) -m found }",
    ]
    return "\n".join(f"    http-request {line}" for line in lines)


def _token_rules(own: str | None, trusted: Mapping[str, TrustedKey], files: Path) -> str:
    """Return how a token opens an endpoint: its own, or of an issuer that the endpoint trusts.

    The algorithm is the key's, never the token's choice.
    """
    is_token = "{ var(txn.rule) -m beg token: }"
    query, header = "var(txn.bearer),jwt_payload_query", "var(txn.bearer),jwt_header_query"
    rules = [f"{rule} if {is_token}" for rule in (
        "set-var(txn.now) date()",
        f"set-var(txn.seconds_left) {query}('$.exp','int'),sub(txn.now)",
        f"set-var(txn.seconds_until) {query}('$.nbf','int'),sub(txn.now)",
    )]
    is_fresh = ("{ var(txn.seconds_left) -m int gt 0 } "
                f"!{{ var(txn.seconds_until) -m int gt {CLOCK_SKEW_S} }}")
    if own is not None:
        rules += [f"{rule} if {is_token}" for rule in (
            f"set-var(txn.version) {query}('$.ver','int')",
            "set-var(txn.wanted) str(token:),concat(,txn.version)",
            f"set-var(txn.audience) {query}('$.aud')",
            "set-var(txn.own) str(endpoint:),concat(,txn.endpoint)",
        )]
        rules.append(
            "set-var(txn.open) str(1) if { var(txn.rule),strcmp(txn.wanted) eq 0 } "
            f"{{ {header}('$.alg') -m str HS256 }} "
            f"{{ var(txn.bearer),jwt_verify(HS256,\"{own}\") -m int 1 }} {is_fresh} "
            "{ var(txn.audience),strcmp(txn.own) eq 0 } "
            f"{{ {query}('$.iss') -m str {TOKEN_ISSUER} }}"
        )
    for digest, key in trusted.items():
        rules.append(
            f"set-var(txn.digest) str({digest}) if {is_token} {is_fresh} "
            f"{{ {header}('$.kid') -m str -- \"{key.id}\" }} "
            f"{{ {header}('$.alg') -m str {key.algorithm} }} "
            f"{{ var(txn.bearer),jwt_verify({key.algorithm},\"{files}/{digest}.pem\") -m int 1 }} "
            f"{{ {query}('$.iss') -m str -- \"{key.issuer}\" }} "
            f"{{ {query}('$.aud') -m str -- \"{key.audience}\" }}"
        )
    if trusted:
        rules.append(
            "set-var(txn.open) var(txn.endpoint),concat(/,txn.digest),"
            f"map_str({files}/keys.map) if {is_token}"
        )
    return "\n".join(f"    http-request {rule}" for rule in rules)


#: Clocks of issuers outside differ.
CLOCK_SKEW_S = 60

#: `iss` of the endpoints' own tokens.
TOKEN_ISSUER = "inferay"


def _backend(slot: int, secret: str, servers: Sequence[Server]) -> str:
    name = slot_name(slot)
    status, *rest = REFUSALS["too_many"]
    return "\n".join([
        f"backend {name}",
        "    balance leastconn",
        "    option httpchk",
        f"    http-check send meth GET uri / ver HTTP/1.1 hdr host inferay hdr x-inferay-edge "
        f"{secret}",
        "    http-check expect status 200",
        "    http-request set-timeout server var(txn.route),field(4,:),add(0)",
        f"    http-request set-var(txn.open_now) be_conn({name})",
        "    http-request set-var(txn.room) var(txn.route),field(3,:)",
        f"    http-request return {_returned(status, *rest)} if {{ nbsrv({name}) gt 0 }} "
        f"{{ nbsrv({name}),mul(txn.room),sub(txn.open_now) lt 0 }}",
        *(f"    server {one.id} {_address(one.host, one.port)} {SERVER_OPTIONS}"
          for one in servers),
        "",
    ])


#: Of each replica. A connection that fails takes it out at once, until its next check passes.
SERVER_OPTIONS = (
    "check inter 500ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down"
)


def error_body(code: str, message: str) -> str:
    """Return Azure's body of an error."""
    return json.dumps(
        {"error": {"code": code, "message": message, "target": None, "details": []}}
    )


def _returned(status: int, code: str, message: str, *headers: str) -> str:
    """Return what follows `http-request return`."""
    body = error_body(code, message)
    given = "".join(f" hdr {header}" for header in headers)
    return f"status {status} content-type application/json string '{body}'{given}"


#: What the edge itself answers, by the name in the template.
REFUSALS: dict[str, tuple[int, str, str] | tuple[int, str, str, str]
               | tuple[int, str, str, str, str]] = {
    "no_endpoint": (404, "NotFound", "there is no such online endpoint"),
    "no_credential": (
        401, "Unauthenticated",
        "a valid key or token of this endpoint is needed: Authorization: Bearer KEY",
        "www-authenticate Bearer",
    ),
    "no_deployment": (
        404, "NotFound",
        "the endpoint has no deployment of the name in the header azureml-model-deployment",
    ),
    "no_traffic": (
        404, "NotFound",
        "no deployment of this endpoint takes traffic: set it with online-endpoint update "
        "--traffic, or name a deployment in the header azureml-model-deployment",
    ),
    "too_large": (
        413, "RequestTooLarge", f"the body is larger than {BODY_BYTES_MAX} bytes",
    ),
    "timed_out": (
        408, "RequestTimeout", "run() took longer than request_timeout_ms of the deployment",
    ),
    "too_many": (
        429, "TooManyRequests",
        "more requests than the deployment takes on at once (twice "
        "max_concurrent_requests_per_instance for each instance); try again later",
        "retry-after 1", "ms-azureml-model-error-reason too_many_pending_request",
    ),
    "no_secret": (403, "Forbidden", "only replicas send copies here"),
}

#: What HAProxy answers by itself.
ERROR_BODIES: dict[int, tuple[str, str, str]] = {
    400: ("Bad Request", "BadRequest", "the request is not valid HTTP"),
    408: ("Request Timeout", "RequestTimeout", "the request did not arrive in time"),
    500: ("Internal Server Error", "InternalError", "the edge failed; see its log"),
    502: ("Bad Gateway", "BadGateway", "what answers behind the edge ended in the middle of it"),
    503: ("Service Unavailable", "Unavailable",
          "nothing that could answer is up behind the edge; try again later"),
    504: ("Gateway Timeout", "RequestTimeout", "what answers behind the edge took too long"),
}


def error_file(status: int) -> str:
    """Return the whole answer of an error that HAProxy answers with by itself."""
    reason, code, message = ERROR_BODIES[status]
    body = error_body(code, message)
    retry = "retry-after: 1\r\n" if status == 503 else ""
    return (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncache-control: no-cache"
        f"\r\n{retry}content-length: {len(body)}\r\n\r\n{body}"
    )

"""Online, measured beside what one would use without inferay: `make bench-online`.

Each ratio is of servers that are loaded in turn, in one run on one machine. Nothing is asserted
here; the tables go to `RESULTS.md`, whatever they say.

    table        the edge with TLS, keys and 10 % mirror beside bare uvicorn + FastAPI
    bodies       the same with bodies of 1 MB and 10 MB
    mirror       10 % mirror on beside off
    mlserver, litserve, bentoml, mlflow, ray_serve
                 the edge beside each of them alone, at the best of its settings
    deployments  50 deployments on one machine, as plain processes: memory and CPU while idle
    on_serve     1, 10 and 50 deployments of the product on Ray Serve: the same, and updates
    no_code_mlflow  an MLflow model without code beside `mlflow models serve`
    cold_mlflow  an MLflow replica's start: environment, imports, model
    oip          ONNX models over the Open Inference Protocol beside MLServer
    cold         a replica's start: process, imports, model, first call

    make bench-online WORKS="table mirror" ROUNDS=3 SECONDS=5
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import no_code, oip
from benchmarks.batch import scratch
from benchmarks.report import Figure, Line, Served, add
from benchmarks.serving import idle, models, on_serve, ours, peers
from benchmarks.serving.load import Load, Target, check_wrk, drive

CONNECTIONS = (1, 16, 64)

#: Of the must: throughput beside bare uvicorn + FastAPI, and beside each peer.
AIMS = {1: 0.7, 16: 1.5, 64: 1.5}
PEER_AIM = 4.0
LARGE_AIM = 0.8
MIRROR_AIM = 0.8
MIRROR_PERCENT = 10

BODIES_MB = (1, 10)
BODY_CONNECTIONS = 4

FASTAPI = "bare uvicorn + FastAPI"


def main() -> None:
    works: dict[str, Callable[[Path, argparse.Namespace], Iterator[Line]]] = {
        "table": table, "bodies": bodies, "mirror": mirror,
        **{name: beside_peer(name) for name in peers.PEERS},
        "deployments": idle.deployments, "cold": idle.cold,
        "on_serve": on_serve.deployments, "no_code_mlflow": no_code.online,
        "cold_mlflow": no_code.cold, "oip": oip.measure,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", help=f"of {', '.join(works)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one load")
    parser.add_argument("--count", type=int, default=50, help="of idle deployments")
    parser.add_argument("--dry", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    for name in options.works:
        if name not in works:
            parser.error(f"no work {name}; choose from {', '.join(works)}")
    check_wrk()
    for name in options.works or works:
        began_s = time.monotonic()
        with scratch() as folder:
            lines = list(works[name](folder, options))
        for line in lines:
            print(line.row(), flush=True)
        if not options.dry:
            add(lines, time.monotonic() - began_s, "Online")


def table(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure both models beside FastAPI, whose endpoint is called in threads as ours is."""
    for model in models.ANSWERS:
        with ExitStack() as stack:
            ourselves = stack.enter_context(_ours(folder, model))
            fastapi = stack.enter_context(peers.running("fastapi", peers.fastapi, model, folder))
            inline = Target(
                "inline", fastapi.url.replace("/score", "/inline"), fastapi.body,
                expected=fastapi.expected,
            )
            for count in CONNECTIONS:
                found = in_turn([ourselves, fastapi, inline], count, options, folder)
                name, mine = f"{model}, c={count}", loads_of(found["inferay"])
                theirs = loads_of(found["fastapi"])
                yield Served(name, FASTAPI, "endpoint in its threads", AIMS[count], mine, theirs)
                yield Served(
                    name, FASTAPI, "`async` endpoint: scores on the event loop, where nothing "
                    "else is answered meanwhile", None, mine, loads_of(found["inline"]),
                )
                yield from _added(model, count, mine, theirs)


def _added(
    model: str, count: int, mine: Sequence[tuple[float, float, float]],
    theirs: Sequence[tuple[float, float, float]],
) -> Iterator[Line]:
    what = {1: ("p50", 1, "at most 0.15 ms"), 16: ("p99", 2, "at most 0 ms")}
    if count in what:
        name, at, aim = what[count]
        added_ms = [ours[at] - other[at] for ours, other in zip(mine, theirs, strict=True)]
        yield Figure(
            f"added {name}, {model}",
            f"{name} at c={count} through the edge over that of {FASTAPI}, median of the rounds",
            f"{statistics.median(added_ms):.2f} ms ({min(added_ms):.2f} to {max(added_ms):.2f})",
            aim,
        )


def bodies(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure large bodies, which `run()` takes as text and only counts."""
    with ExitStack() as stack:
        stage = stack.enter_context(ours.serving(folder, {"size": ours.SCRIPTS["size"]}))
        stage.publish(MIRROR_PERCENT)
        fastapi = stack.enter_context(peers.running("fastapi", peers.fastapi, "echo", folder))
        for megabytes in BODIES_MB:
            body = b"x" * (megabytes * 1_000_000)
            targets = [
                stage.target("size", body, len(body)),
                Target("fastapi", fastapi.url.replace("/score", "/size"), body),
            ]
            found = in_turn(targets, BODY_CONNECTIONS, options, folder)
            yield Served(
                f"{megabytes} MB, c={BODY_CONNECTIONS}", FASTAPI, "`async` endpoint that decodes",
                LARGE_AIM, loads_of(found["inferay"]), loads_of(found["fastapi"]),
            )


def mirror(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure requests of which one in ten is copied beside requests of which none is."""
    with ours.serving(folder, {"echo": ours.SCRIPTS["echo"]}) as stage:
        target = stage.target("echo", peers.BODY, models.ANSWERS["echo"])
        for count in CONNECTIONS[1:]:
            loads: dict[int, list[Load]] = {0: [], MIRROR_PERCENT: []}
            for _ in range(options.rounds):
                for percent, found in loads.items():
                    stage.publish(percent)
                    found.append(_drive(target, count, options, folder))
            # A copy is a request too, so those with copies count as 1.1.
            copied = [
                (rate * (1 + MIRROR_PERCENT / 100), p50_ms, p99_ms)
                for rate, p50_ms, p99_ms in loads_of(loads[MIRROR_PERCENT])
            ]
            yield Served(
                f"echo, c={count}, 10 % mirrored, copies counted", "inferay", "nothing mirrored",
                MIRROR_AIM, copied, loads_of(loads[0]),
            )


def beside_peer(name: str) -> Callable[[Path, argparse.Namespace], Iterator[Line]]:
    """Return what measures the edge beside a peer, for both models."""
    def measure(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
        for model in models.ANSWERS:
            instances = _best_instances(model, options, folder)
            try:
                what = peers.best_setting(name, model, folder)
            except peers.CannotRun as error:
                reason = str(error).strip().splitlines()[-1]
                yield Figure(f"{name}, {model}", "beside the edge", f"cannot run: {reason}", "-")
                continue
            with ExitStack() as stack:
                ourselves = stack.enter_context(_ours(folder, model, instances))
                peer = stack.enter_context(
                    peers.running(name, peers.PEERS[name][what], model, folder)
                )
                for count in CONNECTIONS:
                    found = in_turn([ourselves, peer], count, options, folder)
                    yield Served(
                        f"{model}, c={count}, instances: {instances}", name, what, PEER_AIM,
                        loads_of(found["inferay"]), loads_of(found[name]),
                    )

    return measure


def in_turn(
    targets: Sequence[Target], connections: int, options: argparse.Namespace, folder: Path
) -> dict[str, list[Load]]:
    """Load each target after the other, then all again; the first load warms and is forgotten."""
    found: dict[str, list[Load]] = {target.name: [] for target in targets}
    for target in targets:
        drive(target, connections, 1, folder)
    for _ in range(options.rounds):
        for target in targets:
            load = _drive(target, connections, options, folder)
            found[target.name].append(load)
            print(f"{target.name} c={connections}: {load}", file=sys.stderr, flush=True)
    return found


def _drive(target: Target, count: int, options: argparse.Namespace, folder: Path) -> Load:
    load = drive(target, count, options.seconds, folder)
    if load.failed:
        raise RuntimeError(f"{target.name} failed {load.failed} requests at c={count}")
    return load


def loads_of(loads: Sequence[Load]) -> list[tuple[float, float, float]]:
    """Return requests per second, p50 and p99 in ms of each load."""
    return [(one.requests_per_s, one.p50_ms, one.p99_ms) for one in loads]


def _best_instances(model: str, options: argparse.Namespace, folder: Path) -> int:
    """Return how many instances of ours answer most; peers' settings are chosen in the same way."""
    found = {}
    for instances in (1, 2):
        with _ours(folder, model, instances) as target:
            drive(target, peers.CHOICE_CONNECTIONS, 1, folder)   # warm
            load = _drive(target, peers.CHOICE_CONNECTIONS, options, folder)
            found[instances] = load.requests_per_s
            print(f"{instances} instances: {load}", file=sys.stderr, flush=True)
    return max(found, key=lambda instances: found[instances])


@contextmanager
def _ours(folder: Path, model: str, instances: int = 1) -> Iterator[Target]:
    """Run the edge and replicas of a model, with a part of the requests mirrored."""
    with ours.serving(
        Path(tempfile.mkdtemp(dir=folder)), {model: ours.SCRIPTS[model]}, instances=instances
    ) as stage:
        stage.publish(MIRROR_PERCENT)
        yield stage.target(model, peers.BODY, models.ANSWERS[model])


if __name__ == "__main__":
    main()

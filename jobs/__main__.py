"""`python -m inferay.jobs run SPEC`: the entry point of a Ray job, with or without control plane.

SPEC is a frozen spec (JSON) or a deployment's YAML with `input` and `output_path`. Prints progress
and the outcome as plain lines; the exit code is 0 only for Completed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from inferay.engine.batch.journal import SupersededError
from inferay.engine.batch.result import Interrupted, Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.storage import Access, redacted
from inferay.errors import (
    EXIT_CODES,
    EXIT_INTERRUPTED,
    InferayError,
    InvalidInput,
    exit_code,
)
from inferay.jobs.folder import SPEC, read_frozen
from inferay.jobs.tee import Tee


def main(arguments: list[str] | None = None) -> int:
    """Run the job that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m inferay.jobs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the job that SPEC describes")
    run.add_argument("spec", type=Path)
    run.add_argument("--epoch", type=int, help="claim exactly this epoch")
    run.add_argument("--access", type=Path, help="file with the credentials of storage")
    options = parser.parse_args(arguments)
    try:
        spec = _read(options.spec)
        access = _read_access(options.access)
    except InferayError as error:
        print(error.message, file=sys.stderr)
        return exit_code(error)
    try:
        log = Tee(Path(spec.logs) / "driver.txt")
    except OSError as error:
        print(f"cannot write the job's log: {error}", file=sys.stderr)
        return EXIT_CODES[InvalidInput]
    with log:
        code = _run(spec, options.epoch, access)
    _leave_ray()
    return code


def _read(path: Path) -> JobSpec:
    if path.name == SPEC or path.suffix == ".json":
        return read_frozen(path)
    from inferay.engine.batch.user_spec import read_user_spec

    loaded = read_user_spec(path)
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return loaded.spec


def _read_access(path: Path | None) -> Access:
    if path is None:
        return Access.from_environment(os.environ)
    try:
        return Access.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the access to storage {path}: {error}") from None


def _run(spec: JobSpec, epoch: int | None, access: Access) -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    from inferay.engine.batch.runner import run  # Ray takes a second: not for a wrong spec

    print(f"job {spec.name}: {redacted(spec.input)} -> {spec.output}", flush=True)
    try:
        result = run(spec, epoch=epoch, is_stopped=stop.is_set, access=access)
    except (Interrupted, SupersededError) as error:
        print(f"job {spec.name}: {error.message}", flush=True)
        return EXIT_INTERRUPTED
    except InferayError as error:
        print(error.message, file=sys.stderr, flush=True)
        return exit_code(error)
    _tell(spec, result)
    return 0 if result.status == "Completed" else 1


def _leave_ray() -> None:
    """Disconnect now: Ray's own hook at the end of the process first sleeps for half a second."""
    ray = sys.modules.get("ray")   # a wrong spec ends before Ray is imported
    if ray is not None:
        ray.shutdown()


def _tell(spec: JobSpec, result: Result) -> None:
    if result.error is not None:
        for detail in result.error["details"]:
            print(detail["message"], flush=True)
        print(result.error["message"], flush=True)
    counts = result.counts
    print(
        f"job {spec.name}: {result.status}, {counts.items_ok} items ok, {counts.items_failed} "
        f"failed, {counts.rows} rows in {result.seconds:.1f} s; output: {result.output}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())

"""`job`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from inferay.cli.connection import connect
from inferay.cli.job_table import describe
from inferay.cli.output import show
from inferay.cli.parser import Groups, add_set, warn
from inferay.errors import JobError


def add(groups: Groups) -> None:
    """Add the commands."""
    job = groups.group("job", "batch jobs")
    for name, run, help_text in (
        ("show", _show, "show a job"),
        ("stream", _stream, "show a job's progress until it has ended; exit code 0: Completed"),
        ("cancel", _cancel, "end a job; returns at once"),
        ("verify", _verify,
         "compare output, manifest, model, code and input with the hashes that a job recorded; "
         "exit code 0: all are the same"),
        ("resume", _resume, "let a job that failed or was canceled go on where it was"),
        ("download", _download, "download a job's output or logs"),
    ):
        command = job.command(name, run, help_text)
        command.add_argument("-n", "--name", required=True)
        if name == "download":
            command.add_argument("-p", "--download-path", default=".")
            command.add_argument("--output-name", help="score: the job's output")
            command.add_argument("--all", action="store_true", help="output and logs")
    errors = job.command("errors", _errors, "show the items that have failed so far")
    errors.add_argument("-n", "--name", required=True)
    errors.add_argument("--max-items", type=int, default=1000)
    redrive = job.command("redrive", _redrive, "score a job's failed items anew, in a new job")
    redrive.add_argument("-n", "--name", required=True)
    redrive.add_argument("--merge", action="store_true",
                         help="write the complete output: the job's rows, and the new ones")
    redrive.add_argument("-d", "--deployment-name", help="by default the job's")
    redrive.add_argument("--output-path", help="a folder, or azureml://datastores/…")
    redrive.add_argument("--job-name", help="of the new job")
    add_set(redrive)
    listing = job.command("list", _list, "list jobs, newest first")
    listing.add_argument("-r", "--max-results", type=int, default=50)
    listing.add_argument("--all-results", action="store_true")


def _show(options: argparse.Namespace) -> Any:
    job = connect(options).jobs.get(options.name).to_dict()
    if options.output == "table" and not options.query:
        sys.stdout.write(describe(job))
        return None
    return job


def _stream(options: argparse.Namespace) -> None:
    job = connect(options).jobs.get(options.name)
    try:
        job.stream()
    except JobError as error:
        error.was_shown = True   # type: ignore[attr-defined]
        raise


def _cancel(options: argparse.Namespace) -> Any:
    return connect(options).jobs.cancel(options.name).to_dict()


def _resume(options: argparse.Namespace) -> Any:
    return connect(options).jobs.get(options.name).resume().to_dict()


def _errors(options: argparse.Namespace) -> Any:
    found = connect(options).jobs.errors(options.name, max_items=options.max_items)
    if options.output != "table":
        return found
    return [
        {
            "item": _item(one), "mini_batch": one["mini_batch"], "attempts": one["attempts"],
            "kind": one["kind"], "exception": one["exception"],
        }
        for one in found
    ]


def _item(error: dict[str, Any]) -> str:
    """Return in a few words what failed."""
    if "items" in error:
        return f"{error['rows_missing']} rows missing of {len(error['items'])} items"
    part = [f"{unit} {error[unit][0]} to {error[unit][1]}" for unit in ("rows", "bytes")
            if unit in error]
    return " ".join([error["item"], *part])


def _redrive(options: argparse.Namespace) -> Any:
    from inferay.client.overrides import job_settings

    job = connect(options).jobs.get(options.name).redrive(
        merge=options.merge, deployment_name=options.deployment_name, job_name=options.job_name,
        output_path=options.output_path, settings=job_settings(options.set),
    )
    warn(options, job.notices)
    return job.to_dict()


def _verify(options: argparse.Namespace) -> Any:
    checks = connect(options).jobs.get(options.name).verify()
    different = [check["name"] for check in checks if check["status"] != "ok"]
    if different:
        show(checks, options.output, options.query)
        raise JobError(
            f"job {options.name}: {len(different)} of {len(checks)} checks failed: "
            f"{', '.join(different[:5])}", code="JobChanged",
        )
    return checks


def _download(options: argparse.Namespace) -> Any:
    files = connect(options).jobs.download(
        options.name, download_path=options.download_path, output_name=options.output_name,
        all=options.all,
    )
    return [str(file) for file in files]


def _list(options: argparse.Namespace) -> Any:
    most = 1000 if options.all_results else options.max_results
    return [job.to_dict() for job in connect(options).jobs.list(max_results=most)]

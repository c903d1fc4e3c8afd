"""Jobs as the client sees them: wait, stream, cancel, resume, download."""

from __future__ import annotations

import builtins
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from inferay.client.http import Http, segment
from inferay.engine.resources import RedriveBody, is_local_path, parse_body
from inferay.errors import Conflict, InvalidInput, JobError, NotFound, Unavailable

FINAL = ("Completed", "Failed", "Canceled")

#: How often a job is asked for while someone waits.
POLL_S = 0.25

#: Failed items that one look at a job returns.
ERRORS_MAX = 100_000

#: A control plane that is being restarted is waited for this long before `wait` gives up.
ABSENCE_S = 120.0


class Job:
    """A batch job; its facts are those of the last look.

    Attributes:
        name: Its name.
    """

    def __init__(self, http: Http, view: dict[str, Any]) -> None:
        self._http = http
        self._view = view
        self.name: str = view["name"]

    @property
    def status(self) -> str:
        """The job's state now; asks the control plane."""
        return self.refresh()._properties["status"]   # type: ignore[no-any-return]

    @property
    def is_final(self) -> bool:
        """Whether the job had ended at the last look."""
        return self._properties["status"] in FINAL

    @property
    def progress(self) -> dict[str, Any]:
        """How far the job was at the last look; empty before it began.

        Rates, percent and seconds left; `workers_by_state`, and of single workers what each has in
        hand and since when; the `slowest` mini-batches; `worker_seconds` by what they went into.
        Sums but for the counts are of the driver's current epoch.
        """
        return _snake_keys(self._properties.get("progress") or {})   # type: ignore[no-any-return]

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the job did not complete: code, message, details."""
        return self._properties.get("error")

    @property
    def notices(self) -> list[str]:
        """What the invocation had to say."""
        return self._view.get("notices") or []

    def refresh(self) -> Job:
        """Look again; return this job."""
        self._view = self._http.get(f"/v1/jobs/{segment(self.name)}")
        return self

    def wait(self, timeout_s: float | None = None) -> Job:
        """Block until the job has ended; return this job.

        Raises:
            JobError: It failed or was canceled; `details` is the user's own traceback, if any.
            Unavailable: `timeout_s` has passed, or the control plane stays away.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        for _ in self.watch():
            if until_s is not None and time.monotonic() > until_s and not self.is_final:
                raise Unavailable(f"job {self.name} has not ended within {timeout_s:g} s")
        self.raise_for_status()
        return self

    def watch(self) -> Any:
        """Yield this job after every look, until it has ended; the last time after its end.

        Raises:
            Unavailable: The control plane stays away.
        """
        away_s: float | None = None
        while True:
            try:
                self.refresh()
                away_s = None
            except Unavailable:
                away_s = away_s or time.monotonic()
                if time.monotonic() - away_s > ABSENCE_S:
                    raise
            yield self
            if self.is_final and away_s is None:
                return
            time.sleep(POLL_S)

    def stream(self, out: TextIO | None = None) -> Job:
        """Show the job's progress until it has ended, then its outcome; return this job.

        A bar on a terminal, plain lines elsewhere.

        Raises:
            JobError: It failed or was canceled; the reason was shown.
        """
        from inferay.client.streaming import stream

        stream(self, out)
        self.raise_for_status()
        return self

    def raise_for_status(self) -> None:
        """Raise what the job ended with, if that is not Completed.

        Raises:
            JobError: It failed or was canceled.
        """
        status = self._properties["status"]
        if self.is_final and status != "Completed":
            error = self.error or {}
            details = "\n".join(one["message"] for one in error.get("details") or []) or None
            raise JobError(
                error.get("message") or f"job {self.name} was canceled",
                code=error.get("code") or status, details=details,
            )

    def cancel(self) -> Job:
        """Ask for the job's end; returns at once; idempotent.

        Raises:
            Conflict: It has ended in another way.
        """
        self._view = self._http.post(f"/v1/jobs/{segment(self.name)}/cancel")
        return self

    def resume(self) -> Job:
        """Let a job that failed or was canceled go on from its journal; returns at once.

        Raises:
            Conflict: It is running, or has completed.
        """
        self._view = self._http.post(f"/v1/jobs/{segment(self.name)}/resume")
        return self

    def redrive(
        self, *, merge: bool = False, deployment_name: str | None = None,
        job_name: str | None = None, output_path: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Job:
        """Score this job's failed items anew, in a new job; return that one at once.

        The code is what the deployment has now; the input and all other settings are this job's.

        Args:
            merge: Let the new output be the complete one: this job's rows, and the new ones where
                they belong. This job's own output stays as it is.
            deployment_name: Another deployment of the same endpoint.
            job_name: The new job's name; a repeat with the same content returns the same job.
            output_path: A folder, or an `azureml://` path; by default the new job's own place.
            settings: Other settings for the new job alone, as REST properties.

        Raises:
            Conflict: The job has not completed, or nothing of it failed.
            InvalidInput: A setting is wrong, or the formats of a merge differ.
        """
        properties = dict(settings or {})
        if output_path is not None:
            properties["outputData"] = output_data(output_path)
        if job_name is not None:
            properties["name"] = job_name
        body: dict[str, Any] = {"merge": merge, "properties": properties}
        if deployment_name is not None:
            body["deploymentName"] = deployment_name
        parse_body(RedriveBody, body)
        return Job(self._http, self._http.post(f"/v1/jobs/{segment(self.name)}/redrive", body))

    def errors(self, *, max_items: int = 1000) -> builtins.list[dict[str, Any]]:
        """Return the items that have failed so far, in input order; in any state of the job.

        Each is a line of `errors.jsonl`: `item` (and `rows` or `bytes` of it), `mini_batch`,
        `attempts`, `kind`, `exception` and `traceback`.

        Raises:
            InvalidInput: `max_items` is not 1 to 100,000.
        """
        if not 1 <= max_items <= ERRORS_MAX:
            raise InvalidInput(f"max_items: expected 1 to {ERRORS_MAX}, got {max_items}")
        return list(self._http.lines(f"/v1/jobs/{segment(self.name)}/errors", top=max_items))

    def verify(self) -> builtins.list[dict[str, str]]:
        """Derive every hash that the job recorded anew, and return the checks; blocks.

        Each has a `name` (`output/predictions.csv`, `manifest`, `code`, `input`, …), a `status`
        (`ok`, `changed` or `missing`) and a `message`.

        Raises:
            Conflict: The job has not completed.
            Unavailable: Too many verifications are under way, or the answer broke off.
        """
        return list(self._http.lines(f"/v1/jobs/{segment(self.name)}/verify"))

    def download(
        self, path: str | Path = ".", *, output_name: str | None = None, everything: bool = False
    ) -> list[Path]:
        """Download a job's files; existing ones are not overwritten.

        Args:
            path: The folder to download into.
            output_name: `score`: its files go to `named-outputs/score/`. Without it, the logs go
                to `artifacts/`, as Azure's CLI does.
            everything: Both.

        Returns:
            The files.

        Raises:
            Conflict: The job has not ended, or a file exists.
            NotFound: There is no such output.
        """
        if not self.refresh().is_final:
            raise Conflict(
                f"job {self.name} is {self._properties['status']}; its files can be downloaded "
                "when it has ended"
            )
        if output_name not in (None, "score"):
            raise NotFound(f"job {self.name} has no output '{output_name}'; its output is 'score'")
        folders = []
        if output_name or everything:
            folders.append(("outputs/score/files", Path(path) / "named-outputs" / "score"))
        if everything or not output_name:
            folders.append(("logs", Path(path) / "artifacts" / "logs"))
        found = [
            (f"/v1/jobs/{segment(self.name)}/{source}", folder, file["name"])
            for source, folder in folders
            for file in self._http.get(f"/v1/jobs/{segment(self.name)}/{source}")["value"]
        ]
        targets = [folder / name for _, folder, name in found]
        for target in targets:
            if target.exists():
                raise Conflict(f"{target} exists already; choose another download path")
        for (source, _, name), target in zip(found, targets, strict=True):
            self._http.download(f"{source}/{quote(name)}", target)
        return targets

    def logs(self) -> dict[str, int]:
        """Return the sizes of the job's logs in bytes, by name."""
        found = self._http.get(f"/v1/jobs/{segment(self.name)}/logs")["value"]
        return {one["name"]: one["sizeBytes"] for one in found}

    def log(self, name: str, offset: int = 0) -> bytes:
        """Return a log from an offset on, 1 MiB at most."""
        return self._http.text(f"/v1/jobs/{segment(self.name)}/logs/{quote(name)}", offset=offset)

    def to_dict(self) -> dict[str, Any]:
        """Return the job as the CLI shows it."""
        shown = {
            "name": self.name, "type": "batch", "id": self._view["id"],
            "status": self._properties["status"],
            "display_name": self._properties["displayName"],
            "experiment_name": self._properties["experimentName"],
            "endpoint_name": self._properties["endpointName"],
            "deployment_name": self._properties["deploymentName"],
            "inputs": {name: {"type": _snake(one["jobInputType"]), "path": one.get("uri")}
                       for name, one in self._properties["inputs"].items()},
            "outputs": {name: {"type": "uri_folder", "path": one["path"], "uri": one["uri"]}
                        for name, one in self._properties["outputs"].items()},
            "tags": self._properties["tags"],
            "properties": self._properties["properties"],
            "redrive_of": self._properties.get("redriveOf"),
            "resumes": self._properties["resumes"],
            "creation_context": {"created_at": self._properties["startTime"]},
            "start_time": self._properties["startTime"],
            "end_time": self._properties["endTime"],
            "waiting_for": self._properties["waitingFor"],
            "progress": self.progress or None,
            "error": self.error,
        }
        return {key: value for key, value in shown.items() if value is not None}

    @property
    def _properties(self) -> dict[str, Any]:
        found: dict[str, Any] = self._view["properties"]
        return found


class Jobs:
    """The control plane's jobs."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def get(self, name: str) -> Job:
        """Return a job.

        Raises:
            NotFound: There is none.
        """
        return Job(self._http, self._http.get(f"/v1/jobs/{segment(name)}"))

    def list(self, *, max_results: int = 50) -> list[Job]:
        """Return jobs, newest first."""
        if not 1 <= max_results <= 1000:
            raise InvalidInput(f"max_results: expected 1 to 1000, got {max_results}")
        found = self._http.get("/v1/jobs", top=max_results)["value"]
        return [Job(self._http, view) for view in found]

    def stream(self, name: str) -> Job:
        """Show a job's progress until it has ended; see `Job.stream`."""
        return self.get(name).stream()

    def cancel(self, name: str) -> Job:
        """Ask for a job's end; see `Job.cancel`."""
        return self.get(name).cancel()

    def errors(self, name: str, *, max_items: int = 1000) -> builtins.list[dict[str, Any]]:
        """Return the items of a job that have failed so far; see `Job.errors`."""
        return self.get(name).errors(max_items=max_items)

    def download(
        self, name: str, *, download_path: str | Path = ".", output_name: str | None = None,
        all: bool = False,   # Azure's name
    ) -> builtins.list[Path]:
        """Download a job's files; see `Job.download`."""
        return self.get(name).download(download_path, output_name=output_name, everything=all)


def output_data(path: str | Path) -> dict[str, Any]:
    """Return the `outputData` of a folder, or of an `azureml://` path.

    Raises:
        InvalidInput: It is empty.
    """
    where = str(path)
    if not where:   # Path("") would be the current folder
        raise InvalidInput("output_path: empty; give a folder or an azureml:// path")
    where = str(Path(where).absolute()) if is_local_path(where) else where
    return {"score": {"jobOutputType": "UriFolder", "uri": where}}


def _snake_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): _snake_keys(inner)
            for key, inner in value.items()
        }
    return [_snake_keys(inner) for inner in value] if isinstance(value, list) else value


def _snake(word: str) -> str:
    return {"UriFolder": "uri_folder", "UriFile": "uri_file"}.get(word, word.lower())

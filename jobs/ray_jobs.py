"""Ray's job API over HTTP, as documented: submit, look, stop, logs.

Spoken directly, so that the control plane does not have to import Ray (two seconds and 100 MB).
Submission ids are ours and deterministic, so that a repeated submission is one job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from inferay.errors import InvalidInput, Unavailable

#: Ray answers these requests in milliseconds; a loaded head may take seconds.
TIMEOUT_S = 20.0

#: How long a driver gets after SIGTERM to write what it has, before Ray kills it.
STOP_WAIT_S = 6

#: How the ids of resumed jobs end. Few digits: a GUID may end in e and eleven of them.
_RESUMED = re.compile(r"-e[0-9]{1,9}$")

#: Characters of a job's name. Folders and files, Ray's logs among them, are called after it with
#: something before or after, and a file system takes 255 in all.
NAME_CHARS_MAX = 200

_GONE = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class RayAddress:
    """Where a Ray head answers, and the file with its token.

    Attributes:
        gcs: `HOST:PORT` for `ray.init`.
        dashboard: `http://HOST:PORT` of the job API.
        token_path: File with the token, or None for a cluster without.
    """

    gcs: str
    dashboard: str
    token_path: Path | None


class RayJobs:
    """The jobs of one Ray cluster.

    Raises:
        Unavailable: The file with its token cannot be read.
    """

    def __init__(self, address: RayAddress) -> None:
        self.address = address
        headers = {"User-Agent": "inferay"}   # Ray refuses what looks like a browser
        if address.token_path is not None:
            headers["Authorization"] = f"Bearer {_token(address.token_path)}"
        self._http = httpx.Client(
            base_url=address.dashboard, headers=headers, timeout=TIMEOUT_S, trust_env=False
        )

    def submit(self, submission_id: str, entrypoint: str, env: dict[str, str]) -> None:
        """Submit a driver; a repeat with the same id does nothing.

        Raises:
            Unavailable: Ray does not answer, or refuses; the message is Ray's last line.
        """
        body = {
            "submission_id": submission_id, "entrypoint": entrypoint, "entrypoint_num_cpus": 0,
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **env}},
        }
        answer = self._request("POST", "/api/jobs/", json=body)
        if answer.status_code == 200 or self.driver(submission_id) != "missing":
            return
        last = (answer.text.strip().splitlines() or [""])[-1]
        raise Unavailable(
            f"Ray refused the job {submission_id} with status {answer.status_code}: {last[:500]}"
        )

    def driver(self, submission_id: str) -> str:
        """Return `alive`, `gone` or `missing`.

        Raises:
            Unavailable: Ray does not answer.
        """
        answer = self._request("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == 404:
            return "missing"
        with self._checked(answer):
            return "gone" if answer.json()["status"] in _GONE else "alive"

    def drivers(self) -> dict[str, str]:
        """Return `alive` or `gone` for every driver that Ray knows, by submission id.

        Raises:
            Unavailable: Ray does not answer.
        """
        answer = self._request("GET", "/api/jobs/")
        with self._checked(answer):
            return {
                job["submission_id"]: "gone" if job["status"] in _GONE else "alive"
                for job in answer.json() if job.get("submission_id")
            }

    def message(self, submission_id: str) -> str:
        """Return what Ray says of the driver's end, in one line.

        Raises:
            Unavailable: Ray does not answer.
        """
        answer = self._request("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == 404:
            return "Ray does not know it"
        with self._checked(answer):
            lines = (answer.json().get("message") or "").strip().splitlines()
        return lines[0] if lines else ""

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end the driver; returns at once; idempotent.

        Raises:
            Unavailable: Ray does not answer.
        """
        self._request("POST", f"/api/jobs/{submission_id}/stop")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Ray does not answer at {self.address.dashboard}: {error}", code="RayUnavailable"
            ) from error
        if answer.status_code in (401, 403):
            raise Unavailable(
                f"Ray at {self.address.dashboard} refuses this workspace's token",
                code="RayUnavailable",
            )
        return answer

    @contextmanager
    def _checked(self, answer: httpx.Response) -> Iterator[None]:
        """Read an answer that has to be Ray's."""
        what = f"status {answer.status_code}"
        try:
            if answer.status_code == 200:
                what = "something that is not Ray's"
                yield
                return
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise Unavailable(
            f"Ray at {self.address.dashboard} answered {what} for {answer.request.url.path}",
            code="RayUnavailable",
        )


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Unavailable(
            f"cannot read Ray's token {path}: {error.strerror}", code="RayUnavailable"
        ) from None


def check_name(job_name: str) -> None:
    """Check that no submission id of this job can be another job's, and that files can have it.

    Raises:
        InvalidInput: The name ends as the ids of another job's resumes do, or is too long.
    """
    if len(job_name) > NAME_CHARS_MAX:
        raise InvalidInput(
            f"the job name '{job_name[:20]}…' has {len(job_name)} characters; choose one of at "
            f"most {NAME_CHARS_MAX}",
            target="name",
        )
    if _RESUMED.search(job_name):
        raise InvalidInput(
            f"the job name '{job_name}' ends in -e and a number, as resumes of a job "
            f"'{_RESUMED.sub('', job_name)}' are called in Ray; choose another name",
            target="name",
        )


def submission_id(job_name: str, epoch: int) -> str:
    """Return the Ray submission id of a job's epoch: its name, then `<name>-e<n>` by resume."""
    return job_name if epoch == 1 else f"{job_name}-e{epoch - 1}"

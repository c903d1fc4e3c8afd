"""Ray's job API over HTTP, as documented: submit, look, stop, logs.

Submission ids are ours and deterministic, so that a repeated submission is one job.
"""

from __future__ import annotations

import re

from inferay.engine.ray_dashboard import Dashboard, RayAddress
from inferay.errors import InvalidInput, Unavailable

#: How long a driver gets after SIGTERM to write what it has, before Ray kills it.
STOP_WAIT_S = 6

#: How the ids of resumed jobs end. Few digits: a GUID may end in e and eleven of them.
_RESUMED = re.compile(r"-e[0-9]{1,9}$")

#: Characters of a job's name. Folders and files, Ray's logs among them, are called after it with
#: something before or after, and a file system takes 255 in all.
NAME_CHARS_MAX = 200

_GONE = ("SUCCEEDED", "FAILED", "STOPPED")


class RayJobs:
    """The jobs of one Ray cluster.

    Raises:
        Unavailable: The file with its token cannot be read.
    """

    def __init__(self, address: RayAddress) -> None:
        self.address = address
        self._ray = Dashboard(address)

    def submit(self, submission_id: str, entrypoint: str, env: dict[str, str]) -> None:
        """Submit a driver; a repeat with the same id does nothing.

        Raises:
            Unavailable: Ray does not answer, or refuses; the message is Ray's last line.
        """
        body = {
            "submission_id": submission_id, "entrypoint": entrypoint, "entrypoint_num_cpus": 0,
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **env}},
        }
        answer = self._ray.request("POST", "/api/jobs/", json=body)
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
        answer = self._ray.request("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == 404:
            return "missing"
        with self._ray.checked(answer):
            return "gone" if answer.json()["status"] in _GONE else "alive"

    def drivers(self) -> dict[str, str]:
        """Return `alive` or `gone` for every driver that Ray knows, by submission id.

        Raises:
            Unavailable: Ray does not answer.
        """
        answer = self._ray.request("GET", "/api/jobs/")
        with self._ray.checked(answer):
            return {
                job["submission_id"]: "gone" if job["status"] in _GONE else "alive"
                for job in answer.json() if job.get("submission_id")
            }

    def message(self, submission_id: str) -> str:
        """Return what Ray says of the driver's end, in one line.

        Raises:
            Unavailable: Ray does not answer.
        """
        answer = self._ray.request("GET", f"/api/jobs/{submission_id}")
        if answer.status_code == 404:
            return "Ray does not know it"
        with self._ray.checked(answer):
            lines = (answer.json().get("message") or "").strip().splitlines()
        return lines[0] if lines else ""

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end the driver; returns at once; idempotent.

        Raises:
            Unavailable: Ray does not answer.
        """
        self._ray.request("POST", f"/api/jobs/{submission_id}/stop")

    def close(self) -> None:
        """Close the connections."""
        self._ray.close()


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

from __future__ import annotations

from typing import Any

from inferay.cli.job_table import describe

JOB = {
    "name": "nightly", "status": "Running", "endpoint_name": "scale", "deployment_name": "blue",
    "resumes": 1, "outputs": {"score": {"path": "/out"}},
    "waiting_for": "waiting for 1 GPU, 0 available, 40 s",
    "progress": {
        "mini_batches": 10_000, "percent": 45.2, "items_per_s": 790.04, "items_per_s_now": 812.36,
        "seconds": 57.2, "seconds_left": 70.1, "workers_wanted": 4, "workers_ready": 2,
        "counts": {"mini_batches_done": 4520, "items_ok": 45_198, "items_failed": 2,
                   "rows": 45_198, "retries": 3, "deaths": 3},
        "workers_by_state": {"waiting": 1, "starting": 0, "idle": 1, "scoring": 2, "stopped": 0},
        "workers": [
            {"slot": 0, "node": "n1", "state": "scoring", "lease": [40, 72], "lease_seconds": 9.0,
             "in_hand": 43, "in_hand_seconds": 1.5, "mini_batches_done": 900, "restarts": 2,
             "memory_bytes": 200 << 20},
            {"slot": 1, "node": "n1", "state": "scoring", "lease": [72, 80], "lease_seconds": 0.1,
             "in_hand": None, "in_hand_seconds": None, "mini_batches_done": 3620, "restarts": 0,
             "memory_bytes": None},
        ],
        "slowest": [{"mini_batch": 17, "seconds": 4.25, "slot": 1, "node": "n1"}],
        "deaths_by_kind": [{"kind": "Timeout", "count": 2}, {"kind": "Crashed", "count": 1}],
        "worker_seconds": {"scoring": 180.0, "overhead": 10.0, "idle": 5.0, "starting": 5.0,
                           "waiting": 0.0},
    },
}


def test_a_running_job_is_shown_in_groups() -> None:
    assert describe(JOB) == """\
Job        nightly: Running
Endpoint   scale/blue
Progress   45.2 %, 4,520 of 10,000 mini-batches; 45,198 items ok, 2 failed, 45,198 rows
Rate       812.4 items/s now, 790.0 overall; 57 s so far, 70 s left
Waiting    1 GPU, 0 available, 40 s
Workers    4 at most: 1 waiting, 1 idle, 2 scoring
Retries    3; workers that ended: 2 Timeout, 1 Crashed
Time       scoring 90.0 %, overhead 5.0 %, idle 2.5 %, starting 2.5 %, waiting 0.0 % of 200 s of \
workers, of this epoch
Resumes    1
Output     /out

Workers
Worker  Node  State    MiniBatch  SinceS  Done  Restarts  Memory
0       n1    scoring  43         1.5     900   2         200 MiB
1       n1    scoring  72 to 79   0.1     3620  0

Slowest mini-batches
MiniBatch  Seconds  Worker  Node
17         4.25     1       n1
"""


def test_a_job_that_has_not_begun_is_shown_all_the_same() -> None:
    job: dict[str, Any] = JOB | {"status": "Queued", "waiting_for": None, "resumes": 0}
    del job["progress"]
    assert describe(job) == "Job        nightly: Queued\nEndpoint   scale/blue\nOutput     /out\n"


def test_a_failed_job_says_why() -> None:
    job = JOB | {"status": "Failed", "error": {"code": "InitFailed", "message": "init() failed"}}
    assert "Error      init() failed\n" in describe(job)

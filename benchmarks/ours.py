"""`python -m benchmarks.ours JOB`: the engine's whole job, on the Ray that runs."""

from __future__ import annotations

import json
import math
import queue
import statistics
import sys
import time
from pathlib import Path

from benchmarks.works import FACTS, SCRIPTS, Job
from inferay.engine.batch import JobSpec, run
from inferay.engine.batch.messages import Event, Lease, WorkerReady
from inferay.engine.batch.pool import Events, Pool, SettingsOf
from inferay.engine.batch.runner import on_ray
from inferay.engine.batch.spec import JobSettings, WorkerSpec

#: Of a table, one mini-batch: about 150,000 rows of CSV, one row group of Parquet.
SLICES = {"csv": "8MB", "parquet": "4MB"}


def spec_of(job: Job) -> JobSpec:
    """Return the job as the engine takes it."""
    # Tables are cut by rows, into slices as large as the plain processes take.
    settings = (
        JobSettings(mini_batch_size=job.mini_batch_size) if job.kind == "files"
        else JobSettings(mini_batch_size=SLICES[job.kind], split="rows", table="pyarrow")
    )
    model = f"{job.model_dir}/model.joblib" if job.model_dir else ""
    return JobSpec(
        name="bench", input=job.input,
        input_type="uri_folder" if job.kind == "files" else "uri_file",
        output=f"{job.output}/rows", work=f"{job.output}/work", logs=f"{job.output}/logs",
        code=str(SCRIPTS), scoring_script=f"{job.script}.py", model=model,
        settings=settings, workers=WorkerSpec(count=2),
    )


class NotedEvents(queue.SimpleQueue[Event]):
    """A pool's events; notes when each worker was ready for the first time.

    Attributes:
        ready_s: By slot.
        first_lease_s: When the first lease was given; infinite before.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.ready_s: dict[int, float] = {}
        self.first_lease_s = math.inf

    def put(self, item: Event, block: bool = True, timeout: float | None = None) -> None:
        if isinstance(item, WorkerReady):
            self.ready_s.setdefault(item.slot, time.monotonic())
        self._events.put(item)

    def note_leases_of(self, pool: Pool) -> Pool:
        lease = pool.lease

        def noted(slot: int, work: Lease) -> None:
            self.first_lease_s = min(self.first_lease_s, time.monotonic())
            lease(slot, work)

        pool.lease = noted   # type: ignore[assignment, method-assign]
        return pool

    @property
    def lacking_s(self) -> float:
        """How long a worker was not up yet, on average, from the first lease on."""
        return statistics.mean(max(0.0, s - self.first_lease_s) for s in self.ready_s.values())


def main() -> None:
    job = Job.load(sys.argv[1])
    spec = spec_of(job)
    noted: list[NotedEvents] = []

    def make_pool(settings_of: SettingsOf, events: Events) -> Pool:
        noted.append(NotedEvents(events))
        return noted[0].note_leases_of(on_ray(spec.workers)(settings_of, noted[0]))

    result = run(spec, make_pool=make_pool)
    assert result.counts.rows == job.items, result
    facts = {
        "seconds": result.seconds - noted[0].lacking_s, "deaths": result.counts.deaths,
    }
    (Path(job.output) / FACTS).write_text(json.dumps(facts))


if __name__ == "__main__":
    main()

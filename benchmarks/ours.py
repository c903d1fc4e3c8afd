"""`python -m benchmarks.ours JOB`: the engine's whole job, on the Ray that runs.

With `--together` work begins when all workers are up, as the plain processes' does: for the time
without starts. Whole jobs begin with the first worker.
"""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path

from benchmarks.works import FACTS, SCRIPTS, Job
from inferay.engine.batch import JobSpec, run
from inferay.engine.batch.messages import Event, WorkerReady
from inferay.engine.batch.pool import Events, Pool, SettingsOf
from inferay.engine.batch.runner import on_ray
from inferay.engine.batch.spec import JobSettings, WorkerSpec

#: Of a table, one mini-batch: about 150,000 rows of CSV, one row group of Parquet.
SLICES = {"csv": "8MB", "parquet": "4MB"}


def spec_of(job: Job) -> JobSpec:
    """Return the job as the engine takes it."""
    if job.kind == "mlflow":
        return JobSpec(
            name="bench", input=job.input, input_type="uri_file", output=f"{job.output}/rows",
            work=f"{job.output}/work", logs=f"{job.output}/logs", code="", scoring_script="",
            model=job.model_dir, flavor="mlflow",
            settings=JobSettings(mini_batch_size=10, split="rows", table="pandas"),
            workers=WorkerSpec(count=2),
        )
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


class TogetherEvents(queue.SimpleQueue[Event]):
    """A pool's events, in which all workers are ready at once: when the last of them is.

    So no lease is given before: a time from the first lease on holds no worker's start.
    """

    def __init__(self, events: Events, count: int) -> None:
        self._events = events
        self._count = count
        self._ready: list[WorkerReady] | None = []

    def put(self, item: Event, block: bool = True, timeout: float | None = None) -> None:
        if self._ready is None or not isinstance(item, WorkerReady):
            self._events.put(item)
            return
        self._ready.append(item)
        if len(self._ready) == self._count:
            ready, self._ready = self._ready, None
            for one in ready:
                self._events.put(one)


def main() -> None:
    job = Job.load(sys.argv[1])
    spec = spec_of(job)
    start_pool = on_ray(spec.workers)

    def make_pool(settings_of: SettingsOf, events: Events) -> Pool:
        return start_pool(settings_of, TogetherEvents(events, spec.workers.count))

    result = run(spec, make_pool=make_pool if "--together" in sys.argv else start_pool)
    assert result.counts.rows == job.items, result
    facts = {"seconds": result.seconds, "deaths": result.counts.deaths}
    (Path(job.output) / FACTS).write_text(json.dumps(facts))


if __name__ == "__main__":
    main()

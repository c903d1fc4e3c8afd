"""`python -m benchmarks.ours JOB`: the engine's whole job, on the Ray that runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.works import FACTS, SCRIPTS, Job
from inferay.engine.batch import JobSpec, run
from inferay.engine.batch.spec import JobSettings, WorkerSpec


def spec_of(job: Job) -> JobSpec:
    """Return the job as the engine takes it."""
    settings = JobSettings(mini_batch_size=job.mini_batch_size)
    return JobSpec(
        name="bench", input=job.input,
        input_type="uri_folder" if job.kind == "files" else "uri_file",
        output=f"{job.output}/rows", work=f"{job.output}/work", logs=f"{job.output}/logs",
        code=str(SCRIPTS), scoring_script=f"{job.script}.py", model_dir=job.model_dir,
        settings=settings, workers=WorkerSpec(count=2),
    )


def main() -> None:
    job = Job.load(sys.argv[1])
    result = run(spec_of(job))
    assert result.counts.rows == job.items, result
    facts = {"seconds": result.seconds, "deaths": result.counts.deaths}
    (Path(job.output) / FACTS).write_text(json.dumps(facts))


if __name__ == "__main__":
    main()

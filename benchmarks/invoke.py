"""A small job from `invoke` to Completed, beside a bare Ray job that starts two actors and ends.

Both on the same running cluster, which is warm.
"""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from pathlib import Path

from benchmarks.report import Plain
from benchmarks.works import SCRIPTS, make_files

BARE_JOB = '''
import ray

@ray.remote(num_cpus=0.03)
class Actor:
    def ready(self):
        return True

ray.init(log_to_driver=False)
ray.get([actor.ready.remote() for actor in [Actor.remote(), Actor.remote()]])
'''


def invoke(folder: Path, repetitions: int) -> Plain:
    """Measure a small job on a warm cluster and a bare Ray job in turn."""
    from inferay import launcher
    from inferay.client import Client
    from inferay.client.http import Address
    from inferay.config import Workspace
    from inferay.engine.ray_dashboard import RayAddress
    from inferay.engine.resources import (
        BatchDeployment,
        BatchEndpoint,
        BatchSettings,
        CodeConfiguration,
        Resources,
    )
    from inferay.jobs.ray_jobs import RayJobs

    job = make_files(folder / "input", 10, script="tiny", text=str)
    bare = folder / "bare.py"
    bare.write_text(BARE_JOB)
    workspace = Workspace(folder / "home")
    try:
        head = launcher.up(workspace).head
        assert head is not None
        ray_jobs = RayJobs(RayAddress(head.gcs, head.dashboard, Path(head.token_path)))
        address = Address.of_workspace(workspace)
        client = Client(address.url, address.token, address.ca)
        client.batch_endpoints.create_or_update(BatchEndpoint(name="bench"))
        client.batch_deployments.create_or_update(
            BatchDeployment(
                name="d", endpoint_name="bench",
                code_configuration=CodeConfiguration(
                    code=str(SCRIPTS), scoring_script=f"{job.script}.py"
                ),
                resources=Resources(instance_count=2),
                settings=BatchSettings(mini_batch_size=1),
            ),
            set_default=True,
        )
        uri = f"file://{job.input}"
        client.batch_endpoints.invoke("bench", input=uri).wait()   # the cluster is warm then
        ours, theirs = [], []
        for _ in range(repetitions):
            began_s = time.monotonic()
            client.batch_endpoints.invoke("bench", input=uri).wait()
            ours.append(time.monotonic() - began_s)
            theirs.append(_bare_job(ray_jobs, bare))
    finally:
        launcher.down(workspace)
    note = "10 files, 2 workers, invoke to Completed; bare Ray job with 2 actors, submit to end"
    return Plain("invoke", note, 1.5, ours, theirs, [0.0])


def _bare_job(ray_jobs: object, script: Path) -> float:
    from inferay.jobs.ray_jobs import RayJobs

    assert isinstance(ray_jobs, RayJobs)
    key = uuid.uuid4().hex
    began_s = time.monotonic()
    ray_jobs.submit(key, shlex.join([sys.executable, str(script)]), {})
    while ray_jobs.driver(key) != "gone":
        time.sleep(0.1)
    return time.monotonic() - began_s

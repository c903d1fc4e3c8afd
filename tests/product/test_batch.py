"""The product as its users meet it: the installed command, real Ray, real https, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.product.conftest import Product

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROWS = "".join(f"in{number:03d}.txt {number * 3} utils\n" for number in range(100))


def test_yaml_and_commands_give_one_row_per_input_in_order(product: Product) -> None:
    job = product.invoke()
    streamed = product.ok("job", "stream", "--name", job)
    assert "Completed. 100 items ok, 0 failed, 100 rows." in streamed
    product.ok("job", "download", "--name", job, "--output-name", "score", "--download-path",
               "./out")
    file = product.folder / "out" / "named-outputs" / "score" / "predictions.csv"
    assert file.read_text() == ROWS


def test_the_error_threshold_decides_between_completed_and_failed(product: Product) -> None:
    poison = "environment_variables.POISON=in010.txt,in050.txt,in090.txt"
    jobs = {
        threshold: product.invoke("--set", f"error_threshold={threshold}", poison)
        for threshold in (3, 2)
    }
    completed = product.inferay("job", "stream", "-n", jobs[3])
    failed = product.inferay("job", "stream", "-n", jobs[2])
    assert (completed.code, failed.code) == (0, 1)
    errors = (product.output(jobs[3]) / "errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in errors] == ["in010.txt", "in050.txt", "in090.txt"]
    rows = (product.output(jobs[3]) / "predictions.csv").read_text().splitlines()
    assert len(rows) == 97
    assert "3 items have failed, more than error_threshold 2 allows" in failed.out
    assert "ValueError: cannot read in0" in failed.out
    assert {path.name for path in product.output(jobs[2]).iterdir()} <= {"predictions.csv.partial"}


def test_a_failing_init_fails_the_job_soon_with_the_users_traceback(product: Product) -> None:
    (product.folder / "bad").mkdir()
    (product.folder / "bad" / "score.py").write_text(
        "def init():\n    raise RuntimeError('no weights')\n\ndef run(mini_batch):\n    return []\n"
    )
    product.ok("batch-deployment", "create", "-f", "deployment.yml", "-e", "scale", "-n", "bad",
               "--set", "code_configuration.code=bad")
    job = product.invoke("-d", "bad")
    began_s = time.monotonic()
    said = product.inferay("job", "stream", "-n", job)
    assert (said.code, time.monotonic() - began_s < 30) == (1, True)
    assert 'File "score.py", line 2, in init' in said.out
    assert "RuntimeError: no weights" in said.out
    assert "site-packages" not in said.out
    assert "inferay/engine" not in said.out


def test_two_jobs_run_at_once_and_one_is_canceled_in_the_middle(product: Product) -> None:
    stopped, other = product.invoke("-d", "slow"), product.invoke()
    product.wait_for_rows(stopped, 3)
    began_s = time.monotonic()
    product.ok("job", "cancel", "-n", stopped)
    product.wait_until(lambda: product.field(stopped, "status") == "Canceled", 10)
    assert time.monotonic() - began_s < 10
    assert {path.name for path in product.output(stopped).iterdir()} == {"predictions.csv.partial"}
    rows = (product.output(stopped) / "predictions.csv.partial").read_text()
    assert set(rows.splitlines()) <= set(ROWS.splitlines())
    product.ok("job", "stream", "-n", other)
    assert (product.output(other) / "predictions.csv").read_text() == ROWS


def test_a_killed_driver_is_replaced_and_the_output_is_exact(product: Product) -> None:
    job = product.invoke("-d", "slow")
    product.wait_for_rows(job, 3)
    work = product.home / "datastores" / "workspaceartifactstore" / "ExperimentRun"
    progress = json.loads((work / f"dcid.{job}" / "work" / "progress.json").read_text())
    psutil.Process(progress["pid"]).kill()
    assert product.inferay("job", "stream", "-n", job).code == 0
    assert product.field(job, "resumes") == "1"
    assert (product.output(job) / "predictions.csv").read_text() == ROWS


def test_a_job_whose_supervisor_is_killed_is_resumed_and_the_output_is_exact(
    product: Product,
) -> None:
    """Ray then kills the driver too; nobody is told."""
    job = product.invoke("-d", "slow")
    product.wait_for_rows(job, 3)
    work = product.home / "datastores" / "workspaceartifactstore" / "ExperimentRun"
    progress = json.loads((work / f"dcid.{job}" / "work" / "progress.json").read_text())
    above = psutil.Process(progress["pid"]).parents()
    (supervisor,) = [p for p in above if "JobSupervisor" in " ".join(p.cmdline())]
    supervisor.kill()
    assert product.inferay("job", "stream", "-n", job).code == 0
    assert product.field(job, "resumes") == "1"
    assert (product.output(job) / "predictions.csv").read_text() == ROWS


def test_a_killed_control_plane_and_a_killed_head_lose_nothing(product: Product) -> None:
    job = product.invoke("-d", "slow")
    product.wait_for_rows(job, 3)
    processes = json.loads((product.home / "run" / "processes.json").read_text())
    os.kill(processes["control"]["pid"], signal.SIGKILL)
    assert product.inferay("job", "show", "-n", job).code == 6
    os.kill(processes["ray"]["pid"], signal.SIGKILL)
    product.ok("up")
    product.ok("up")   # a second one is harmless
    assert product.field(job, "status") in ("Queued", "Preparing", "Running")
    assert product.inferay("job", "stream", "-n", job).code == 0
    assert (product.output(job) / "predictions.csv").read_text() == ROWS


def test_down_and_up_in_the_middle_of_a_job_lose_nothing(product: Product) -> None:
    job = product.invoke("-d", "slow")
    product.wait_for_rows(job, 3)
    assert product.ok("down") == "ended: edge, control plane, Ray"
    assert product.processes() == []
    assert product.ok("down") == "nothing was running"
    product.ok("up")
    assert product.field(job, "status") in ("Queued", "Preparing", "Running")
    assert product.inferay("job", "stream", "-n", job).code == 0
    assert (product.output(job) / "predictions.csv").read_text() == ROWS


def test_a_jobs_processes_are_gone_when_it_has_ended(product: Product) -> None:
    job = product.invoke()
    product.ok("job", "stream", "-n", job)
    child = "inferay.engine.batch.child"

    def left() -> list[str]:
        lines = []
        for process in product.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                lines.append(" ".join(process.cmdline()))
        return [line for line in lines if f"dcid.{job}" in line or child in line]

    product.wait_until(lambda: left() == [], 20)


def test_secrets_are_private_and_in_no_command_line_or_log(product: Product) -> None:
    secrets = [
        (product.home / "secrets" / name).read_text() for name in
        ("admin_token", "ray_token", "edge_secret", "registration_key", "token_key")
    ]
    for path in (product.home / "secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    for process in psutil.process_iter(["cmdline"]):
        assert not any(secret in str(process.info["cmdline"]) for secret in secrets)
    for log in (product.home / "logs").iterdir():
        assert not any(secret.encode() in log.read_bytes() for secret in secrets), log


def test_user_code_does_not_see_the_workspaces_secrets(product: Product) -> None:
    (product.folder / "spy").mkdir()
    (product.folder / "spy" / "score.py").write_text(
        "import os\n\ndef init():\n    pass\n\ndef run(mini_batch):\n"
        "    return [' '.join(sorted(os.environ)) for _ in mini_batch]\n"
    )
    product.ok("batch-deployment", "create", "-f", "deployment.yml", "-e", "scale", "-n", "spy",
               "--set", "code_configuration.code=spy", "environment_variables.MINE=1")
    job = product.invoke("-d", "spy", "-m", "100")
    product.ok("job", "stream", "-n", job)
    names = (product.output(job) / "predictions.csv").read_text().splitlines()[0].split()
    assert "MINE" in names
    assert not [name for name in names if name.startswith(("INFERAY_", "RAY_AUTH_TOKEN"))]


def test_the_home_is_only_the_users(product: Product) -> None:
    assert Path(product.home).stat().st_mode & 0o777 == 0o700

"""`make demo`: real images through a batch endpoint, from nothing to the measured accuracy.

Works in `.demo/` (or `DEMO_DIR`) with a workspace of its own, and shows every command that it runs.
Nothing is left running, unless `KEEP=1`. It can be run again at any time.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

EXAMPLE = Path(__file__).resolve().parent
ROOT = EXAMPLE.parents[1]
COPIED = ("endpoint.yml", "deployment.yml", "prepare.py", "train.py", "accuracy.py", "src",
          "environment")


class Demo:
    """A shell session: its folder, its environment, and what it shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "digits"
        self.home = folder / "home"
        inferay = {"INFERAY_URL", "INFERAY_TOKEN", "INFERAY_CA", "RAY_ADDRESS"}
        kept = {name: value for name, value in os.environ.items() if name not in inferay}
        self.environment = kept | {
            "INFERAY_HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def copy(self) -> None:
        """Copy the example, so that it can be changed without changing the checkout."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            source = EXAMPLE / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name, dirs_exist_ok=True)
            else:
                shutil.copy2(source, self.folder / name)
        shutil.rmtree(self.folder / "out", ignore_errors=True)

    def enter(self) -> None:
        """Show how a person gets a shell like this one."""
        say(f"$ source {shlex.quote(str(Path(sys.executable).parent / 'activate'))}")
        say(f"$ cd {shlex.quote(str(self.folder))}")
        say(f"$ export INFERAY_HOME={shlex.quote(str(self.home))}")

    def run(self, command: str) -> None:
        """Show a command and run it."""
        say(f"$ {command}")
        subprocess.run(shlex.split(command), cwd=self.folder, env=self.environment, check=True)

    def capture(self, variable: str, command: str) -> str:
        """Show a command, run it, and return what it printed as a shell variable would hold it."""
        say(f"$ {variable}=$({command})")
        done = subprocess.run(
            shlex.split(command), cwd=self.folder, env=self.environment, check=True,
            stdout=subprocess.PIPE, text=True,
        )
        return done.stdout.strip()


def main() -> None:
    """Run the demo."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    began_s = time.monotonic()
    demo = Demo(Path(os.environ.get("DEMO_DIR") or ROOT / ".demo").absolute())
    keep = os.environ.get("KEEP", "0") not in ("", "0")
    is_done = False
    try:
        walk(demo)
        is_done = True
    except subprocess.CalledProcessError as error:
        say(f"the demo ended early: the last command failed with exit code {error.returncode}")
    except KeyboardInterrupt:
        say("interrupted")
    finally:
        if not (keep and is_done):
            clean_up(demo)
    if is_done:
        say_next(demo, keep, time.monotonic() - began_s)
    sys.exit(0 if is_done else 1)


def walk(demo: Demo) -> None:
    """Go from nothing to the accuracy."""
    demo.copy()
    demo.enter()
    step("The data: scikit-learn's handwritten digits as files, and a model for them")
    demo.run("python prepare.py data")
    demo.run("python train.py data model")
    step("A workspace: Ray and the control plane, in the background")
    demo.run("inferay up")
    step("An endpoint, and a deployment of the model behind it")
    demo.run("inferay batch-endpoint create -f endpoint.yml --query scoring_uri -o tsv")
    demo.run("inferay batch-deployment create -f deployment.yml --endpoint-name digits "
             "--set-default --query provisioning_state -o tsv")
    step("The batch job: 1,500 images in, one row for each out")
    job = demo.capture(
        "JOB", "inferay batch-endpoint invoke --name digits --input data/images --query name -o tsv"
    )
    demo.run(f"inferay job stream --name {job}")
    demo.run(f"inferay job download --name {job} --output-name score --download-path out -o tsv")
    step("The result: file, digit, probability")
    demo.run("head -n 5 out/named-outputs/score/predictions.csv")
    demo.run("python accuracy.py out/named-outputs/score/predictions.csv data/labels.csv")


def clean_up(demo: Demo) -> None:
    """End the workspace; a second Ctrl-C does not stop that half way."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if demo.home.exists():
        step("The end")
        demo.run("inferay down")


def say_next(demo: Demo, keep: bool, seconds: float) -> None:
    """Say what to try next."""
    step(f"Done in {seconds:.0f} s. What to try next")
    if not keep:
        say("- KEEP=1 make demo: the same, and the workspace stays up.")
        say(f"- Change src/score.py or deployment.yml in {demo.folder}, then go through the "
            "commands above.")
        say("- README.md has a deployment of your own, and jobs by curl, Python and Ray's command.")
        return
    demo.enter()
    say("$ inferay status")
    say("$ inferay batch-endpoint invoke --name digits --input data/images --mini-batch-size 100")
    say("$ inferay job list -o table")
    say("$ inferay down        # ends what still runs")


def step(title: str) -> None:
    """Show a heading."""
    say(f"\n# {title}")


def say(line: str) -> None:
    """Print a line before any command prints its own."""
    print(line, flush=True)


def stop(number: int, _frame: object) -> NoReturn:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()

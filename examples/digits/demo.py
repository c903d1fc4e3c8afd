"""`make demo`: real images through a batch endpoint, and then through an online endpoint.

From nothing to the measured accuracy of a batch job, and to a second version of a model that gets
its share of the requests. Works in `.demo/` (or `DEMO_DIR`) with a workspace of its own, and shows
every command that it runs. Nothing is left running, unless `KEEP=1`. It can be run again at any
time.
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

EXAMPLES = Path(__file__).resolve().parents[1]
ROOT = EXAMPLES.parent
COPIED = {
    "digits": ("endpoint.yml", "deployment.yml", "prepare.py", "train.py", "accuracy.py", "src",
               "environment"),
    "online": ("endpoint.yml", "blue-deployment.yml", "green-deployment.yml", "src", "send.py",
               "sample-request.json"),
}

ONLINE = "digits-online"
CA = '"$INFERAY_HOME/tls/ca.pem"'
SEND = f"python send.py {ONLINE} ../digits/data --ca {CA}"
CURL = (f"curl --fail --silent --show-error --cacert {CA} --header \"Authorization: Bearer $KEY\" "
        "--header 'Content-Type: application/json' --data @sample-request.json $URI")

VARIABLES = {
    "URI": f"inferay online-endpoint show --name {ONLINE} --query scoring_uri -o tsv",
    "KEY": f"inferay online-endpoint get-credentials --name {ONLINE} --query primaryKey -o tsv",
}


class Demo:
    """A shell session: its folder, its environment, and what it shows."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.folder = folder / "digits"
        self.home = folder / "home"
        inferay = {"INFERAY_URL", "INFERAY_TOKEN", "INFERAY_CA", "RAY_ADDRESS"}
        kept = {name: value for name, value in os.environ.items() if name not in inferay}
        self.environment = kept | {
            "INFERAY_HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def copy(self) -> None:
        """Copy the examples, so that they can be changed without changing the checkout."""
        for example, names in COPIED.items():
            (self.root / example).mkdir(parents=True, exist_ok=True)
            for name in names:
                source, target = EXAMPLES / example / name, self.root / example / name
                if source.is_dir():
                    shutil.copytree(source, target, dirs_exist_ok=True)
                else:
                    shutil.copy2(source, target)
        shutil.rmtree(self.folder / "out", ignore_errors=True)

    def enter(self) -> None:
        """Show how a person gets a shell like this one."""
        say(f"$ source {shlex.quote(str(Path(sys.executable).parent / 'activate'))}")
        say(f"$ cd {shlex.quote(str(self.folder))}")
        say(f"$ export INFERAY_HOME={shlex.quote(str(self.home))}")

    def change_to(self, example: str) -> None:
        """Change to the folder of another example."""
        say(f"$ cd ../{example}")
        self.folder = self.root / example

    def run(self, command: str) -> None:
        """Show a command and run it."""
        say(f"$ {command}")
        self._call(command, None)

    def capture(self, variable: str, command: str) -> None:
        """Show a command, run it, and keep what it printed in a variable of the shell."""
        say(f"$ export {variable}=$({command})")
        self.environment[variable] = self._call(command, subprocess.PIPE).strip()

    def prints(self, command: str, line: str) -> bool:
        """Return whether a command, which is not shown, prints this line."""
        return line in self._call(command, subprocess.PIPE).splitlines()

    def _call(self, command: str, stdout: int | None) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, check=True,
            stdout=stdout, text=True,
        )
        return done.stdout or ""


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
    """Go from nothing to the accuracy of a batch job, and to the second version of a model."""
    demo.copy()
    demo.enter()
    step("The data: scikit-learn's handwritten digits as files, and a model for them")
    demo.run("python prepare.py data")
    demo.run("python train.py data model")
    step("A workspace: Ray, the control plane and the edge, in the background")
    demo.run("inferay up")
    walk_batch(demo)
    walk_online(demo)


def walk_batch(demo: Demo) -> None:
    """Score the images as one job."""
    step("A batch endpoint, and a deployment of the model behind it")
    demo.run("inferay batch-endpoint create -f endpoint.yml --query scoring_uri -o tsv")
    demo.run("inferay batch-deployment create -f deployment.yml --endpoint-name digits "
             "--set-default --query provisioning_state -o tsv")
    step("The batch job: 1,500 images in, one row for each out")
    demo.capture(
        "JOB", "inferay batch-endpoint invoke --name digits --input data/images --query name -o tsv"
    )
    demo.run("inferay job stream --name $JOB")
    demo.run("inferay job download --name $JOB --output-name score --download-path out -o tsv")
    step("The result: file, digit, probability")
    demo.run("head -n 5 out/named-outputs/score/predictions.csv")
    demo.run("python accuracy.py out/named-outputs/score/predictions.csv data/labels.csv")


def walk_online(demo: Demo) -> None:
    """Let the second version of a model take over from the first, under requests."""
    step("An online endpoint: the model of today, blue, answers each request at once")
    demo.change_to("online")
    if demo.prints("inferay online-endpoint list --query '[].name' -o tsv", ONLINE):
        demo.run(f"inferay online-endpoint delete --name {ONLINE} --yes")   # of an earlier demo
    demo.run("python ../digits/train.py ../digits/data models/blue")
    demo.run("python ../digits/train.py ../digits/data models/green --c 10")
    demo.run("inferay online-endpoint create -f endpoint.yml --query scoring_uri -o tsv")
    demo.run("inferay online-deployment create -f blue-deployment.yml --all-traffic "
             "--query provisioning_state -o tsv")
    demo.run(f"inferay online-endpoint invoke --name {ONLINE} --request-file sample-request.json")
    step("The model of tomorrow, green, beside it: no requests but those that ask for it")
    demo.run("inferay online-deployment create -f green-deployment.yml "
             "--query provisioning_state -o tsv")
    demo.run(f"inferay online-endpoint invoke --name {ONLINE} --deployment-name green "
             "--request-file sample-request.json")
    step("Green gets copies of half of the requests; clients are answered by blue alone")
    demo.run(f"inferay online-endpoint update --name {ONLINE} --mirror-traffic green=50 "
             "--query mirror_traffic -o tsv")
    demo.run(f"{SEND} --requests 400")
    demo.run(f"inferay online-endpoint shadow-report --name {ONLINE} --live blue --shadow green "
             "--absolute-tolerance 0.5 --worst 3")
    step("Green gets one request in ten")
    demo.run(f"inferay online-endpoint update --name {ONLINE} --traffic 'blue=90 green=10' "
             "--mirror-traffic green=0 --query traffic -o tsv")
    demo.run(f"{SEND} --requests 500")
    step("As any client asks: a key, an address, and the CA of this workspace")
    for variable, command in VARIABLES.items():
        demo.capture(variable, command)
    demo.run(f"{CURL} && echo")


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
        say(f"- Change a file in {demo.root}, then go through the commands above.")
        say("- README.md has a deployment of your own, and jobs by curl, Python and Ray's command.")
        return
    demo.enter()
    say("$ inferay status")
    for variable, command in VARIABLES.items():
        say(f"$ export {variable}=$({command})")
    say(f"$ {CURL}")
    say(f"$ inferay online-endpoint update --name {ONLINE} --traffic green=100")
    say("$ cd ../digits")
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

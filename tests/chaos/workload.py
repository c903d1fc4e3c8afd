"""What a chaos trial runs: the input, the scripts, and what is drawn from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

#: Each call of `run()` adds a line of this many bytes to the file CALLS: how far the job is.
CALL_BYTES = 5

_HEAD = """
import hashlib, os, time

def init():
    global OUT
    OUT = os.environ.get("AZUREML_BI_OUTPUT_PATH")

def score(path):
    with open(path, "rb") as file:
        content = file.read()
    if content.startswith(b"poison"):
        raise ValueError("a poison item")
    time.sleep(float(os.environ["NAP_S"]))
    return f"{os.path.basename(path)}={hashlib.sha256(content).hexdigest()}"

def tell(mini_batch):
    with open(os.environ["CALLS"], "a") as file:
        file.write("call\\n" * len(mini_batch))
"""

#: What users write: a row per file, or files of their own beside `summary_only`.
SCRIPTS = {
    "rows": _HEAD + """
def run(mini_batch):
    rows = [score(path) for path in mini_batch]
    tell(mini_batch)
    return rows
""",
    "files": _HEAD + """
def run(mini_batch):
    os.makedirs(os.path.join(OUT, "out"), exist_ok=True)
    for path in mini_batch:
        row = score(path)
        with open(os.path.join(OUT, "out", os.path.basename(path) + ".txt"), "w") as file:
            file.write(row + "\\n")
    tell(mini_batch)
    return mini_batch
""",
}

#: Faults, and how often each is drawn.
FAULTS = {"worker": 9, "actor": 4, "driver": 5, "zombie driver": 2}
NODE_FAULTS = ("node", "zombie node")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: What is killed or frozen.
        at: How far the job is then: a share of its items. At 1 the output is being published.
        choice: Which one, as a share of those there are.
        frozen_s: How long it is frozen, for zombies.
    """

    kind: str
    at: float
    choice: float
    frozen_s: float


@dataclass(frozen=True)
class Plan:
    """A trial, drawn from its seed alone."""

    seed: int
    script: str
    storage: str
    items: int
    poison: int
    mini_batch_size: int
    workers: int
    nap_s: float
    faults: tuple[Fault, ...]

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """Return the trial of this seed."""
        chance = random.Random(seed)
        workers = chance.choice((1, 2, 4))
        kinds = chance.choices(list(FAULTS), list(FAULTS.values()), k=chance.randint(3, 6))
        if seed % 4 == 0:   # the dear ones: a node is gone or frozen
            kinds.append(chance.choice(NODE_FAULTS))
        faults = (
            Fault(
                kind, 1.0 if "driver" in kind and chance.random() < 0.3 else chance.random(),
                chance.random(), chance.uniform(*(5.0, 7.0) if "node" in kind else (0.5, 2.5)),
            )
            for kind in kinds
        )
        items = chance.randint(100, 300)
        return cls(
            seed, chance.choice(sorted(SCRIPTS)), "local", items,
            chance.choice((0, 0, 1, 2)), chance.choice((1, 3, 10)), workers,
            round(2.5 * workers / items, 4), tuple(sorted(faults, key=lambda fault: fault.at)),
        )

    def write_input(self, folder: Path) -> None:
        """Write the items, some of them poison."""
        chance = random.Random(-self.seed)
        folder.mkdir()
        poison = chance.sample(range(self.items), self.poison)
        for number in range(self.items):
            content = chance.randbytes(chance.randint(0, 2_000))
            path = folder / f"item-{number:05d}"
            path.write_bytes(b"poison" if number in poison else b"ok" + content)

    def describe(self) -> str:
        """Return the trial in one line."""
        return (
            f"{self.script} on {self.storage}: {self.items} items, {self.poison} poison, "
            f"mini-batches of {self.mini_batch_size}, {self.workers} workers"
        )

"""What a chaos trial runs: the input, the scripts, and what is drawn from the seed."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

#: Each item that a call of `run()` scored adds a line of this many bytes to the file CALLS.
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

def tell(mini_batch):   # how far the job is
    with open(os.environ["CALLS"], "a") as file:
        file.write("call\\n" * len(mini_batch))
"""

_TABLE = """
import hashlib, os, time
import pandas

def init():
    pass

def run(table: pandas.DataFrame):
    if table["text"].str.startswith("poison").any():
        raise ValueError("a poison row")
    time.sleep(float(os.environ["NAP_S"]) * len(table))
    with open(os.environ["CALLS"], "a") as file:
        file.write("call\\n" * len(table))
    return [
        f"{name}={hashlib.sha256(text.encode()).hexdigest()}"
        for name, text in zip(table["name"], table["text"])
    ]
"""

#: What users write: a row per file, or per row of a table, or files of their own beside
#: `summary_only`.
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
    "table": _TABLE,
}

#: Faults, and how often each is drawn.
FAULTS = {"worker": 9, "actor": 4, "driver": 5, "zombie driver": 2}
NODE_FAULTS = ("node", "zombie node")

#: Shares of requests to S3 that meet a fault; one is drawn for each trial on S3.
FAULT_RATES = (0.0, 0.02, 0.05)

#: Files of a table's rows: most of them are in the first.
TABLE_FILES = 4

#: What the text of a row may be made of: all that CSV has to quote, and more than ASCII.
_TEXTS = ("plain", "größe", "zwei\nzeilen", 'a "quote"', "a, comma", "日本語\n", "🙂")


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
    """A trial, drawn from its seed alone.

    Attributes:
        seed: Its number.
        script: One of `SCRIPTS`.
        storage: `s3` if its work and output are there; else `local`.
        has_far_input: Whether its input is on S3 too.
        fault_rate: The share of requests to S3 that meet a fault.
        items: Files, or rows of a table.
        poison: How many of them fail.
        mini_batch_size: Files, or rows, of a mini-batch.
        workers: At most.
        nap_s: What scoring an item takes.
        faults: In the order in which they strike.
    """

    seed: int
    script: str
    storage: str
    has_far_input: bool
    fault_rate: float
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
        script = chance.choice(sorted(SCRIPTS))
        scale = 10 if script == "table" else 1   # a row is less than a file
        items = chance.randint(100, 300) * scale
        is_far = seed % 3 == 1   # a node's loss falls on each fourth of these
        return cls(
            seed, script, "s3" if is_far else "local", is_far and chance.random() < 0.6,
            chance.choice(FAULT_RATES) if is_far else 0.0, items,
            chance.choice((0, 0, 1, 2)), chance.choice((1, 3, 10)) * scale, workers,
            round(2.5 * workers / items, 5), tuple(sorted(faults, key=lambda fault: fault.at)),
        )

    def write_input(self, folder: Path) -> None:
        """Write the items, some of them poison."""
        chance = random.Random(-self.seed)
        folder.mkdir()
        poison = chance.sample(range(self.items), self.poison)
        if self.script == "table":
            return self._write_tables(folder, chance, poison)
        for number in range(self.items):
            content = chance.randbytes(chance.randint(0, 2_000))
            path = folder / f"item-{number:05d}"
            path.write_bytes(b"poison" if number in poison else b"ok" + content)

    def _write_tables(self, folder: Path, chance: random.Random, poison: list[int]) -> None:
        cuts = sorted(chance.sample(range(self.items * 2 // 3, self.items), TABLE_FILES - 1))
        for number, (first, stop) in enumerate(zip([0, *cuts], [*cuts, self.items], strict=True)):
            path = folder / f"table-{number}.csv"
            with open(path, "w", encoding=chance.choice(("utf-8", "utf-8-sig")), newline="") as to:
                writer = csv.writer(to, lineterminator=chance.choice(("\n", "\r\n")))
                writer.writerow(("name", "text"))
                for row in range(first, stop):
                    text = "".join(chance.choices(_TEXTS, k=chance.randint(1, 20)))
                    writer.writerow((f"row-{row:05d}", "poison" if row in poison else f"ok{text}"))

    def describe(self) -> str:
        """Return the trial in one line."""
        where = self.storage
        if where == "s3":
            where += f" ({'with' if self.has_far_input else 'without'} its input"
            where += f", {self.fault_rate:.0%} faults)"
        return (
            f"{self.script} on {where}: {self.items} items, {self.poison} poison, "
            f"mini-batches of {self.mini_batch_size}, {self.workers} workers"
        )

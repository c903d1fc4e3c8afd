"""What a driver and its workers say to each other, as values that JSON can carry.

A user's exception crosses as text, never as an object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from inferay.engine.batch.formats.columns import Columns, from_json
from inferay.engine.batch.units import Range
from inferay.engine.scoring.environments.spec import EnvironmentSpec
from inferay.engine.storage.access import Access


@dataclass(frozen=True)
class Failure:
    """Why a mini-batch, a part of one, or the start of a worker failed.

    Attributes:
        kind: `Exception`, `Timeout`, `OutOfMemory`, `Crashed`, `Exited`, `Killed`, `Lost`,
            `RowsMissing`, …
        exception: One line: `module.Class: message`, or what ended the process.
        traceback: The user's own frames, or the hung stack; may be empty.
        is_own: Whether the code is to blame (an attempt), not the machine (no attempt).
        is_whole: Whether every item must fail so, however often it is tried, and in whatever parts.
    """

    kind: str
    exception: str
    traceback: str = ""
    is_own: bool = True
    is_whole: bool = False

    @property
    def signature(self) -> tuple[str, str]:
        """What two failures of the same cause have in common."""
        return self.kind, "" if self.kind == "OutOfMemory" else self.exception   # it has a figure


@dataclass(frozen=True)
class Lease:
    """Mini-batches that one worker scores, in order.

    Attributes:
        id: Unique within an epoch.
        range: What is leased.
        attempt: Which attempt of a retried mini-batch or part this is, from 1.
        budget_s: The worker gives back what it has not begun after this time.
    """

    id: int
    range: Range
    attempt: int
    budget_s: float

    def holds(self, mini_batch: int | None) -> bool:
        """Tell whether the mini-batch, if there is one, is in the range."""
        return mini_batch is not None and self.range.first <= mini_batch < self.range.stop


@dataclass(frozen=True)
class StoredFile:
    """A file that user code wrote, stored aside.

    Attributes:
        name: Relative to `AZUREML_BI_OUTPUT_PATH`.
        size_bytes: Its size.
        sha256: Of its content.
        stored: The name in the job's store.
        mini_batch: Whose call of `run()` wrote it; -1 for `init()`.
    """

    name: str
    size_bytes: int
    sha256: str
    stored: str
    mini_batch: int


@dataclass(frozen=True)
class Done:
    """Scored mini-batches whose rows are durable in a segment.

    Attributes:
        range: What was scored.
        segment: The segment's name, or "" if there are no rows to write.
        start: First byte of the rows.
        stop: One past the last byte.
        rows: Rows returned.
        items: Items of the range.
        missing: (mini-batch, items, rows that are missing) where `run()` returned too few.
        files: Files that user code wrote during these calls.
        columns: Of the rows, where their format has columns.
    """

    range: Range
    segment: str
    start: int
    stop: int
    rows: int
    items: int
    missing: tuple[tuple[int, int, int], ...] = ()
    files: tuple[StoredFile, ...] = ()
    columns: Columns = ()


@dataclass(frozen=True)
class Failed:
    """A mini-batch, or a part of one, that failed in a worker that lives on."""

    range: Range
    items: int
    failure: Failure


@dataclass(frozen=True)
class Receipt:
    """A worker's answer to a lease.

    Attributes:
        lease_id: Which lease.
        done: Scored ranges, in order.
        failed: Failed mini-batches.
        rest: What was not begun within the budget, if anything.
        run_s: Time in the user's `run()`.
        wall_s: Time from the lease's begin to its end.
        slowest: The mini-batch that took longest, and its seconds.
        fetch_s: Time in which scoring waited for files to be fetched.
    """

    lease_id: int
    done: tuple[Done, ...]
    failed: tuple[Failed, ...]
    rest: Range | None
    run_s: float
    wall_s: float
    slowest: tuple[int, float] | None = None
    fetch_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as JSON can carry it."""
        return asdict(self) | {
            "done": [asdict(done) | {"range": done.range.to_json()} for done in self.done],
            "failed": [asdict(one) | {"range": one.range.to_json()} for one in self.failed],
            "rest": self.rest and self.rest.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return the receipt that `to_json` described."""
        done = tuple(
            Done(**one | {
                "range": Range.from_json(one["range"]),
                "missing": tuple(tuple(entry) for entry in one["missing"]),
                "files": tuple(StoredFile(**file) for file in one["files"]),
                "columns": from_json(one["columns"]),
            })
            for one in data["done"]
        )
        failed = tuple(
            Failed(Range.from_json(one["range"]), one["items"], Failure(**one["failure"]))
            for one in data["failed"]
        )
        rest = Range.from_json(data["rest"]) if data["rest"] else None
        slowest = tuple(data["slowest"]) if data["slowest"] else None
        return cls(**data | {"done": done, "failed": failed, "rest": rest, "slowest": slowest})


@dataclass(frozen=True)
class WorkerPlaced:
    """A worker has got a place, and starts there.

    Attributes:
        slot: Which worker.
        node: The name of the node.
    """

    slot: int
    node: str


@dataclass(frozen=True)
class WorkerReady:
    """A worker has run `init()` and takes leases.

    Attributes:
        slot: Which worker.
        has_standby: Whether a crash of its process would cost no start.
    """

    slot: int
    has_standby: bool = False


@dataclass(frozen=True)
class WorkerStartFailed:
    """A worker could not be started; its slot is free."""

    slot: int
    failure: Failure


@dataclass(frozen=True)
class WorkerDied:
    """A worker ended with leases in hand; its slot is free.

    Attributes:
        slot: Which worker.
        failure: What ended it.
        in_hand: The mini-batch that it was scoring, if known.
    """

    slot: int
    failure: Failure
    in_hand: int | None


@dataclass(frozen=True)
class WorkerSeen:
    """A worker was looked at.

    Attributes:
        slot: Which worker.
        in_hand: The mini-batch that it scores, if any.
        in_hand_s: For how long.
        memory_bytes: What it uses, with all that it started.
    """

    slot: int
    in_hand: int | None
    in_hand_s: float
    memory_bytes: int


@dataclass(frozen=True)
class ReceiptArrived:
    """A worker has answered a lease; `has_standby` as in `WorkerReady`."""

    slot: int
    receipt: Receipt
    has_standby: bool = False


@dataclass(frozen=True)
class JournalFailed:
    """The journal could not be written; the job cannot go on."""

    error: Exception


Event = (
    WorkerPlaced | WorkerReady | WorkerStartFailed | WorkerDied | WorkerSeen | ReceiptArrived
    | JournalFailed
)


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker process needs to know, as the driver sends it.

    Attributes:
        code_dir: Folder of the scoring script; on its `sys.path`.
        scoring_script: File in that folder.
        model_dir: Value of `AZUREML_MODEL_DIR`, or "".
        model: The model's file or folder in it, or "".
        model_hash: Of a registered model, which is checked before it is loaded; "": of none.
        flavor: What scores with the model alone: `mlflow` or `triton`; "" for the script.
        root: What the units' paths are relative to.
        store: Folder of the job's store.
        segment: Name of the segment that this worker creates, without its ending.
        logs: Folder of the user's logs.
        log_name: Name of the worker's own logs in it, without their endings.
        environment_variables: Set before the script is imported.
        logging_level: `INFO`, `WARNING` or `DEBUG`.
        output_action: `append_row` or `summary_only`.
        output_file_name: Its ending is the format of the rows.
        commits_singly: Whether each mini-batch has a committed range of its own.
        timeout_s: For one call of `run()`.
        threads: What thread pools (OMP, MKL, …) are set to.
        packages: Packages that the environment declares, for a better error.
        environment: What the process builds, if it is not there, and runs in; None: nothing.
        memory_limit_bytes: Of the process and what it starts; None: no limit.
        table: `pandas` or `pyarrow` where `run()` takes tables, "" where it takes paths.
        access: How remote storage is reached.
    """

    code_dir: str
    scoring_script: str
    model_dir: str
    root: str
    store: str
    segment: str
    logs: str
    log_name: str
    environment_variables: dict[str, str] = field(default_factory=dict)
    logging_level: str = "INFO"
    output_action: str = "append_row"
    output_file_name: str = "predictions.csv"
    commits_singly: bool = False
    timeout_s: float = 30.0
    threads: int = 1
    packages: tuple[str, ...] = ()
    environment: EnvironmentSpec | None = None
    memory_limit_bytes: int | None = None
    keeps_standby: bool = True
    table: str = ""
    model: str = ""
    model_hash: str = ""
    flavor: str = ""
    access: Access = field(default_factory=Access)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the settings that `asdict` described."""
        return cls(**data | {
            "packages": tuple(data["packages"]), "access": Access.from_dict(data["access"]),
            "environment": data["environment"] and EnvironmentSpec.from_dict(data["environment"]),
        })

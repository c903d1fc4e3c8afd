"""The frozen job spec: all that a job needs, resolved and absolute, with a hash of each part.

The control plane stores it under the job's name; `python -m inferay.jobs run SPEC` and
`engine.batch.run` take it as it is. What a person writes instead is a deployment's YAML with
`input` and `output_path` (`read_user_spec`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inferay.engine.batch.manifest import check_version
from inferay.engine.scoring.environments.spec import EnvironmentSpec
from inferay.errors import InvalidInput

FORMAT = "inferay.job"
VERSION = 1


@dataclass(frozen=True)
class JobSettings:
    """Azure's settings of a batch deployment, as they hold for one job.

    Attributes:
        mini_batch_size: Files of one call of `run()`, or bytes ("64MB") or rows ("5000 rows").
        split: `rows`: large files are cut; `file`: none is.
        table: What `run()` is given: `pandas` or `pyarrow` tables, or paths if "".
    """

    mini_batch_size: int | str = 10
    split: str = "file"
    table: str = ""
    max_retries: int = 3
    timeout_s: float = 30.0
    error_threshold: int = -1
    output_action: str = "append_row"
    output_file_name: str = "predictions.csv"
    logging_level: str = "INFO"
    environment_variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerSpec:
    """How many workers a job has at most, and what each asks Ray for.

    Attributes:
        count: At most so many.
        num_cpus: Ray CPUs of each.
        num_gpus: Ray GPUs of each.
        threads: Size of numeric libraries' thread pools in each.
        memory_bytes: What each may use before it is ended; None: no limit.
        custom: Ray's other resources of each, by name; `memory` is in bytes.
    """

    count: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    threads: int = 1
    memory_bytes: int | None = None
    custom: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Redrive:
    """Which published job the failed items are of.

    Attributes:
        job: Its name.
        work: Absolute path of its folder of manifest and journal.
        output: Absolute path of its output.
        rows: Name of its rows there, or "" for `summary_only`.
        merge: Whether the new output is the complete one, or that of these items alone.
    """

    job: str
    work: str
    output: str
    rows: str
    merge: bool = False


@dataclass(frozen=True)
class JobSpec:
    """One batch job, resolved.

    Attributes:
        name: The job's name, a GUID unless the user gave one.
        input: Absolute path of the input file or folder.
        input_type: `uri_file` or `uri_folder`.
        output: Absolute path of the folder that the output is published in.
        work: Absolute path of the folder of manifest, journal, segments and progress.
        logs: Absolute path of the folder of logs.
        code: Absolute path of the folder with the scoring script, or "" with a flavor.
        scoring_script: The script's path in it, or "".
        model: Absolute path of the model's file or folder, or "".
        flavor: What scores with the model alone: `mlflow` or `triton`; "" for the script.
        settings: As they hold for this job.
        workers: How many, and what they ask for.
        packages: Packages that the environment declares.
        environment: What it declares beside them, as workers build it; None: nothing.
        hashes: Of model, code, environment and settings, for provenance.
        redrive: Whose failed items are scored; None: the whole input is.
        assets: Which registered versions they are, by `code`, `model` and `environment`.
    """

    name: str
    input: str
    input_type: str
    output: str
    work: str
    logs: str
    code: str
    scoring_script: str
    model: str = ""
    flavor: str = ""
    settings: JobSettings = field(default_factory=JobSettings)
    workers: WorkerSpec = field(default_factory=WorkerSpec)
    packages: tuple[str, ...] = ()
    environment: EnvironmentSpec | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    assets: dict[str, str] = field(default_factory=dict)
    redrive: Redrive | None = None

    def to_bytes(self) -> bytes:
        """Return the spec as it is stored."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=2).encode()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JobSpec:
        """Return the spec that a stored object describes.

        Raises:
            InvalidInput: It lacks a field, or has one too many.
            InferayError: A later version of inferay wrote it.
        """
        check_version(data, FORMAT, VERSION)
        values = {k: v for k, v in data.items() if k not in ("format", "version")}
        try:
            return cls(**values | {
                "settings": JobSettings(**values.get("settings", {})),
                "workers": WorkerSpec(**values.get("workers", {})),
                "packages": tuple(values.get("packages", ())),
                "environment": values.get("environment")
                and EnvironmentSpec.from_dict(values["environment"]),
                "redrive": Redrive(**values["redrive"]) if values.get("redrive") else None,
            })
        except TypeError as error:
            raise InvalidInput(f"this is no job spec: {error}") from None

    @property
    def scored_by(self) -> str:
        """What users call the thing that scores: the script's name, or the model's."""
        return self.scoring_script or f"the model {os.path.basename(self.model)}"

    @property
    def model_dir(self) -> str:
        """Value of `AZUREML_MODEL_DIR`: the folder that the model lies in, or ""."""
        return os.path.dirname(self.model)


def hash_of(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_path(path: Path, *, without: Iterable[str] = ()) -> str:
    """Return the sha256 of a file, or of a folder's file names and contents, in bytewise order.

    Python's caches count for nothing, nor do the folders `without`. Links are read through.
    """
    digest = hashlib.sha256()
    names = [""] if path.is_file() else file_names(path, without=without)
    for name in names:
        with open(path / name if name else path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(os.fsencode(name) + b"\0" + content)
    return digest.hexdigest()


def file_names(folder: Path, *, without: Iterable[str] = ()) -> list[str]:
    """Return the relative paths of the files that `hash_path` reads, in its order."""
    left_out = {os.path.normpath(path) for path in without}
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders
            if name != "__pycache__" and os.path.join(parent, name) not in left_out
        ]
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names]
    return sorted(found, key=os.fsencode)

"""The spec that a person writes for a run without a control plane: a deployment's YAML, and where.

    # spec.yml: everything that a deployment's YAML has, and
    input: ./data              # a file or a folder
    output_path: /data/out     # by default the workspace's own place for the job
    job_name: nightly-7        # by default a GUID; a second run under the name goes on with it

Nothing is registered: `model` is a path or an inline model, `code` a folder, both used in place.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from inferay.config import ARTIFACT_DATASTORE, BLOB_DATASTORE, Workspace
from inferay.engine.batch.formats import check_format
from inferay.engine.batch.memory import machine_bytes, worker_memory_bytes
from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec, hash_of, hash_path
from inferay.engine.batch.split.declared import resolve_split
from inferay.engine.resources import BatchDeployment, Model, is_local_path, load
from inferay.engine.resources.fields import FilledText, Name
from inferay.engine.resources.instance_types import gpu_share, instance_type
from inferay.engine.scoring.environments.declared import inline_spec
from inferay.engine.scoring.flavors import check_model, flavor_of
from inferay.engine.storage import Access, is_bucket, is_remote, redacted, resolve
from inferay.engine.storage.download import cached
from inferay.errors import InvalidInput

#: Where Ray unpacks the working directory of a job; it is deleted with the job.
_RAY_COPY = "/runtime_resources/working_dir_files/"


class BatchJob(BatchDeployment):
    """A deployment's fields, and the input, output and name of one job."""

    NO_EFFECT: ClassVar[frozenset[str]] = BatchDeployment.NO_EFFECT | {"compute"}

    name: Name = "job"
    input: FilledText
    input_type: str | None = None
    output_path: FilledText | None = None
    job_name: Name | None = None


@dataclass(frozen=True)
class LoadedSpec:
    """A job spec, and what its author should know.

    Attributes:
        spec: The job, resolved.
        warnings: A line each.
    """

    spec: JobSpec
    warnings: list[str]


def read_user_spec(path: Path, environ: Mapping[str, str] | None = None) -> LoadedSpec:
    """Return the job that a person's YAML describes; relative paths start at its folder.

    Raises:
        InvalidInput: A field, value or path is wrong; the message names file and line.
    """
    loaded = load(BatchJob, path, name="job")
    job = loaded.entity
    workspace = Workspace.from_environment(environ)
    base = path.absolute().parent
    name = job.job_name or str(uuid.uuid4())
    kind = job.model.type if isinstance(job.model, Model) else None
    flavor = flavor_of(kind, has_code=job.code_configuration is not None)
    if job.code_configuration is None and not flavor:
        raise InvalidInput(f"{path}: code_configuration: missing; a job needs a scoring script")
    source, input_type = _input(job, base, workspace, path)
    output, work, logs = _places(job, base, workspace, name, path)
    check_format(job.settings.output_file_name)
    script = _script(job, path, workspace, environ)
    model = _model_path(job, path, workspace, environ)
    if flavor and model is not None:
        check_model(flavor, model)
    settings = job.settings
    frozen = resolve_split(JobSettings(
        mini_batch_size=settings.mini_batch_size,
        max_retries=settings.retry_settings.max_retries,
        timeout_s=float(settings.retry_settings.timeout),
        error_threshold=settings.error_threshold, output_action=settings.output_action,
        output_file_name=settings.output_file_name,
        logging_level=settings.logging_level.upper(),
        environment_variables=dict(job.environment_variables),
    ), settings.split, script.folder / script.name if script else None)
    environment, notices = inline_spec(job, mlflow_model=model if flavor == "mlflow" else None)
    spec = JobSpec(
        name=name, input=source, input_type=input_type, output=output,
        work=work, logs=str(logs), code=str(script.folder) if script else "",
        scoring_script=script.name if script else "",
        model=str(model) if model else "", flavor=flavor, settings=frozen, workers=_workers(job),
        environment=environment, packages=environment.names if environment is not None else (),
        hashes={
            "code": hash_path(script.folder, without=(output,)) if script else "",
            "model": hash_path(model) if model else "",
            "environment": environment.digest if environment is not None else "",
            "settings": hash_of(frozen.__dict__),
        },
    )
    return LoadedSpec(spec, [*loaded.warnings, *notices])


@dataclass(frozen=True)
class _Script:
    """A scoring script on this machine: its path below the code folder."""

    folder: Path
    name: str


def _script(
    job: BatchJob, path: Path, workspace: Workspace, environ: Mapping[str, str] | None
) -> _Script | None:
    given = job.code_configuration
    if given is None:
        return None
    folder = _fetched(given.code, workspace, environ)
    if not (folder / given.scoring_script).is_file():
        raise InvalidInput(
            f"{path}: scoring_script: {given.code} has no {given.scoring_script}"
        )
    return _Script(folder, given.scoring_script)


def _input(job: BatchJob, base: Path, workspace: Workspace, path: Path) -> tuple[str, str]:
    """Return the input's path or URI, and `uri_file` or `uri_folder`."""
    source = _resolve_uri(job.input, base, workspace)
    if is_remote(source):
        is_web = not is_bucket(source)
        kind = job.input_type or ("uri_file" if is_web else "uri_folder")
        if kind not in ("uri_file", "uri_folder") or (is_web and kind == "uri_folder"):
            raise InvalidInput(f"{path}: input_type: {redacted(source)} is no {kind}")
        return source, kind
    if not os.path.exists(source):
        raise InvalidInput(f"{path}: input: {source} does not exist", code="InputMissing")
    is_folder = os.path.isdir(source)
    kind = job.input_type or ("uri_folder" if is_folder else "uri_file")
    if kind not in ("uri_file", "uri_folder") or (kind == "uri_folder") != is_folder:
        raise InvalidInput(f"{path}: input_type: {source} is no {kind}")
    return source, kind


def _places(
    job: BatchJob, base: Path, workspace: Workspace, name: str, path: Path
) -> tuple[str, str, Path]:
    """Return where the output, the job's work and its logs are.

    With an output of its own, the work lies in it: both are then on storage that workers share.
    Logs grow as they are written, so those of a remote output stay in the workspace.
    """
    if job.output_path is None:
        own = workspace.job_folder(name)
        return str(workspace.output_folder(name)), str(own / "work"), own / "logs"
    if _RAY_COPY in f"{base}/" and is_local_path(job.output_path) \
            and not os.path.isabs(job.output_path):
        raise InvalidInput(
            f"{path.name}: output_path: '{job.output_path}' would lie in the copy of the working "
            "directory that Ray deletes; give an absolute path",
            target="output_path",
        )
    output = _resolve_uri(job.output_path, base, workspace)
    if is_remote(output) and not is_bucket(output):
        raise InvalidInput(
            f"{path.name}: output_path: {redacted(output)}: nothing can be written there; give a "
            "local path, s3://BUCKET/KEY or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
            target="output_path",
        )
    kept = f"{output}/.inferay/{name}"
    folder = workspace.job_folder(name) if is_remote(output) else Path(kept)
    return output, f"{kept}/work", folder / "logs"


def _resolve_uri(value: str, base: Path, workspace: Workspace) -> str:
    if is_local_path(value):
        value = os.path.normpath(base / value.removeprefix("file://").removeprefix("file:"))
    names = (BLOB_DATASTORE, ARTIFACT_DATASTORE)
    return resolve(value, {name: str(workspace.datastores / name) for name in names})


def _fetched(uri: str, workspace: Workspace, environ: Mapping[str, str] | None) -> Path:
    """Return a local path as it is, and a remote file or folder as a copy on this machine."""
    if is_local_path(uri):
        return Path(uri)
    access = Access.from_environment(os.environ if environ is None else environ)
    return cached(resolve(uri, {}), access, workspace.assets / "fetched")


def _model_path(
    job: BatchJob, path: Path, workspace: Workspace, environ: Mapping[str, str] | None
) -> Path | None:
    if job.model is None:
        return None
    if isinstance(job.model, Model) and is_remote(job.model.path):
        return _fetched(job.model.path, workspace, environ)
    if not isinstance(job.model, Model) or not is_local_path(job.model.path):
        shown: Any = job.model if isinstance(job.model, str) else job.model.path
        raise InvalidInput(
            f"{path}: model: '{shown}' is registered, which takes a control plane; give "
            "model: {path: FOLDER}"
        )
    return Path(job.model.path)


def _workers(job: BatchJob) -> WorkerSpec:
    concurrency = job.settings.max_concurrency_per_instance
    count = job.resources.instance_count * concurrency
    kind = instance_type(job.resources.instance_type) if job.resources.instance_type else None
    memory_bytes = worker_memory_bytes(
        job.properties, instance_bytes=kind.memory_bytes if kind else None,
        concurrency=concurrency, machine_bytes=machine_bytes(),
        workers=min(count, os.cpu_count() or 1),   # each asks for a CPU: no more are on one machine
    )
    gpus = kind.gpus if kind else 0
    return WorkerSpec(count, 1.0, gpu_share(gpus, concurrency), memory_bytes=memory_bytes)

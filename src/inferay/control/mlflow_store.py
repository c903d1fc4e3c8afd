"""Where MLflow keeps what we tell it: the workspace's own store, or a server of the user's.

MLflow takes seconds to import, and its tables as long to make: nothing here does so before its
client is asked for, and nobody who answers a request asks for it.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inferay.config import Workspace
from inferay.errors import InvalidInput

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Schemes of what MLflow alone can find: an artifact of a run, a model of its registry.
SCHEMES = ("runs:/", "models:/")

#: What MLflow says of a run, model or path that it has not.
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "NOT_FOUND")

#: The variables by which servers of the user's are named, as MLflow has them.
URI_VARIABLE = "MLFLOW_TRACKING_URI"
REGISTRY_VARIABLE = "MLFLOW_REGISTRY_URI"


class MlflowStore:
    """The client of the store; thread-safe."""

    def __init__(self, workspace: Workspace, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        registry = environ.get(REGISTRY_VARIABLE)
        given = environ.get(URI_VARIABLE) or registry
        self.uri = given or f"sqlite:///{workspace.mlflow / 'mlflow.db'}"
        self.registry_uri = registry or self.uri
        #: Where the artifacts of the store in the workspace lie; None: a server knows by itself.
        self.artifacts: Path | None = None if given else workspace.mlflow / "artifacts"
        self._client: MlflowClient | None = None
        self._lock = threading.Lock()

    def client(self) -> MlflowClient:
        """Return MLflow's client; the first call blocks for seconds."""
        with self._lock:
            if self._client is None:
                from mlflow import MlflowClient

                logging.getLogger("mlflow").setLevel(logging.WARNING)
                if self.artifacts is not None:
                    self.artifacts.mkdir(parents=True, exist_ok=True)
                self._client = MlflowClient(self.uri, self.registry_uri)
            return self._client

    def download(self, uri: str, target: Path) -> None:
        """Copy what a `runs:/…` or `models:/…` URI names to `target`, which must not exist; blocks.

        Raises:
            InvalidInput: MLflow does not have it.
        """
        client = self.client()
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        aside = target.with_name(f"{target.name}.mlflow")
        try:
            found = download_artifacts(
                _place(client, uri), dst_path=str(aside), tracking_uri=self.uri,
                registry_uri=self.registry_uri,
            )
        except (MlflowException, OSError) as error:
            if isinstance(error, FileNotFoundError) or \
                    getattr(error, "error_code", "") in _MISSING:
                raise InvalidInput(
                    f"{uri}: MLflow cannot give it: {str(error).splitlines()[0]}", target=uri
                ) from error
            raise
        os.replace(found, target)
        shutil.rmtree(aside, ignore_errors=True)   # it may have been what was moved


def _place(client: MlflowClient, uri: str) -> str:
    """Return where the content of a model of the registry lies; a run's is found by MLflow."""
    if not uri.startswith("models:/"):
        return uri
    name, _, rest = uri.removeprefix("models:/").partition("/")
    name, is_alias, alias = name.partition("@")
    number, _, path = ("", "", rest) if is_alias else rest.partition("/")
    if is_alias:
        number = str(client.get_model_version_by_alias(name, alias).version)
    place = client.get_model_version_download_uri(name, number)
    if place.startswith("models:/"):   # a logged model
        place = client.get_logged_model(place.removeprefix("models:/")).artifact_location
    return f"{place.rstrip('/')}/{path}" if path else place


def is_of_mlflow(uri: str) -> bool:
    """Return whether a URI names what MLflow alone can find."""
    return uri.startswith(SCHEMES)


def name_in(uri: str) -> str:
    """Return the name of the file or folder that such a URI names.

    Raises:
        InvalidInput: It is none.
    """
    scheme, _, rest = uri.partition(":/")
    parts = [part for part in rest.split("/") if part]
    enough = 2 if scheme == "runs" or "@" not in rest else 1
    if len(parts) < enough or ".." in parts:
        raise InvalidInput(
            f"{uri}: expected runs:/RUN/PATH, models:/NAME/VERSION or models:/NAME@ALIAS",
            target=uri,
        )
    if scheme == "models" and len(parts) <= enough:
        return parts[0].partition("@")[0]
    return parts[-1]

"""Where MLflow keeps what we tell it: the workspace's own store, or a server of the user's.

MLflow takes seconds to import, and its tables as long to make: nothing here does so before its
client is asked for, and nobody who answers a request asks for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inferay.config import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: The variable by which a server of the user's is named, as MLflow has it.
URI_VARIABLE = "MLFLOW_TRACKING_URI"


class MlflowStore:
    """The client of the store; thread-safe."""

    def __init__(self, workspace: Workspace, environ: Mapping[str, str] | None = None) -> None:
        given = (os.environ if environ is None else environ).get(URI_VARIABLE)
        self.uri = given or f"sqlite:///{workspace.mlflow / 'mlflow.db'}"
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
                self._client = MlflowClient(self.uri, self.uri)
            return self._client

"""A deployment's script or model, loaded into this process and put behind the ASGI app.

The same for a plain process and for a replica of Ray Serve.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferay.engine.scoring.aliases import install_aliases
from inferay.engine.scoring.integrity import check_content
from inferay.engine.scoring.script import ScoringScript
from inferay.serve.server.app import InferenceApp
from inferay.serve.server.entry import Handler, check_online, entry_of
from inferay.serve.server.spec import ServerSpec
from inferay.serve.server.swagger import documents


class Hosted:
    """A script that is loaded and initialised, or a model; blocks until it is.

    One in a process: the script's folder and variables are the process's.

    Attributes:
        app: What answers requests.

    Raises:
        UserCodeError: The script or model cannot be loaded, or its `init()` raised.
        InvalidInput: A Swagger file of the user's is not JSON.
        InferayError: A registered model is not what was registered.
    """

    def __init__(self, spec: ServerSpec) -> None:
        check_content(spec.model, spec.model_hash)
        os.environ.update({
            **spec.environment_variables, "AML_APP_ROOT": spec.code_dir,
            "AZUREML_ENTRY_SCRIPT": spec.scoring_script, "AZUREML_MODEL_DIR": spec.model_dir,
        })
        loaded = _load(spec)
        self._shutdown = loaded.shutdown
        self.app = InferenceApp(
            loaded.entry, spec.limits, code_dir=loaded.folder, batching=spec.batching,
            swagger=documents(
                loaded.folder, loaded.entry.run, name=spec.name, version=spec.version,
                prefix=spec.prefix, schemas=loaded.schemas,
            ),
        )

    def shutdown(self) -> None:
        """Run the user's optional `shutdown()`, when nothing is served any more.

        What it raises is the caller's to report.
        """
        self.app.close()
        self._shutdown()


@dataclass(frozen=True)
class _Loaded:
    """What answers.

    Attributes:
        folder: Of the code, or of the model that is served without any.
        schemas: What a request takes and its answer holds, where the model tells.
    """

    entry: Handler
    folder: Path
    shutdown: Callable[[], None]
    schemas: tuple[Any, Any] | None = None


def _load(spec: ServerSpec) -> _Loaded:
    """Load the script, or the flavour of a model that needs none."""
    if spec.flavor == "mlflow":
        from inferay.serve.server.mlflow_entry import MlflowEntry

        entry = MlflowEntry(Path(spec.model))
        return _Loaded(entry, Path(spec.model), _nothing, entry.schemas)
    if spec.flavor == "triton":
        from inferay.serve.server.triton_entry import TritonEntry

        repository = TritonEntry(Path(spec.model))
        return _Loaded(repository, Path(spec.model), repository.close, repository.schemas)
    code_dir = Path(spec.code_dir)
    install_aliases()
    script = ScoringScript.load(
        code_dir, spec.scoring_script, packages=spec.packages, check=check_online
    )
    script.init()
    return _Loaded(entry_of(script.module), code_dir, script.shutdown)


def _nothing() -> None:
    pass

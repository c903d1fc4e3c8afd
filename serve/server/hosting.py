"""A deployment's script, loaded into this process and put behind the ASGI app.

The same for a plain process and for a replica of Ray Serve.
"""

from __future__ import annotations

import os
from pathlib import Path

from inferay.engine.scoring.aliases import install_aliases
from inferay.engine.scoring.script import ScoringScript
from inferay.serve.server.app import InferenceApp
from inferay.serve.server.entry import check_online, entry_of
from inferay.serve.server.spec import ServerSpec
from inferay.serve.server.swagger import documents


class Hosted:
    """A script that is loaded and initialised; blocks until its `init()` has returned.

    One in a process: the script's folder and variables are the process's.

    Attributes:
        app: What answers requests.

    Raises:
        UserCodeError: The script cannot be loaded, or its `init()` raised.
        InvalidInput: A Swagger file of the user's is not JSON.
    """

    def __init__(self, spec: ServerSpec) -> None:
        code_dir = Path(spec.code_dir)
        os.environ.update({
            **spec.environment_variables, "AML_APP_ROOT": spec.code_dir,
            "AZUREML_ENTRY_SCRIPT": spec.scoring_script, "AZUREML_MODEL_DIR": spec.model_dir,
        })
        install_aliases()
        self._script = ScoringScript.load(
            code_dir, spec.scoring_script, packages=spec.packages, check=check_online
        )
        self._script.init()
        entry = entry_of(self._script.module)
        self.app = InferenceApp(
            entry, spec.limits, code_dir=code_dir, batching=spec.batching,
            swagger=documents(
                code_dir, entry.run, name=spec.name, version=spec.version, prefix=spec.prefix
            ),
        )

    def shutdown(self) -> None:
        """Run the user's optional `shutdown()`, when nothing is served any more.

        What it raises is the caller's to report.
        """
        self.app.close()
        self._script.shutdown()

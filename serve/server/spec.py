"""What an inference server is told of its deployment, as values that JSON can carry."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from inferay.engine.scoring.environments.spec import EnvironmentSpec
from inferay.serve.server.calls import Batching
from inferay.serve.server.limits import Limits


@dataclass(frozen=True)
class ServerSpec:
    """One deployment's code on this machine, and how much its server takes on.

    Attributes:
        name: Of the service, in its Swagger documents.
        version: Of the service.
        code_dir: The code folder; `scoring_script` is a path below it. Both are "" with a flavor.
        model_dir: Value of `AZUREML_MODEL_DIR`, or "".
        model: The model's file or folder in it, or "".
        model_hash: Of a registered model, which is checked before it is loaded; "": of none.
        flavor: What serves the model without a script: `mlflow` or `triton`; "" for the script.
        environment_variables: Set before the script is imported.
        packages: Packages that the environment declares, for the error about a missing one.
        environment: What the process is to run in; None: the cluster's own Python.
        prefix: The path above the server's routes, as clients see it.
        logging_level: Of Python's `logging`, for the script's and the server's lines.
    """

    name: str
    version: str
    code_dir: str
    scoring_script: str
    model_dir: str = ""
    model: str = ""
    model_hash: str = ""
    flavor: str = ""
    environment_variables: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    environment: EnvironmentSpec | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Batching | None = None
    prefix: str = ""
    logging_level: str = "info"

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the spec that `to_dict` wrote."""
        batching, environment = values["batching"], values.get("environment")
        return cls(**values | {
            "packages": tuple(values["packages"]),
            "environment": environment and EnvironmentSpec.from_dict(environment),
            "limits": Limits(**values["limits"]),
            "batching": batching and Batching(**batching),
        })

"""Environments: the packages that a deployment declares, on top of those of the cluster.

`spec` says what is declared, `overlay` what that needs beside the cluster's own packages and builds
it, once on each node; `python -m inferay.engine.scoring.environments` runs a command in one.
"""

from inferay.engine.scoring.environments.overlay import ensure
from inferay.engine.scoring.environments.spec import EnvironmentSpec, from_conda, of_mlflow_model

__all__ = ["EnvironmentSpec", "ensure", "from_conda", "of_mlflow_model"]

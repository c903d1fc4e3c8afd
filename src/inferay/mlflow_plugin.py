"""`mlflow deployments … -t inferay`: MLflow's own commands and API over online endpoints.

The target is `inferay`: the control plane that INFERAY_URL, INFERAY_TOKEN and INFERAY_CA name,
else this machine's workspace; or `inferay:https://HOST:PORT`, with the token from the environment.
Only the Python client is used. MLflow is imported here, and by nobody who imports inferay.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.artifacts import download_artifacts
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.models import Model as MlflowModel
from mlflow.protos import databricks_pb2 as codes

from inferay import Client
from inferay.engine.resources import OnlineDeployment, OnlineEndpoint, is_local_path, load
from inferay.errors import (
    Conflict,
    InferayError,
    InvalidInput,
    NotAuthorized,
    NotFound,
    Unavailable,
)

#: MLflow's codes for our errors, the first whose class fits.
_CODES: tuple[tuple[type[InferayError], int], ...] = (
    (NotFound, codes.RESOURCE_DOES_NOT_EXIST), (Conflict, codes.RESOURCE_ALREADY_EXISTS),
    (InvalidInput, codes.INVALID_PARAMETER_VALUE), (NotAuthorized, codes.PERMISSION_DENIED),
    (Unavailable, codes.TEMPORARILY_UNAVAILABLE), (InferayError, codes.INTERNAL_ERROR),
)

#: What every model that MLflow saves can be served as.
_FLAVOR = "python_function"

#: Bodies that MLflow's scoring server knows by their one key, and Azure's.
_FORMS = {"dataframe_split", "dataframe_records", "instances", "inputs", "input_data"}

_HELP = """\
Deploys MLflow models as online endpoints of inferay.

  -t inferay                     the control plane of INFERAY_URL, INFERAY_TOKEN, INFERAY_CA, else
                                 the workspace that `inferay up` runs on this machine
  -t inferay:https://HOST:PORT   that one, with INFERAY_TOKEN and INFERAY_CA

  --name ENDPOINT/DEPLOYMENT     or --name DEPLOYMENT --endpoint ENDPOINT; NAME alone is NAME/NAME.
                                 The endpoint is made if there is none, and its first deployment
                                 gets all requests.
  -m MODEL                       a local path, runs:/…, models:/… or another URI that MLflow reads,
                                 or azureml:NAME:VERSION for a model that is registered in inferay
  -C FIELD=VALUE                 any field of a deployment's YAML, such as instance_count=2,
                                 request_settings.request_timeout_ms=9000,
                                 environment_variables.A=b or code_configuration.code=src
"""


def target_help() -> str:
    """Return what `mlflow deployments help -t inferay` shows."""
    return _HELP


def run_local(
    target: str, name: str, model_uri: str, flavor: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Refuse: the workspace of `inferay up` is local already."""
    raise MlflowException(
        "run-local: start a workspace on this machine with `inferay up`, and use "
        f"`mlflow deployments create -t inferay --name {name} -m {model_uri}`",
        error_code=codes.NOT_IMPLEMENTED,
    )


@contextlib.contextmanager
def _as_mlflow() -> Iterator[None]:
    """Raise our errors as MLflow's, with the user's own traceback first where there is one."""
    try:
        yield
    except InferayError as error:
        code = next(code for cls, code in _CODES if isinstance(error, cls))
        said = "\n".join(part for part in (error.details, error.message) if part)
        raise MlflowException(said, error_code=code) from error


class InferayDeploymentClient(BaseDeploymentClient):   # type: ignore[misc]  # untyped
    """MLflow's deployments are online deployments, by `ENDPOINT/DEPLOYMENT`."""

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Client]:
        """Give a client for one call, whose errors are MLflow's; MLflow itself closes none."""
        url = self.target_uri.partition(":")[2]
        token, ca = (os.environ.get(f"INFERAY_{word}") for word in ("TOKEN", "CA"))
        with _as_mlflow(), Client(url, token, ca) if url else Client() as client:
            yield client

    def create_deployment(
        self, name: str, model_uri: str, flavor: str | None = None,
        config: Mapping[str, Any] | None = None, endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploy a model, and the endpoint if there is none; blocks until it serves."""
        endpoint, own = _names(name, endpoint)
        with self._connected() as client:
            declared = _declared(own, endpoint, _model(model_uri, flavor), config)
            rules = _ensure_endpoint(client, endpoint).traffic
            made = client.online_deployments.create(
                declared, all_traffic=not any(rules.values())
            )
        return _view(made)

    def update_deployment(
        self, name: str, model_uri: str | None = None, flavor: str | None = None,
        config: Mapping[str, Any] | None = None, endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Change the model or fields; what serves goes on until the new version is up."""
        endpoint, own = _names(name, endpoint)
        with self._connected() as client:
            if flavor is not None and model_uri is None:
                raise InvalidInput("flavor: give the model too, whose flavor it is")
            base = client.online_deployments.get(own, endpoint)
            model = {} if model_uri is None else _model(model_uri, flavor)
            declared = _declared(own, endpoint, model, config, base)
            made = client.online_deployments.create_or_update(declared)
        return _view(made)

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Delete a deployment, and the traffic that it alone has; one that is not there is fine."""
        endpoint, own = _names(name, endpoint)
        with self._connected() as client, contextlib.suppress(NotFound):
            rules = client.online_endpoints.get(endpoint).traffic
            if {one for one, share in rules.items() if share} == {own}:
                client.online_endpoints.set_traffic(endpoint, {own: 0})
            client.online_deployments.delete(own, endpoint)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Return the deployments of one endpoint, or of all."""
        with self._connected() as client:
            names = [endpoint] if endpoint else [
                one.name for one in client.online_endpoints.list()
            ]
            return [
                _view(one) for name in names for one in client.online_deployments.list(name)
            ]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Return a deployment."""
        endpoint, own = _names(name, endpoint)
        with self._connected() as client:
            return _view(client.online_deployments.get(own, endpoint))

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Score a table, arrays, or a body of MLflow's scoring server.

        Args:
            deployment_name: The deployment.
            inputs: A DataFrame, an array or a list, or a dict: of arrays by name, or a body.
            endpoint: In place of the deployment, the endpoint, whose traffic rule chooses it.
        """
        own = None
        if deployment_name is not None:
            endpoint, own = _names(deployment_name, endpoint)
        with self._connected() as client:
            if endpoint is None:
                raise InvalidInput("predict: give the deployment's name, or an endpoint")
            answer = client.online_endpoints.invoke(
                endpoint, _body(inputs), deployment_name=own
            )
        found = answer.value
        is_mlflows = isinstance(found, dict) and "predictions" in found
        return PredictionsResponse(found if is_mlflows else {"predictions": found})

    def create_endpoint(self, name: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Create an endpoint; its YAML's fields are the config."""
        with self._connected() as client:
            if any(one.name == name for one in client.online_endpoints.list()):
                raise Conflict(f"there is an endpoint '{name}' already", target=name)
            overrides, flags = _given(config)
            entity = load(OnlineEndpoint, None, overrides, flags, name=name).entity
            made: dict[str, Any] = client.online_endpoints.create_or_update(entity).to_dict()
        return made

    def update_endpoint(self, endpoint: str, config: Mapping[str, Any] | None = None) -> None:
        """Change fields of an endpoint, such as `traffic.blue=90`."""
        with self._connected() as client:
            base = client.online_endpoints.get(endpoint)
            overrides, flags = _given(config)
            entity = load(OnlineEndpoint, None, overrides, flags, base=base).entity
            client.online_endpoints.create_or_update(entity)

    def delete_endpoint(self, endpoint: str) -> None:
        """Delete an endpoint with its deployments; one that is not there is fine."""
        with self._connected() as client, contextlib.suppress(NotFound):
            client.online_endpoints.delete(endpoint)

    def list_endpoints(self) -> list[dict[str, Any]]:
        """Return all online endpoints."""
        with self._connected() as client:
            return [one.to_dict() for one in client.online_endpoints.list()]

    def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """Return an endpoint."""
        with self._connected() as client:
            found: dict[str, Any] = client.online_endpoints.get(endpoint).to_dict()
        return found


def _ensure_endpoint(client: Client, name: str) -> OnlineEndpoint:
    try:
        return client.online_endpoints.get(name)
    except NotFound:
        return client.online_endpoints.create_or_update(OnlineEndpoint(name=name))


def _names(name: str, endpoint: str | None) -> tuple[str, str]:
    """Return the endpoint and the deployment that a name stands for."""
    first, slash, own = name.partition("/")
    if not slash:
        return endpoint or name, name
    if endpoint not in (None, first):
        raise MlflowException(
            f"--name {name} names the endpoint '{first}', and --endpoint '{endpoint}'; give one",
            error_code=codes.INVALID_PARAMETER_VALUE,
        )
    return first, own


def _model(uri: str, flavor: str | None) -> dict[str, object]:
    """Return the fields of a deployment that say which model it is.

    Raises:
        InvalidInput: There is no model, or it has not that flavor.
    """
    if uri.startswith("azureml:"):
        return {"model": uri}
    if not is_local_path(uri):   # by the caller's own MLflow, with its credentials
        uri = download_artifacts(artifact_uri=uri)
    path = Path(uri.removeprefix("file://").removeprefix("file:")).absolute()
    if not (path / "MLmodel").is_file():
        if flavor is not None or not path.exists():
            raise InvalidInput(f"{path} is no MLflow model: it has no file 'MLmodel'")
        return {"model.path": str(path), "model.type": "custom_model"}
    flavors = MlflowModel.load(str(path)).flavors
    if (flavor or _FLAVOR) not in flavors:
        raise InvalidInput(
            f"{path}: the model has no flavor '{flavor or _FLAVOR}'; it has {', '.join(flavors)}"
        )
    return {"model.path": str(path), "model.type": "mlflow_model"}


def _declared(
    name: str, endpoint: str, model: Mapping[str, object], config: Mapping[str, Any] | None,
    base: OnlineDeployment | None = None,
) -> OnlineDeployment:
    overrides, flags = _given(config)
    if base is not None and model:
        base = base.model_copy(update={"model": None})
    fixed = {**flags, **model, "name": name, "endpoint_name": endpoint}
    return load(OnlineDeployment, None, overrides, fixed, base=base).entity


def _given(config: Mapping[str, Any] | None) -> tuple[list[str], dict[str, object]]:
    """Return what is text, as the command line has it, as overrides, and the rest as values."""
    given = config or {}
    overrides = [f"{field}={value}" for field, value in given.items() if isinstance(value, str)]
    return overrides, {key: value for key, value in given.items() if not isinstance(value, str)}


def _view(deployment: OnlineDeployment) -> dict[str, Any]:
    """Return a deployment as MLflow shows it: a name for all its commands, and a flavor."""
    found: dict[str, Any] = deployment.to_dict()
    return found | {
        "name": f"{deployment.endpoint_name}/{deployment.name}", "flavor": _FLAVOR,
        "endpoint": deployment.endpoint_name,
    }


def _body(inputs: Any) -> bytes | str:
    """Return the body of a scoring request.

    Raises:
        InvalidInput: It is nothing that JSON can say.
    """
    import pandas as pd

    if isinstance(inputs, bytes | str):
        return inputs
    if isinstance(inputs, pd.DataFrame):
        table = inputs.to_json(orient="split", index=False, date_format="iso")
        return f'{{"dataframe_split": {table}}}'
    if hasattr(inputs, "tolist"):   # an array, or a Series
        inputs = inputs.tolist()
    if isinstance(inputs, Mapping):
        plain = {
            key: value.tolist() if hasattr(value, "tolist") else value
            for key, value in inputs.items()
        }
        body = plain if _FORMS & plain.keys() else {"inputs": plain}
    else:
        body = {"inputs": inputs}
    try:
        return json.dumps(body)
    except TypeError as error:
        raise InvalidInput(f"inputs: expected what JSON can say ({error})") from None

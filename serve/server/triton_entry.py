"""A Triton model repository in an online deployment without code.

Source: KServe's Open Inference Protocol v2 and Triton's extensions of it for binary tensors, model
configurations and the index of a repository. `/score` takes the same body as `…/infer`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from inferay import __version__
from inferay.engine.scoring.tracebacks import describe_exception, user_traceback
from inferay.engine.scoring.triton.config import ONNX
from inferay.engine.scoring.triton.errors import ModelError
from inferay.engine.scoring.triton.layout import MODEL_VARIABLE
from inferay.engine.scoring.triton.model import TritonModel
from inferay.engine.scoring.triton.repository import Repository
from inferay.errors import InferayError, InvalidInput, NotFound
from inferay.serve.server import oip_grpc
from inferay.serve.server.http import JSON, Answer, Request
from inferay.serve.server.oip_json import Asked, answer_to, asked_in, is_raw, raw_in
from inferay.serve.server.threads import Threads

_log = logging.getLogger("inferay.server")

#: What clients may rely on, by Triton's names.
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository")

_SERVER = {"name": "inferay", "version": __version__, "extensions": list(EXTENSIONS)}

_FIXED = "explicit model load / unload is not allowed: update the deployment"

#: What a failure of a model's is over HTTP, and over gRPC, by Triton's name of it.
STATUSES = {"NOT_FOUND": 404, "UNAVAILABLE": 503, "UNSUPPORTED": 501, "INTERNAL": 500}
GRPC_CODES = {
    "UNKNOWN": 2, "INTERNAL": 13, "NOT_FOUND": 5, "INVALID_ARG": 3, "UNAVAILABLE": 14,
    "UNSUPPORTED": 12, "ALREADY_EXISTS": 6, "CANCELLED": 1,
}  # fmt: skip

_READING, _ASKING = ("GET", "HEAD"), ("POST",)

#: What stands last in a path below a model's, and its methods.
_OF_MODEL = {"": _READING, "ready": _READING, "config": _READING, "infer": _ASKING}


class TritonEntry:
    """How a repository is called for a request; see `Handler`. Loads its models; blocks.

    Raises:
        InvalidInput: It is no repository, or a model cannot be served here.
        UserCodeError: A model cannot be loaded.
    """

    kind: Literal["text", "schema", "raw"] = "raw"
    is_async = False
    error_key = "error"
    health_paths = frozenset(("/v2/health/live", "/v2/health/ready"))

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chosen = os.environ.get(MODEL_VARIABLE, "")
        self.repository = Repository(folder)
        if self._chosen:
            self.repository.only(self._chosen)   # a wrong name is told now

    def threads(self, at_once: int) -> Threads:
        """Return as many threads as fill all instances' batches, and one that reads the next.

        More would only wait for each other. ONNX Runtime computes: what its calls wait for is not
        their own time.
        """
        models = [one for each in self.repository.models.values() for one in each.values()]
        configs = [one.config for one in models]
        useful = 1 + sum(one.instances * max(1, one.rows_max) for one in configs)
        only_computes = all(one.backend == ONNX for one in configs)
        clock = time.thread_time if only_computes else time.perf_counter
        return Threads(min(at_once, useful), clock)

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Return the methods of a path, or None if there is no such path."""
        if path == "/score":
            return _ASKING
        if path.startswith(oip_grpc.SERVICE):
            return _ASKING
        parts = path.strip("/").split("/")
        if parts[0] != "v2":
            return None
        if len(parts) == 1 or path in self.health_paths:
            return _READING
        if parts[1] == "repository":
            return _ASKING
        return _OF_MODEL.get(_place(parts)[2]) if parts[1] == "models" and parts[2:] else None

    def told(self, request: Request) -> Answer | None:
        """Return the answer to what needs no call of a model, or None."""
        path = request.path
        if path == "/score" or path.endswith(("/infer", "/ModelInfer")):
            return None
        if path.startswith(oip_grpc.SERVICE):
            return self._grpc(request)
        try:
            found = self._described(path.strip("/").split("/"))
        except InferayError as error:
            return _error(error)
        return Answer(200, b"" if found is None else json.dumps(found).encode(), JSON)

    def arguments(self, request: Request) -> dict[str, Any]:
        """Return the request itself."""
        return {"request": request}

    def run(self, request: Request) -> Answer:
        """Return the answer with a model's outputs."""
        if request.path.startswith(oip_grpc.SERVICE):
            return self._grpc(request)
        try:
            name, version, _ = _place(request.path.strip("/").split("/"))
            if request.path == "/score":
                model = self.repository.only(self._chosen)
            else:
                model = self.repository.find(name, version)
            asked = _raw(request, model) if is_raw(request) else asked_in(request)
            outputs = model.infer(
                asked.inputs, asked.outputs, id=asked.id, parameters=asked.parameters
            )
            return answer_to(asked, model.name, model.version, outputs)
        except (InvalidInput, NotFound) as error:
            return _error(error)
        except ModelError as error:
            body = json.dumps({"error": str(error)}).encode()
            return Answer(STATUSES.get(error.code, 400), body, has_failed=True)
        except Exception as error:   # the model's own code may raise anything
            return Answer(500, json.dumps({"error": self._failed(error)}).encode(), has_failed=True)

    def release(self, arguments: dict[str, Any]) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """End the models."""
        self.repository.close()

    @property
    def schemas(self) -> tuple[Any, Any]:
        """What a request takes and its answer holds, as Swagger says it."""
        tensor = {"type": "object", "properties": {
            "name": {"type": "string"}, "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array", "items": {}},
        }}
        tensors = {"type": "array", "items": tensor}
        return (
            {"type": "object", "required": ["inputs"], "properties": {"inputs": tensors}},
            {"type": "object", "properties": {"outputs": tensors}},
        )

    def _described(self, parts: list[str]) -> Any:
        """Return what JSON a path has, or None where its being there is the answer.

        Raises:
            NotFound: There is no such model.
            InvalidInput: It asks for what this server does not do.
        """
        if parts == ["v2"]:
            return _SERVER
        if parts[1] == "repository":
            if parts[2:] != ["index"]:
                raise InvalidInput(_FIXED)
            return self._index()
        name, version, what = _place(parts)
        model = self.repository.find(name, version)
        if what == "ready":
            return None
        return model.config.as_dict() if what == "config" else self._metadata(model)

    def _index(self) -> list[dict[str, str]]:
        return [
            {"name": name, "version": str(number), "state": "READY"}
            for name, versions in self.repository.models.items() for number in versions
        ]

    def _metadata(self, model: TritonModel) -> dict[str, Any]:
        config = model.config
        platform = "onnxruntime_onnx" if config.backend == ONNX else config.backend
        return {
            "name": model.name,
            "versions": [str(one) for one in self.repository.models[model.name]],
            "platform": platform,
            **{what: [
                {"name": one.name, "datatype": one.datatype, "shape": model.shape_of(one)}
                for one in tensors
            ] for what, tensors in (("inputs", config.inputs), ("outputs", config.outputs))},
        }

    def _grpc(self, request: Request) -> Answer:
        method = request.path.removeprefix(oip_grpc.SERVICE)
        call = _CALLS.get(method)
        if call is None:
            return oip_grpc.failure(oip_grpc.UNIMPLEMENTED, f"{method[:100]} is not served here")
        try:
            return oip_grpc.answer(call(self, oip_grpc.message_in(request, method)))
        except NotFound as error:
            return oip_grpc.failure(oip_grpc.NOT_FOUND, error.message)
        except InvalidInput as error:
            return oip_grpc.failure(oip_grpc.INVALID_ARGUMENT, error.message)
        except ModelError as error:
            return oip_grpc.failure(GRPC_CODES[error.code], str(error))
        except Exception as error:   # the model's own code may raise anything
            return oip_grpc.failure(oip_grpc.INTERNAL, self._failed(error))

    def _failed(self, error: Exception) -> str:
        """Return what a client is told of a model that failed; the log has the traceback."""
        _log.error("the model raised\n%s", user_traceback(error, self._folder))
        return describe_exception(error)

    def _is_live(self, _: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    def _is_ready(self, _: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    def _is_model_ready(self, asked: Any) -> Any:
        try:
            self.repository.find(asked.name, asked.version)
        except NotFound:
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    def _server_metadata(self, _: Any) -> Any:
        return service_pb2.ServerMetadataResponse(**_SERVER)

    def _model_metadata(self, asked: Any) -> Any:
        model = self.repository.find(asked.name, asked.version)
        found: Mapping[str, Any] = self._metadata(model)
        return json_format.ParseDict(found, service_pb2.ModelMetadataResponse())

    def _model_config(self, asked: Any) -> Any:
        model = self.repository.find(asked.name, asked.version)
        return service_pb2.ModelConfigResponse(config=model.config.message)

    def _repository_index(self, _: Any) -> Any:
        return service_pb2.RepositoryIndexResponse(models=self._index())

    def _no_change(self, _: Any) -> Any:
        raise InvalidInput(_FIXED)

    def _infer(self, asked: Any) -> Any:
        model = self.repository.find(asked.model_name, asked.model_version)
        outputs = model.infer(
            oip_grpc.inputs_of(asked), oip_grpc.outputs_in(asked), id=asked.id,
            parameters=oip_grpc.parameters_in(asked),
        )
        return oip_grpc.infer_response(asked, model.name, model.version, outputs)


_CALLS = {
    "ServerLive": TritonEntry._is_live, "ServerReady": TritonEntry._is_ready,
    "ModelReady": TritonEntry._is_model_ready, "ServerMetadata": TritonEntry._server_metadata,
    "ModelMetadata": TritonEntry._model_metadata, "ModelConfig": TritonEntry._model_config,
    "RepositoryIndex": TritonEntry._repository_index, "ModelInfer": TritonEntry._infer,
    "RepositoryModelLoad": TritonEntry._no_change, "RepositoryModelUnload": TritonEntry._no_change,
}  # fmt: skip


def _raw(request: Request, model: TritonModel) -> Asked:
    if len(model.config.inputs) != 1:
        raise InvalidInput(
            f"a body of bytes alone is for models with one input; '{model.name}' expects "
            f"{model.expected}"
        )
    [spec] = model.config.inputs
    dims = [1, *spec.dims] if model.config.rows_max else spec.dims
    return raw_in(request, spec.name, spec.datatype, dims)


def _place(parts: list[str]) -> tuple[str, str, str]:
    """Return the model, the version and the rest of `v2/models/NAME[/versions/VERSION][/REST]`."""
    name, rest = (parts[2] if len(parts) > 2 else ""), parts[3:]
    version = ""
    if rest[:1] == ["versions"]:
        version, rest = (rest[1] if len(rest) > 1 else ""), rest[2:]
    return name, version, "/".join(rest)


def _error(error: InferayError) -> Answer:
    status = 404 if isinstance(error, NotFound) else 400
    return Answer(status, json.dumps({"error": error.message}).encode())

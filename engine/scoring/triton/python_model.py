"""Triton's Python backend: a `model.py` with a `TritonPythonModel`, run in this process.

Source: Triton's Python backend guide. A model's instances are objects of its class, each called by
one thread at a time.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferay.engine.scoring.tracebacks import describe_exception, user_traceback
from inferay.engine.scoring.triton import pb_utils
from inferay.engine.scoring.triton.config import Config, check
from inferay.engine.scoring.triton.errors import ModelError, refusal
from inferay.engine.scoring.triton.request import InferRequest
from inferay.errors import UserCodeError

#: What a model imports.
UTILS = "triton_python_backend_utils"


class PythonBackend:
    """A class of the user's; importing it blocks.

    Raises:
        UserCodeError: It cannot be imported.
    """

    #: A call gets its requests as they are.
    is_joined = False

    def __init__(self, folder: Path, version: Path, message: Any) -> None:
        self.message = message
        self._folder = folder
        self._version = version
        self._outputs: tuple[str, ...] = ()
        self._instances: list[Any] = []
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sys.modules[UTILS] = pb_utils
        path = version / message.default_model_filename
        name = f"triton_{folder.name}_{version.name}".replace("-", "_").replace(".", "_")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = self._module = module
        sys.path.insert(0, str(version))   # its neighbours are imported by their names
        try:
            spec.loader.exec_module(module)
        except BaseException as error:   # user code may raise anything, SystemExit too
            raise self._failed("cannot be imported", error) from error
        self._cls = getattr(module, "TritonPythonModel", None)
        if not callable(getattr(self._cls, "execute", None)):
            raise refusal(
                folder, f"{version.name}/{path.name} defines no class TritonPythonModel with "
                "execute(requests)", "NoModel",
            )
        complete = getattr(self._cls, "auto_complete_config", None)
        if complete is not None:
            try:
                complete(pb_utils.ModelConfig(message))
            except BaseException as error:   # user code may raise anything, SystemExit too
                raise self._failed("auto_complete_config() raised", error) from error
            check(folder, message)

    def start(self, config: Config) -> None:
        """Make and initialise the instances; blocks.

        Raises:
            UserCodeError: `initialize` raised.
        """
        self._outputs = tuple(one.name for one in config.outputs)
        for number in range(config.instances):
            try:
                instance = self._cls()   # type: ignore[misc]
                if hasattr(instance, "initialize"):
                    instance.initialize({
                        "model_config": config.as_json(), "model_name": config.name,
                        "model_version": self._version.name,
                        "model_repository": str(self._folder),
                        "model_instance_name": f"{config.name}_{number}",
                        "model_instance_kind": "GPU" if config.device == "gpu" else "CPU",
                        "model_instance_device_id": "0",
                    })
            except BaseException as error:   # user code may raise anything, SystemExit too
                raise self._failed("initialize() raised", error) from error
            self._instances.append(instance)
            self._idle.put(instance)
        self._hide_neighbours()

    def run(
        self, requests: Sequence[InferRequest]
    ) -> list[Mapping[str, Any] | ModelError]:
        """Return the outputs of each request, or why it failed, by one call of `execute`.

        Raises:
            ModelError: The model does not answer each request.
            Exception: What the model raises.
        """
        asked = [pb_utils.InferenceRequest(
            one.id, 0, [pb_utils.Tensor(name, value) for name, value in one.inputs.items()],
            one.outputs, self._folder.name, int(self._version.name),
            parameters=one.parameters,
        ) for one in requests]
        instance = self._idle.get()
        try:
            responses = instance.execute(asked)
        finally:
            self._idle.put(instance)
        if not isinstance(responses, (list, tuple)) or len(responses) != len(requests):
            raise ModelError(
                f"execute() got {len(requests)} requests and has to return a list with a response "
                "for each"
            )
        return [self._outputs_of(one) for one in responses]

    def close(self) -> None:
        """Finalise the instances.

        Raises:
            Exception: What `finalize` raises.
        """
        for instance in self._instances:
            if hasattr(instance, "finalize"):
                instance.finalize()

    def _hide_neighbours(self) -> None:
        """Forget by name what was imported from the version's folder.

        Another model's neighbours may have the same names, and Triton gives each a process of its
        own. What this model imports only later is found as long as no other has that name.
        """
        folder = str(self._version)
        sys.path.remove(folder)
        sys.path.append(folder)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if file.startswith(folder + os.sep) and module is not self._module:
                del sys.modules[name]

    def _outputs_of(self, response: Any) -> Mapping[str, Any] | ModelError:
        if not isinstance(response, pb_utils.InferenceResponse):
            raise ModelError(
                f"execute() returned a response of type {type(response).__name__}; expected an "
                "InferenceResponse"
            )
        error = response.error()
        if error is not None:
            return ModelError(error.message(), pb_utils.CODES[error.code()])
        found = {one.name(): one.as_numpy() for one in response.output_tensors()}
        return {name: array for name, array in found.items() if name in self._outputs}

    def _failed(self, what: str, error: BaseException) -> UserCodeError:
        code = "ModelLoadFailed"
        if isinstance(error, ModuleNotFoundError):
            code = "PackageMissing"
        return UserCodeError(
            f"the Triton model {self._folder.name}: {self._version.name}/"
            f"{self.message.default_model_filename} {what}: {describe_exception(error)}",
            code=code, details=user_traceback(error, self._folder),
        )

"""A folder of models, each a folder of versions, as Triton lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inferay.engine.scoring.triton.config import read_message
from inferay.engine.scoring.triton.errors import refusal
from inferay.engine.scoring.triton.layout import (
    MODEL_VARIABLE,
    check_repository,
    models_in,
    versions_in,
)
from inferay.engine.scoring.triton.model import TritonModel
from inferay.errors import InvalidInput, NotFound, nearest


class Repository:
    """The models of a folder, loaded; blocks until all of them are.

    Attributes:
        models: Each model's versions by their numbers, which rise.

    Raises:
        InvalidInput: The folder is no repository, or a model cannot be served here.
        UserCodeError: A model cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        check_repository(folder)
        self.models: dict[str, Mapping[int, TritonModel]] = {}
        for model in sorted(models_in(folder)):
            self.models[model.name] = {
                number: TritonModel(model, name) for number, name in _wanted(model)
            }

    def find(self, name: str, version: str = "") -> TritonModel:
        """Return a version of a model, or its newest.

        Raises:
            NotFound: It is not served.
        """
        versions = self.models.get(name)
        if versions is None:
            raise NotFound(
                f"Request for unknown model: '{name}' is not found; there is "
                f"{', '.join(self.models)}{nearest(name, self.models)}", target=name,
            )
        known = {"": max(versions), **{str(one): one for one in versions}}
        if version not in known:
            served = ", ".join(map(str, versions))
            raise NotFound(
                f"Request for unknown model: '{name}' version {version[:20]} is not found; there "
                f"is {served}", target=name,
            )
        return versions[known[version]]

    def only(self, name: str = "") -> TritonModel:
        """Return the model of the name, or, without one, the only model that there is.

        Raises:
            NotFound: It is not served.
            InvalidInput: There are several.
        """
        if not name and len(self.models) > 1:
            raise InvalidInput(
                f"the repository has the models {', '.join(self.models)}; say which one with "
                f"environment_variables: {MODEL_VARIABLE}", target=MODEL_VARIABLE,
            )
        return self.find(name or next(iter(self.models)))

    def close(self) -> None:
        """End the models.

        Raises:
            Exception: What a model's own code raises.
        """
        for versions in self.models.values():
            for model in versions.values():
                model.close()


def _wanted(model: Path) -> list[tuple[int, str]]:
    """Return the versions that the model's policy says, rising."""
    policy, there = read_message(model).version_policy, versions_in(model)
    if not there:
        raise refusal(model, "it has no folder of a version, such as 1", "NoModel")
    if policy.HasField("specific"):
        missing = [one for one in policy.specific.versions if one not in there]
        if missing:
            raise refusal(model, f"version_policy: there is no version {missing[0]}", "NoModel")
        return [(one, there[one]) for one in sorted(policy.specific.versions)]
    if policy.HasField("latest"):
        return list(there.items())[-max(1, policy.latest.num_versions):]
    return list(there.items())

"""What an environment declares: Python packages, as pip knows them, and a version of Python.

Conda files name packages of conda. Those that are the same project on PyPI become that; others go
to conda itself where there is one, and are refused by name where there is none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from inferay.errors import InvalidInput

#: Packages that have another name on PyPI than on conda's channels.
_RENAMED = {
    "pytorch": "torch", "pytorch-cpu": "torch", "pytorch-gpu": "torch", "opencv": "opencv-python",
    "py-opencv": "opencv-python", "py-xgboost": "xgboost", "pytables": "tables",
    "msgpack-python": "msgpack", "matplotlib-base": "matplotlib", "ruamel_yaml": "ruamel.yaml",
    "tensorflow-cpu": "tensorflow", "dask-core": "dask", "seaborn-base": "seaborn",
    "huggingface_hub": "huggingface-hub", "python-dateutil": "python-dateutil",
}  # fmt: skip

#: Packages that have the same name in both places, and are the same project.
_SAME = frozenset(re.findall(r"\S+", """
    accelerate aiohttp altair anyio arrow attrs azure-core azure-identity azure-storage-blob
    beautifulsoup4 black bokeh boto3 botocore bottleneck cachetools catboost certifi cffi click
    cloudpickle cryptography cycler cython dask datasets dill diskcache distributed fastapi
    fastparquet filelock flask fsspec gensim grpcio gunicorn h5py httpx huggingface-hub hyperopt
    imageio imbalanced-learn ipython jinja2 joblib jsonschema keras lightgbm lightning llvmlite
    lxml markdown matplotlib mlflow mlflow-skinny multiprocess networkx nltk numba numexpr numpy
    onnx onnxruntime openpyxl optuna orjson packaging pandas patsy pillow plotly polars prophet
    protobuf psutil pyarrow pydantic pygments pyjwt pymongo pyodbc python-dateutil python-dotenv
    pytorch-lightning pytz pywavelets pyyaml rasterio regex requests rich s3fs safetensors
    scikit-image scikit-learn scikit-optimize scipy seaborn sentence-transformers sentencepiece
    shap shapely simplejson six spacy sqlalchemy starlette statsmodels sympy tables tabulate
    tensorboard tensorflow textblob threadpoolctl tiktoken tokenizers toolz torch torchaudio
    torchmetrics torchvision tornado tqdm transformers typing-extensions ujson umap-learn urllib3
    uvicorn werkzeug wrapt xarray xgboost xlrd yarl zarr zstandard
"""))

#: What every environment has, and what Azure's own server is made of, in whose place inferay is.
_OWN = frozenset((
    "pip", "setuptools", "wheel", "azureml-core", "azureml-dataset-runtime", "azureml-defaults",
    "azureml-inference-server-http",
))

#: What installs conda's packages; the first that is there does.
CONDA_PROGRAMS = ("micromamba", "mamba", "conda")

#: What to do about conda's packages where none of these is there.
NO_CONDA = (
    "known on conda's channels only, and there is no micromamba, mamba or conda here; if it is a "
    "package of PyPI, name it under pip in the conda file, else install micromamba, or the package "
    "itself, where the cluster runs"
)

#: A conda match specification: `channel::name=1.2=build`, `name >=1,<2`.
_CONDA = re.compile(r"(?:[\w./-]+::)?([A-Za-z0-9_][\w.-]*)\s*(.*)")

#: Of a requirements file, options that say where packages are; uv knows them by the same names.
_PLACES = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f")
_FLAGS = ("--pre", "--prefer-binary", "--no-cache-dir")

_SECRET = re.compile(r"://[^/@\s]+@")


@dataclass(frozen=True)
class EnvironmentSpec:
    """What is declared, in the order in which it is.

    Attributes:
        requirements: As pip takes them.
        python: The version of Python, such as `3.11`, or "" for any.
        options: Where packages are, as words of uv's command line.
        conda: Packages that conda's channels alone have, as conda takes them.
        channels: Of conda, the first one preferred.
    """

    requirements: tuple[str, ...] = ()
    python: str = ""
    options: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the packages."""
        return tuple(canonicalize_name(Requirement(one).name) for one in self.requirements)

    @property
    def digest(self) -> str:
        """sha256 of what is declared."""
        facts = asdict(self)
        if not self.conda:   # as it was before there were any
            del facts["conda"], facts["channels"]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, as JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec that `to_dict` wrote."""
        return cls(
            tuple(values["requirements"]), values["python"], tuple(values["options"]),
            tuple(values.get("conda", ())), tuple(values.get("channels", ())),
        )

    def to_word(self) -> str:
        """Return the spec as one word of a command line."""
        text = json.dumps(self.to_dict()).encode()
        return base64.urlsafe_b64encode(zlib.compress(text)).decode()

    @classmethod
    def from_word(cls, word: str) -> Self:
        """Return the spec that `to_word` wrote."""
        return cls.from_dict(json.loads(zlib.decompress(base64.urlsafe_b64decode(word))))


def from_conda(conda: str | Mapping[str, Any], where: str) -> EnvironmentSpec:
    """Return what a conda file declares.

    Args:
        conda: Its text, or what the text says.
        where: Says in messages whose it is.

    Raises:
        InvalidInput: It is none, or names what cannot be had here.
    """
    content = _loaded(conda, where)
    dependencies = content.get("dependencies") or []
    if not isinstance(dependencies, list):
        raise _refused(where, "dependencies of its conda file: expected a list")
    requirements: list[str] = []
    options: tuple[str, ...] = ()
    python = ""
    unknown = []
    for one in dependencies:
        if isinstance(one, Mapping) and set(one) == {"pip"}:
            inner = from_lines([str(line) for line in one["pip"] or []], where)
            requirements += inner.requirements
            options += inner.options
        elif not isinstance(one, str):
            raise _refused(where, f"expected a package or pip: [...], got {one!r}")
        else:
            name, version = _conda_package(one, where)
            if name == "python":
                python = _python(version, where)
            elif name in _OWN:
                continue
            elif name in _RENAMED or name in _SAME:
                requirements.append(f"{_RENAMED.get(name, name)}{version}")
            else:
                unknown.append((name, one))
    if not unknown:
        return EnvironmentSpec(tuple(requirements), python, options)
    names = ", ".join(name for name, _ in unknown)
    if conda_program() is None:
        raise _refused(where, f"{names}: {NO_CONDA}", code="CondaOnly")
    channels = _channels(content.get("channels"), where)
    return EnvironmentSpec(
        tuple(requirements), python, options, tuple(one for _, one in unknown), channels
    )


def conda_program() -> str | None:
    """Return what installs conda's packages on this machine, if there is any."""
    return next(filter(None, map(shutil.which, CONDA_PROGRAMS)), None)


def _channels(given: Any, where: str) -> tuple[str, ...]:
    channels = given or ["conda-forge"]
    if not isinstance(channels, list) or not all(isinstance(one, str) for one in channels):
        raise _refused(where, "channels of its conda file: expected a list of names or URLs")
    if any(_SECRET.search(one) for one in channels):
        raise _refused(where, "a channel with a password in it; conda's own settings keep it out")
    return tuple(channels)


def from_lines(lines: Iterable[str], where: str) -> EnvironmentSpec:
    """Return what the lines of a requirements file declare.

    Raises:
        InvalidInput: One cannot be read, or names what is on another machine.
    """
    requirements: list[str] = []
    options: list[str] = []
    for line in _joined(lines):
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        text = re.sub(r"\s--hash=\S+", "", text)
        if not text:
            continue
        if _SECRET.search(text):
            raise _refused(
                where, "a URL with a password in it; the cluster's variable UV_INDEX_URL, or a "
                ".netrc file on its machines, keeps it out of specs and logs",
            )
        if text.startswith("-"):
            options += _option(text, where)
            continue
        try:
            found = Requirement(text)
        except InvalidRequirement as error:
            raise _refused(where, f"'{text[:200]}' is no requirement: {error}") from None
        if found.url is not None and not found.url.startswith(("https://", "http://", "git+")):
            raise _refused(where, f"'{text[:200]}' is on the machine that declared it")
        if canonicalize_name(found.name) not in _OWN:
            requirements.append(text)
    return EnvironmentSpec(tuple(requirements), "", tuple(options))


def of_mlflow_model(folder: Path) -> EnvironmentSpec:
    """Return what MLflow has noted that a model needs; nothing where it noted nothing.

    Its version of Python is what the model was logged with, and none that it asks for.

    Raises:
        InvalidInput: The model's file cannot be read.
    """
    where = f"the model {folder.name}"
    requirements, conda = folder / "requirements.txt", folder / "conda.yaml"
    if requirements.is_file():
        return from_lines(requirements.read_text().splitlines(), where)
    if conda.is_file():
        found = from_conda(conda.read_text(), where)
        return EnvironmentSpec(found.requirements, "", found.options)
    return EnvironmentSpec()


def _loaded(conda: str | Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if isinstance(conda, str):
        try:
            conda = yaml.safe_load(conda)
        except yaml.YAMLError as error:
            raise _refused(where, f"its conda file is no YAML: {error}") from None
    if conda is None:
        return {}
    if not isinstance(conda, Mapping):
        raise _refused(where, "its conda file: expected name, channels and dependencies")
    return conda


def _conda_package(text: str, where: str) -> tuple[str, str]:
    """Return the name of a conda package, and its versions as pip writes them."""
    match = _CONDA.fullmatch(text.strip())
    if match is None:
        raise _refused(where, f"'{text[:200]}' is no conda package")
    name, rest = match[1].lower(), re.sub(r"\[.*\]$", "", match[2]).strip()
    if name == "python" or name in _RENAMED or name in _SAME or name in _OWN:
        return name, _conda_version(rest, text, where)
    return name, ""


def _conda_version(rest: str, text: str, where: str) -> str:
    if not rest or rest == "*":
        return ""
    if "|" in rest:
        raise _refused(where, f"'{text[:200]}': alternatives (|) are none of pip's")
    if re.match(r"=?[\w.*]", rest):   # =1.2, 1.2.*, =1.2.3=build, 1.2.3 build
        parts = [one for one in re.split(r"[=\s]+", rest.lstrip("=")) if one]
        version = parts[0]
        is_exact = len(parts) > 1 or rest.startswith("==") or not rest.startswith("=")
        found = f"=={version}" if is_exact or version.endswith("*") else f"=={version}.*"
        if rest[0].isdigit() and version.count(".") < 2 and len(parts) == 1:
            found = f"=={version}" if version.endswith("*") else f"=={version}.*"
    else:
        found = rest.replace(" ", "")
    try:
        SpecifierSet(found)
    except InvalidSpecifier:
        raise _refused(where, f"'{text[:200]}': '{rest}' is no version") from None
    return found


def _python(version: str, where: str) -> str:
    """Return the `3.11` of a version of Python; "" where any from some version on will do."""
    match = re.fullmatch(r"==(\d+\.\d+)(?:\.[\d*]+)*", version)
    if match is None and version and not version.startswith((">", "<", "~", "!")):
        raise _refused(where, f"python{version} is no version of Python")
    return match[1] if match else version


def _joined(lines: Iterable[str]) -> Iterable[str]:
    """Yield lines, with those that end in a backslash joined to the next."""
    held = ""
    for line in lines:
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1] + " "
            continue
        yield held + line
        held = ""
    if held:
        yield held


def _option(text: str, where: str) -> tuple[str, ...]:
    name, _, value = text.replace("=", " ", 1).partition(" ")
    if name in _PLACES and value.strip().startswith(("https://", "http://")):
        full = {"-i": "--index-url", "-f": "--find-links"}.get(name, name)
        return full, value.strip()
    if name in _FLAGS:
        return ("--prerelease", "allow") if name == "--pre" else ()
    raise _refused(
        where, f"'{text[:200]}': of requirements files only packages and --index-url, "
        "--extra-index-url, --find-links (with https://) and --pre are taken",
    )


def _refused(where: str, said: str, *, code: str = "EnvironmentInvalid") -> InvalidInput:
    return InvalidInput(f"{where}: {said}", code=code, target="environment")

"""The types of single fields: what each accepts, its limits, and the words of its refusal.

Types are strict: text is not a number and a boolean is not an integer, as in Azure's schemas.
Every refusal says what was expected and what was given; none comes from pydantic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError

from inferay.engine.resources.references import (
    ENDPOINT_NAME,
    ENDPOINT_NAME_RULE,
    NAME,
    NAME_RULE,
    ONLINE_DEPLOYMENT_NAME,
    ONLINE_DEPLOYMENT_NAME_RULE,
    parse_reference,
)
from inferay.engine.resources.wording import FieldPath, any_of, shown
from inferay.engine.sizes import FORMS as MINI_BATCH_SIZE_FORMS
from inferay.engine.sizes import parse_mini_batch_size
from inferay.errors import InvalidInput, nearest

#: Nodes of one job or pool; ten times the largest Ray cluster that we expect.
INSTANCE_COUNT_MAX = 1000
#: Workers on one node; more than the cores of common machines, so a typing error.
CONCURRENCY_MAX = 100
#: Attempts after the first; each may take the whole time-out.
RETRIES_MAX = 100
#: Seconds: 7 days, the longest that Azure keeps a batch job.
TIMEOUT_S_MAX = 7 * 24 * 3600
#: Failed items that a job may have: the largest int of Azure's wire format.
ERROR_THRESHOLD_MAX = 2**31 - 1
#: Characters of a description or another free text; Azure cuts at about as many.
TEXT_CHARS_MAX = 8192
#: Characters of one tag, property or environment variable: a process takes 128 KiB each.
VALUE_CHARS_MAX = 32 * 1024
#: Entries of one map of tags, properties or environment variables.
MAP_ENTRIES_MAX = 1000
#: Calls of `run()` in one replica at once: threads of one process.
REQUESTS_MAX = 1000
#: Azure's longest `request_timeout_ms`.
REQUEST_TIMEOUT_MS_MAX = 180_000
#: Seconds between two looks at a replica, or until the first: an hour.
PROBE_S_MAX = 3600
#: Deployments that one traffic rule names; a rule is one value at the edge.
TRAFFIC_ENTRIES_MAX = 100
#: Of one answer with a deployment's logs.
LOG_LINES_MAX = 100_000
#: Names that stand beside the predictions in a job's output folder.
RESERVED_OUTPUT_NAMES = frozenset({"_success.json", "errors.jsonl"})

#: What no file, database or answer can hold as text: NUL, and halves of a UTF-16 pair.
_UNFIT = re.compile("[\0\ud800-\udfff]")
_NOT_ALNUM = re.compile(r"[^a-z0-9]")


def refusal(reason: str, at: FieldPath = ()) -> PydanticCustomError:
    """Return the error that a validator raises; `at` is the field below its own, if another."""
    return PydanticCustomError("inferay", "{reason}", {"reason": reason, "at": at})


def _integer(minimum: int, maximum: int, unit: str = "") -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        of_what = f" ({unit})" if unit else ""
        raise refusal(
            f"expected an integer from {minimum} to {maximum}{of_what}, got {shown(value)}"
        )

    return check


def _mini_batch_size(value: object) -> int | str:
    if isinstance(value, int | str) and parse_mini_batch_size(value) is not None:
        return " ".join(value.split()) if isinstance(value, str) else value
    raise refusal(f"expected {MINI_BATCH_SIZE_FORMS}, got {shown(value)}")


def choice(*values: str) -> Callable[[object], str]:
    """Return a validator for one of the values, whatever its case: `AppendRow` is `append_row`."""
    by_letters = {_NOT_ALNUM.sub("", value.lower()): value for value in values}

    def check(value: object) -> str:
        letters = _NOT_ALNUM.sub("", value.lower()) if isinstance(value, str) else ""
        if letters in by_letters:
            return by_letters[letters]
        hint = nearest(value, values) if isinstance(value, str) and len(value) < 100 else ""
        raise refusal(f"expected {any_of(values)}, got {shown(value)}{hint}")

    return check


def _text(value: object) -> str:
    if not isinstance(value, str):
        quotes = "; write it in quotes" if isinstance(value, int | float) else ""
        raise refusal(f"expected text, got {shown(value)}{quotes}")
    return _fit(value, TEXT_CHARS_MAX)


def _fit(text: str, chars_max: int) -> str:
    if len(text) > chars_max or _UNFIT.search(text):
        raise refusal(
            f"expected text of at most {chars_max} characters without NUL or lone surrogates"
        )
    return text


def _filled_text(value: object) -> str:
    text = _text(value)
    if not text.strip():
        raise refusal("expected text, got an empty one")
    return text


def _name(pattern: re.Pattern[str], rule: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        raise refusal(f"expected {rule}, got {shown(value)}")

    return check


def _version(value: object) -> object:
    """Accept a bare number, as Azure does: `version: 1`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def scalar_text(value: object) -> str:
    """Return a scalar as YAML would write it: 1 is "1", true is "true"."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        text = str(value)
    else:
        empty = ' (write "" for an empty one)' if value is None else ""
        raise refusal(f"expected text, got {shown(value)}{empty}")
    return _fit(text, VALUE_CHARS_MAX)


def _text_map(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refusal(f"expected fields 'key: text', got {shown(value)}")
    if len(value) > MAP_ENTRIES_MAX:
        raise refusal(f"expected at most {MAP_ENTRIES_MAX} entries, got {len(value)}")
    result = {}
    for key, item in value.items():
        if not isinstance(key, str) or not key or _UNFIT.search(key):
            raise refusal(f"expected text as a key, got {shown(key)}")
        try:
            result[key] = scalar_text(item)
        except PydanticCustomError as error:
            raise refusal(error.message(), at=(key,)) from None
    return result


def _variables(value: object) -> dict[str, str]:
    variables = _text_map(value)
    for key in variables:
        if "=" in key:
            raise refusal(f"expected a variable's name without '=', got {shown(key)}")
    return variables


def _reference(*alternatives: str, needs_version: bool) -> Callable[[object], str]:
    names = ("azureml:NAME:VERSION", "azureml:NAME@latest") if needs_version else ("azureml:NAME",)
    wanted = any_of((*names, "a resource id", *alternatives))

    def check(value: object) -> str:
        try:
            reference = parse_reference(value) if isinstance(value, str) else None
        except InvalidInput:
            reference = None
        is_exact = reference is not None and (reference.version or reference.label)
        if reference is None or (needs_version and not is_exact):
            raise refusal(f"expected {wanted}, got {shown(value)}")
        return reference.raw

    return check


def _output_file_name(value: object) -> str:
    name = _filled_text(value)
    is_bare = "/" not in name and "\\" not in name and not name.startswith(".")
    if not is_bare or not name.isprintable() or len(name.encode()) > 255:
        raise refusal(
            f"expected a bare file name such as predictions.csv (no folder, no leading '.'), "
            f"got {shown(name)}"
        )
    if name.lower() in RESERVED_OUTPUT_NAMES:
        raise refusal(f"{shown(name)} is a name that every job writes itself; expected another")
    return name


def _inner_path(value: object) -> str:
    """A path inside an uploaded folder."""
    path = _filled_text(value)
    if path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise refusal(
            f"expected a path inside the folder (no '..', not absolute), got {shown(path)}"
        )
    return path


def _shares(value: object) -> dict[str, int]:
    """Percentages by deployment, each by itself."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refusal(f"expected fields 'deployment: percent', got {shown(value)}")
    if len(value) > TRAFFIC_ENTRIES_MAX:
        raise refusal(f"expected at most {TRAFFIC_ENTRIES_MAX} deployments, got {len(value)}")
    check_name, check_share = _name(NAME, NAME_RULE), _integer(0, 100, "percent")
    result = {}
    for name, share in value.items():
        try:
            result[check_name(name)] = check_share(share)
        except PydanticCustomError as error:
            raise refusal(error.message(), at=(str(name),)) from None
    return result


def _traffic(value: object) -> dict[str, int]:
    """Percentages by deployment that are 100 together, or 0: then nobody is served."""
    shares = _shares(value)
    if sum(shares.values()) not in (0, 100):
        raise refusal(f"expected percentages that are 100 or 0 in sum, got {sum(shares.values())}")
    return shares


def _secret(value: object) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str) or not value or len(value) > TEXT_CHARS_MAX:
        raise refusal("expected a secret as text (its value is not shown)")
    return SecretStr(value)


def plain_data(value: object, depth: int = 0) -> object:
    """Return a copy of JSON-able data; anything else in it is refused."""
    if depth > 50:
        raise refusal("nested too deeply")
    if isinstance(value, Mapping):
        return {
            str(plain_data(str(key), depth + 1)): plain_data(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_data(item, depth + 1) for item in value]
    is_fit = math.isfinite(value) if isinstance(value, float) else \
        not (isinstance(value, str) and _UNFIT.search(value))
    if is_fit and (value is None or isinstance(value, str | bool | int | float)):
        return value
    raise refusal(f"expected plain data (text, numbers, lists, mappings), got {shown(value)}")


def _json_map(value: object) -> object:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refusal(f"expected fields, got {shown(value)}")
    return plain_data(value)


InstanceCount = Annotated[int, BeforeValidator(_integer(1, INSTANCE_COUNT_MAX))]
InstanceBound = Annotated[int, BeforeValidator(_integer(0, INSTANCE_COUNT_MAX))]
Concurrency = Annotated[int, BeforeValidator(_integer(1, CONCURRENCY_MAX))]
MiniBatchSize = Annotated[int | str, BeforeValidator(_mini_batch_size)]
Split = Annotated[
    Literal["auto", "file", "rows"], BeforeValidator(choice("auto", "file", "rows"))
]
Retries = Annotated[int, BeforeValidator(_integer(0, RETRIES_MAX))]
TimeoutSeconds = Annotated[int, BeforeValidator(_integer(1, TIMEOUT_S_MAX, "seconds"))]
IdleSeconds = Annotated[int, BeforeValidator(_integer(0, TIMEOUT_S_MAX, "seconds"))]
ErrorThreshold = Annotated[int, BeforeValidator(_integer(-1, ERROR_THRESHOLD_MAX))]
LogLines = Annotated[int, BeforeValidator(_integer(1, LOG_LINES_MAX))]
Port = Annotated[int, BeforeValidator(_integer(1, 65535))]

Text = Annotated[str, BeforeValidator(_text)]
FilledText = Annotated[str, BeforeValidator(_filled_text)]
Name = Annotated[str, BeforeValidator(_name(NAME, NAME_RULE))]
EndpointName = Annotated[str, BeforeValidator(_name(ENDPOINT_NAME, ENDPOINT_NAME_RULE))]
OnlineDeploymentName = Annotated[
    str, BeforeValidator(_name(ONLINE_DEPLOYMENT_NAME, ONLINE_DEPLOYMENT_NAME_RULE))
]
Version = Annotated[
    str, BeforeValidator(_name(NAME, f"a version: {NAME_RULE}")), BeforeValidator(_version)
]
ModelReference = Annotated[
    str, BeforeValidator(_reference("fields (path, type, …)", needs_version=True))
]
EnvironmentReference = Annotated[
    str, BeforeValidator(_reference("fields (image, conda_file, …)", needs_version=True))
]
ComputeReference = Annotated[str, BeforeValidator(_reference(needs_version=False))]
InnerPath = Annotated[str, BeforeValidator(_inner_path)]
OutputFileName = Annotated[str, BeforeValidator(_output_file_name)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]

TextMap = Annotated[dict[str, str], BeforeValidator(_text_map)]
Variables = Annotated[dict[str, str], BeforeValidator(_variables)]
JsonMap = Annotated[dict[str, Any], BeforeValidator(_json_map)]

RequestTimeoutMilliseconds = Annotated[
    int, BeforeValidator(_integer(1, REQUEST_TIMEOUT_MS_MAX, "milliseconds"))
]
QueueWaitMilliseconds = Annotated[
    int, BeforeValidator(_integer(0, REQUEST_TIMEOUT_MS_MAX, "milliseconds"))
]
RequestConcurrency = Annotated[int, BeforeValidator(_integer(1, REQUESTS_MAX))]
ProbeSeconds = Annotated[int, BeforeValidator(_integer(0, PROBE_S_MAX, "seconds"))]
ProbeCount = Annotated[int, BeforeValidator(_integer(1, 1000))]
PollingSeconds = Annotated[int, BeforeValidator(_integer(1, PROBE_S_MAX, "seconds"))]
UtilisationPercentage = Annotated[int, BeforeValidator(_integer(1, 100, "percent"))]
Shares = Annotated[dict[str, int], BeforeValidator(_shares)]
Traffic = Annotated[dict[str, int], BeforeValidator(_traffic)]

OnlineAuthMode = Annotated[
    Literal["key", "aml_token", "aad_token"],
    BeforeValidator(choice("key", "aml_token", "aad_token")),
]
AuthMode = Annotated[Literal["aad_token"], BeforeValidator(choice("aad_token"))]
LoggingLevel = Annotated[
    Literal["info", "warning", "debug"], BeforeValidator(choice("info", "warning", "debug"))
]
OutputAction = Annotated[
    Literal["append_row", "summary_only"], BeforeValidator(choice("append_row", "summary_only"))
]
ModelType = Annotated[
    Literal["custom_model", "mlflow_model", "triton_model"],
    BeforeValidator(choice("custom_model", "mlflow_model", "triton_model")),
]
DataType = Annotated[
    Literal["uri_file", "uri_folder", "mltable"],
    BeforeValidator(choice("uri_file", "uri_folder", "mltable")),
]

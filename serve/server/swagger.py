"""What `/swagger.json` says: a file of the user's, or what the schema of `run()` gives.

Source: the documents that Azure's inference server makes, in Swagger 2, OpenAPI 3.0 and 3.1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferay.errors import InvalidInput

#: What a client may ask for, and the version that it names.
VERSIONS = {"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}

#: Files in the code folder that are served instead, by version.
_FILES = {
    "2": ("swagger.json", "swagger2.json"), "3": ("swagger3.json",), "3.1": ("swagger3.1.json",),
}  # fmt: skip

_ANY_OBJECT = {"type": "object", "example": {}}
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}
_BEARER = {
    "type": "apiKey", "name": "Authorization", "in": "header",
    "description": "For example: Bearer abc123",
}


def documents(
    code_dir: Path, run: Callable[..., Any], *, name: str, version: str, prefix: str = "",
    schemas: tuple[Any, Any] | None = None,
) -> dict[str, bytes]:
    """Return the documents as JSON by version: `2`, `3` and `3.1`, those that there are.

    Args:
        code_dir: Where the user's own files are looked for.
        run: The user's, whose decorators may tell a schema.
        name: Of the service.
        version: Of the service.
        prefix: The path above the server's routes, as clients see it.
        schemas: What a request takes and its answer holds, where no decorators tell.

    Raises:
        InvalidInput: A file of the user's is not JSON.
    """
    found = {}
    supported = _versions_of(run)
    for kind, files in _FILES.items():
        given = _read_file(code_dir, files)
        if given is not None:
            found[kind] = given
        elif kind in supported:
            taken, returned = schemas or _schemas_of(run)
            make = _swagger_2 if kind == "2" else _openapi_3
            document = make(name, version, prefix, taken, returned)
            if kind == "3.1":
                document["openapi"] = "3.1.0"
            found[kind] = json.dumps(document).encode()
    return found


def _read_file(code_dir: Path, names: tuple[str, ...]) -> bytes | None:
    for name in names:
        path = code_dir / name
        if path.is_file():
            text = path.read_bytes()
            try:
                json.loads(text)
            except ValueError as error:
                raise InvalidInput(f"{name} in the code folder is not JSON: {error}") from None
            return text
    return None


def _schemas_of(run: Callable[..., Any]) -> tuple[Any, Any]:
    util = sys.modules.get("inference_schema.schema_util")
    if util is None or not util.is_schema_decorated(run):
        return _ANY_OBJECT, _ANY_OBJECT
    return util.get_input_schema(run), util.get_output_schema(run)


def _versions_of(run: Callable[..., Any]) -> set[str]:
    """Return the versions that can say the schema; Swagger 2 knows no lists of mixed types."""
    util = sys.modules.get("inference_schema.schema_util")
    if util is None:
        return set(_FILES)
    return {VERSIONS[one] for one in util.get_supported_versions(run) if one in VERSIONS}


def _swagger_2(name: str, version: str, prefix: str, taken: Any, returned: Any) -> dict[str, Any]:
    def response(said: str, schema: Any) -> dict[str, Any]:
        return {"description": said, "schema": schema}

    def reference(part: str) -> dict[str, str]:
        return {"$ref": f"#/definitions/{part}"}

    failed = response(_FAILED, reference("ErrorResponse"))
    healthy = response(_HEALTHY, {"type": "string"})
    healthy["examples"] = {"application/json": "Healthy"}
    return {
        "swagger": "2.0",
        "info": _info(name, version),
        "schemes": ["https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {"Bearer": _BEARER},
        "paths": {
            f"{prefix}/": {"get": {
                **_HEALTH, "responses": {"200": healthy, "default": failed},
            }},
            f"{prefix}/score": {"post": {
                **_SCORE, "security": [{"Bearer": []}],
                "parameters": [{
                    "name": "serviceInputPayload", "in": "body", "description": _PAYLOAD,
                    "schema": reference("ServiceInput"),
                }],
                "responses": {
                    "200": response(_SCORED, reference("ServiceOutput")), "default": failed,
                },
            }},
            f"{prefix}/swagger.json": {"get": {
                **_SWAGGER, "parameters": [{**_VERSION, "type": "integer", "enum": [2, 3]}],
                "responses": {
                    "200": response(_SPECIFIED, {"type": "string"}), "default": failed,
                },
            }},
        },
        "definitions": {
            "ServiceInput": taken, "ServiceOutput": returned, "ErrorResponse": _ERROR,
        },
    }


def _openapi_3(name: str, version: str, prefix: str, taken: Any, returned: Any) -> dict[str, Any]:
    def content(kind: str, schema: Any) -> dict[str, Any]:
        return {kind: {"schema": schema}}

    def response(said: str, kind: str, schema: Any) -> dict[str, Any]:
        return {"description": said, "content": content(kind, schema)}

    def reference(part: str) -> dict[str, str]:
        return {"$ref": f"#/components/schemas/{part}"}

    failed = response(_FAILED, "application/json", reference("ErrorResponse"))
    text = {"type": "string"}
    return {
        "openapi": "3.0.3",
        "info": _info(name, version),
        "security": [{"Bearer": []}],
        "paths": {
            f"{prefix}/": {"get": {
                **_HEALTH,
                "responses": {
                    "200": response(_HEALTHY, "text/plain", {**text, "example": "Healthy"}),
                    "default": failed,
                },
            }},
            f"{prefix}/score": {"post": {
                **_SCORE, "security": [{"Bearer": []}],
                "requestBody": {
                    "description": _PAYLOAD,
                    "content": content("application/json", reference("ServiceInput")),
                },
                "responses": {
                    "200": response(_SCORED, "application/json", reference("ServiceOutput")),
                    "default": failed,
                },
            }},
            f"{prefix}/swagger.json": {"get": {
                **_SWAGGER,
                "parameters": [{**_VERSION, "schema": {"type": "integer", "enum": [2, 3]}}],
                "responses": {"200": response(_SPECIFIED, "text/plain", text), "default": failed},
            }},
        },
        "components": {
            "schemas": {"ServiceInput": taken, "ServiceOutput": returned, "ErrorResponse": _ERROR},
            "securitySchemes": {"Bearer": _BEARER},
        },
    }


_FAILED = "The request could not be answered."
_HEALTHY = "The server is up; the body is 'Healthy'."
_SCORED = "What run() returned."
_SPECIFIED = "This document."
_PAYLOAD = "What run() is called with."
_HEALTH = {"operationId": "ServiceHealthCheck", "description": "Say whether the server is up."}
_SCORE = {"operationId": "RunMLService", "description": "Call the model."}
_SWAGGER = {"operationId": "GetSwaggerSpec", "description": "Describe the service."}
_VERSION = {"name": "version", "in": "query", "required": False}


def _info(name: str, version: str) -> dict[str, str]:
    return {"title": name, "description": f"The scoring API of {name}", "version": version}

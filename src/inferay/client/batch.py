"""Batch endpoints and their deployments."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferay.client.http import Http, segment
from inferay.client.inline import body_of
from inferay.client.jobs import Job, output_data
from inferay.client.resources import Named, check_not_failed, upload, wait_for, wire
from inferay.engine.resources import (
    BatchDeployment,
    BatchEndpoint,
    BatchJobBody,
    from_rest,
    is_local_path,
    parse_body,
    resolve_local_paths,
    to_rest,
)
from inferay.errors import InvalidInput


class BatchEndpoints(Named[BatchEndpoint]):
    """Batch endpoints."""

    def __init__(self, http: Http) -> None:
        super().__init__(http, "batchEndpoints", BatchEndpoint)

    def create_or_update(self, entity: BatchEndpoint, *, wait: bool = True) -> BatchEndpoint:
        """Create or replace an endpoint; see `Named.create_or_update`."""
        address = f"/v1/batchEndpoints/{segment(entity.name)}"
        view, operation = self._http.put_waited(address, to_rest(entity))
        if operation is not None and wait:
            wait_for(self._http, operation)
            view = self._http.get(address)
        return self._entity(view)

    def set_default(self, name: str, deployment: str) -> BatchEndpoint:
        """Make a deployment the endpoint's default.

        Raises:
            InvalidInput: The endpoint has no such deployment.
        """
        endpoint = self.get(name)
        endpoint.defaults.deployment_name = deployment
        return self.create_or_update(endpoint)

    def delete(self, name: str, *, wait: bool = True) -> None:
        """Delete an endpoint with its deployments; cancel its jobs; keep their outputs."""
        operation = self._http.delete(f"/v1/batchEndpoints/{segment(name)}")
        if operation is not None and wait:
            wait_for(self._http, operation)

    def invoke(
        self, name: str, *, input: str | Path | None = None, input_type: str | None = None,
        output_path: str | Path | None = None, deployment_name: str | None = None,
        job_name: str | None = None, mini_batch_size: int | str | None = None,
        instance_count: int | None = None, settings: Mapping[str, Any] | None = None,
    ) -> Job:
        """Invoke a batch endpoint; return its job at once.

        Args:
            name: The endpoint.
            input: A local file or folder, `azureml:DATA:VERSION`, an `azureml://` path, `s3://…`
                or `https://…`.
            input_type: `uri_file` or `uri_folder`; by default what the local path is, else
                a folder.
            output_path: A folder, or an `azureml://` path; by default the job's own place.
            deployment_name: By default the endpoint's default deployment.
            job_name: The job's name; a repeat with the same content returns the same job.
            mini_batch_size: For this job alone.
            instance_count: For this job alone.
            settings: Other settings for this job alone, as REST properties.

        Raises:
            InvalidInput: The input is missing, or a setting is wrong.
            NotFound: There is no such endpoint or deployment.
            Conflict: The output exists, or the job's name is taken.
        """
        if input is None or input == "":   # Path("") would be the current folder
            raise InvalidInput("input: missing; give a file, a folder or an azureml: path")
        uri, kind = self._input(str(input), input_type)
        properties: dict[str, Any] = {
            **(settings or {}),
            "inputData": {"input": {"jobInputType": kind, "uri": uri}},
        }
        if output_path is not None:
            properties["outputData"] = output_data(output_path)
        if mini_batch_size is not None:
            properties["miniBatchSize"] = mini_batch_size
        if instance_count is not None:
            resources = properties.get("resources") or {}
            properties["resources"] = {**resources, "instanceCount": instance_count}
        if job_name is not None:
            properties["name"] = job_name
        body = {"properties": properties}
        parse_body(BatchJobBody, body)
        headers = {"azureml-model-deployment": segment(deployment_name)} if deployment_name else {}
        address = f"/endpoints/{segment(name)}/jobs"
        return Job(self._http, self._http.post(address, body, headers))

    def list_jobs(self, name: str) -> list[Job]:
        """Return an endpoint's jobs, newest first."""
        found = self._http.get(f"/v1/batchEndpoints/{segment(name)}/jobs")["value"]
        return [Job(self._http, view) for view in found]

    def _input(self, value: str, input_type: str | None) -> tuple[str, str]:
        kinds = {"uri_file": "UriFile", "uri_folder": "UriFolder", None: None}
        if input_type not in kinds:
            raise InvalidInput(
                f"input_type: expected uri_file or uri_folder, got '{input_type}'",
                target="input_type",
            )
        kind = kinds[input_type]
        if not is_local_path(value):
            is_web = value.lower().startswith(("https://", "http://"))
            return value, kind or ("UriFile" if is_web else "UriFolder")
        path = Path(value.removeprefix("file://").removeprefix("file:")).absolute()
        if not path.exists():
            raise InvalidInput(
                f"the input {path} does not exist", code="InputMissing", target="input"
            )
        found = "UriFolder" if path.is_dir() else "UriFile"
        return upload(self._http, str(path)), kind or found


class BatchDeployments:
    """Deployments of batch endpoints."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create_or_update(
        self, deployment: BatchDeployment, *, set_default: bool = False, wait: bool = True,
        skip_script_validation: bool = False,
    ) -> BatchDeployment:
        """Create or replace a deployment, and what it holds inline: code, model, environment.

        Blocks until it is ready, unless told not to `wait`. With `skip_script_validation` the
        script is not parsed here. Its `notices` are in the entity's `warnings`.

        Raises:
            InvalidInput: Something in it is wrong.
            NotFound: Its endpoint, or an asset that it names, does not exist.
        """
        if deployment.endpoint_name is None:
            raise InvalidInput(
                "endpoint_name: missing; it is required (or --endpoint-name)",
                target="endpoint_name",
            )
        deployment = resolve_local_paths(
            deployment, skip_script_validation=skip_script_validation
        )
        address = self._address(str(deployment.endpoint_name), deployment.name)
        self._http.get(f"/v1/batchEndpoints/{segment(str(deployment.endpoint_name))}")
        body = body_of(self._http, deployment)
        view, operation = self._http.put_waited(address, body)
        if operation is not None and (wait or set_default):
            wait_for(self._http, operation)
            view = self._http.get(address)
        check_not_failed(view)
        if set_default:
            endpoints = BatchEndpoints(self._http)
            endpoints.set_default(str(deployment.endpoint_name), deployment.name)
        return self._entity(str(deployment.endpoint_name), view)

    def get(self, name: str, endpoint_name: str) -> BatchDeployment:
        """Return a deployment.

        Raises:
            NotFound: There is none.
        """
        return self._entity(endpoint_name, self._http.get(self._address(endpoint_name, name)))

    def list(self, endpoint_name: str) -> list[BatchDeployment]:
        """Return an endpoint's deployments, by name."""
        address = f"/v1/batchEndpoints/{segment(endpoint_name)}/deployments"
        return [self._entity(endpoint_name, view) for view in self._http.get(address)["value"]]

    def delete(self, name: str, endpoint_name: str, *, wait: bool = True) -> None:
        """Delete a deployment; its jobs go on.

        Raises:
            Conflict: It is the default, and there are others.
        """
        operation = self._http.delete(self._address(endpoint_name, name))
        if operation is not None and wait:
            wait_for(self._http, operation)

    def list_jobs(self, name: str, endpoint_name: str) -> builtins.list[Job]:
        """Return a deployment's jobs, newest first."""
        found = self._http.get(f"{self._address(endpoint_name, name)}/jobs")["value"]
        return [Job(self._http, view) for view in found]

    def _entity(self, endpoint_name: str, view: dict[str, Any]) -> BatchDeployment:
        entity = from_rest(
            BatchDeployment, view["name"], wire(view), endpoint_name=endpoint_name
        )
        return entity.with_warnings(view.get("notices") or [])

    @staticmethod
    def _address(endpoint: str, name: str) -> str:
        return f"/v1/batchEndpoints/{segment(endpoint)}/deployments/{segment(name)}"

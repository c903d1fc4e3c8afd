"""Online endpoints and their deployments."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from inferay.client.http import Http, segment
from inferay.client.inline import body_of
from inferay.client.resources import Named, check_not_failed, wait_for, wire
from inferay.engine.resources import (
    OnlineDeployment,
    OnlineEndpoint,
    from_rest,
    resolve_local_paths,
    to_rest,
)
from inferay.errors import (
    Conflict,
    InferayError,
    InvalidInput,
    NotAuthorized,
    NotFound,
    Unavailable,
    UserCodeError,
)

#: What an answer of a scoring URI is raised as; 424 is the script's own failure.
_ERRORS: dict[int, type[InferayError]] = {
    400: InvalidInput, 401: NotAuthorized, 404: NotFound, 408: Unavailable, 413: InvalidInput,
    424: UserCodeError, 429: Unavailable, 502: Unavailable, 503: Unavailable,
}

#: The rules of an endpoint, and their names on the wire.
RULES = {"traffic": "traffic", "mirror_traffic": "mirrorTraffic"}

#: Of an answer that is no success, in the error's message.
SAID_CHARS_MAX = 500


@dataclass(frozen=True)
class Answer:
    """What a deployment answered.

    Attributes:
        body: As it came.
        deployment: Which one answered.
        request_id: By which logs know the request.
    """

    body: bytes
    deployment: str
    request_id: str

    @property
    def value(self) -> Any:
        """The body as JSON, or as text where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return self.body.decode(errors="replace")


class OnlineEndpoints(Named[OnlineEndpoint]):
    """Online endpoints."""

    def __init__(self, http: Http) -> None:
        super().__init__(http, "onlineEndpoints", OnlineEndpoint)

    def create_or_update(self, entity: OnlineEndpoint, *, wait: bool = True) -> OnlineEndpoint:
        """Create or replace an endpoint; see `Named.create_or_update`.

        Traffic rules that the entity does not set stay as they are.
        """
        address = _endpoint(entity.name)
        body = to_rest(entity)
        properties: dict[str, Any] = body["properties"]   # type: ignore[assignment]
        for rule, key in RULES.items():
            if rule not in entity.model_fields_set:
                del properties[key]
        view, operation = self._http.put_waited(address, body)
        if operation is not None and wait:
            wait_for(self._http, operation)
            view = self._http.get(address)
        return self._entity(view)

    def set_traffic(
        self, name: str, traffic: Mapping[str, int] | None = None,
        mirror_traffic: Mapping[str, int] | None = None, *, wait: bool = True,
    ) -> OnlineEndpoint:
        """Make these the percentages of the requests, and of the copies; None leaves as it is.

        Raises:
            InvalidInput: The sum is neither 0 nor 100, or there is no such deployment.
        """
        given = {"traffic": traffic, "mirror_traffic": mirror_traffic}
        endpoint = without_rules(self.get(name))
        for rule, shares in given.items():
            if shares is not None:
                setattr(endpoint, rule, dict(shares))
        return self.create_or_update(endpoint, wait=wait)

    def delete(self, name: str, *, wait: bool = True) -> None:
        """Delete an endpoint with its deployments; its keys and tokens end first."""
        operation = self._http.delete(_endpoint(name))
        if operation is not None and wait:
            wait_for(self._http, operation)

    def get_keys(self, name: str) -> dict[str, str]:
        """Return what opens the endpoint: `primaryKey` and `secondaryKey`, or a token's fields."""
        route = "listKeys" if self.get(name).auth_mode == "key" else "token"
        found: dict[str, str] = self._http.post(f"{_endpoint(name)}/{route}")
        return found

    def regenerate_keys(
        self, name: str, key_type: str = "primary", *, wait: bool = True
    ) -> None:
        """Replace one key, `primary` or `secondary`; the old one ends within seconds."""
        body = {"keyType": key_type}
        _, operation = self._http.post_waited(f"{_endpoint(name)}/regenerateKeys", body)
        if operation is not None and wait:
            wait_for(self._http, operation)

    def invoke(
        self, name: str, request: bytes | str | Mapping[str, Any] | builtins.list[Any], *,
        deployment_name: str | None = None,
    ) -> Answer:
        """Score one request with the endpoint's own credentials; blocks until it is answered.

        Args:
            name: The endpoint.
            request: The body; what is no bytes and no text is sent as JSON.
            deployment_name: By default the traffic rule says.

        Raises:
            UserCodeError: The script raised; its log has the traceback.
            Unavailable: It took too long, too many are waiting, or nothing is up.
            NotFound: No deployment takes traffic, or there is none of the name.
        """
        endpoint = self.get(name)
        found = self.get_keys(name)
        body, headers = scoring_request(request, found, deployment_name)
        answer = self._http.score(str(endpoint.scoring_uri), body, headers)
        if answer.status_code == 404 and deployment_name is not None:
            OnlineDeployments(self._http).get(deployment_name, name)   # says which names there are
        return answer_of(name, answer)

    def shadow_report(self, name: str, live: str, shadow: str, **settings: float) -> dict[str, Any]:
        """Return what the answers of two deployments to the same requests show.

        Args:
            name: The endpoint.
            live: The deployment whose answers clients got.
            shadow: The deployment that got copies.
            settings: `absoluteTolerance` and `relativeTolerance` of numbers, and `worst`.
        """
        return self._http.get(
            f"{_endpoint(name)}/shadowReport", live=live, shadow=shadow, **settings
        )


def without_rules(entity: OnlineEndpoint, *, but: Iterable[str] = ()) -> OnlineEndpoint:
    """Return the endpoint as one that sets no traffic rule, `but` these: others stay as they are.

    A rule that was read to be written back would undo what somebody else has changed meanwhile.
    """
    entity.model_fields_set.difference_update(RULES.keys() - set(but))
    return entity


class OnlineDeployments:
    """Deployments of online endpoints."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(
        self, deployment: OnlineDeployment, *, all_traffic: bool = False, wait: bool = True,
        skip_script_validation: bool = False,
    ) -> OnlineDeployment:
        """Create a deployment; see `create_or_update`.

        Raises:
            Conflict: There is one of the name.
        """
        endpoint = _endpoint_name(deployment)
        if any(one.name == deployment.name for one in self.list(endpoint)):
            raise Conflict(
                f"endpoint '{endpoint}' has a deployment '{deployment.name}' already; change it "
                "with online-deployment update",
                target=deployment.name,
            )
        return self.create_or_update(
            deployment, all_traffic=all_traffic, wait=wait,
            skip_script_validation=skip_script_validation,
        )

    def create_or_update(
        self, deployment: OnlineDeployment, *, all_traffic: bool = False, wait: bool = True,
        skip_script_validation: bool = False,
    ) -> OnlineDeployment:
        """Create or replace a deployment, and what it holds inline: code, model, environment.

        Blocks until its instances are up, unless told not to `wait`; what serves meanwhile goes
        on. With `all_traffic` all requests go to it then. With `skip_script_validation` the script
        is not parsed here. Its `notices` are in the entity's `warnings`.

        Raises:
            InvalidInput: Something in it is wrong.
            NotFound: Its endpoint, or an asset that it names, does not exist.
            InferayError: It cannot start; the details have the user's traceback.
        """
        endpoint = _endpoint_name(deployment)
        deployment = resolve_local_paths(
            deployment, skip_script_validation=skip_script_validation
        )
        address = self._address(endpoint, deployment.name)
        self._http.get(_endpoint(endpoint))
        body = body_of(self._http, deployment)
        view, operation = self._http.put_waited(address, body)
        if operation is not None and (wait or all_traffic):
            wait_for(self._http, operation)
            view = self._http.get(address)
        check_not_failed(view)
        if all_traffic:
            OnlineEndpoints(self._http).set_traffic(endpoint, {deployment.name: 100})
        return self._entity(endpoint, view)

    def get(self, name: str, endpoint_name: str) -> OnlineDeployment:
        """Return a deployment.

        Raises:
            NotFound: There is none.
        """
        return self._entity(endpoint_name, self._http.get(self._address(endpoint_name, name)))

    def list(self, endpoint_name: str) -> list[OnlineDeployment]:
        """Return an endpoint's deployments, by name."""
        found = self._http.get(f"{_endpoint(endpoint_name)}/deployments")["value"]
        return [self._entity(endpoint_name, view) for view in found]

    def delete(self, name: str, endpoint_name: str, *, wait: bool = True) -> None:
        """Delete a deployment.

        Raises:
            Conflict: It gets requests, or copies.
        """
        operation = self._http.delete(self._address(endpoint_name, name))
        if operation is not None and wait:
            wait_for(self._http, operation)

    def get_logs(
        self, name: str, endpoint_name: str, *, lines: int = 5000,
        container: str = "inference-server",
    ) -> str:
        """Return the last lines of what the deployment's instances printed."""
        kind = {"inference-server": "InferenceServer", "storage-initializer": "StorageInitializer"}
        if container not in kind:
            raise InvalidInput(
                f"container: expected inference-server or storage-initializer, got '{container}'"
            )
        found = self._http.post(
            f"{self._address(endpoint_name, name)}/getLogs",
            {"containerType": kind[container], "tail": lines},
        )
        return str(found["content"])

    def _entity(self, endpoint_name: str, view: dict[str, Any]) -> OnlineDeployment:
        entity = from_rest(
            OnlineDeployment, view["name"], wire(view), endpoint_name=endpoint_name
        )
        return entity.with_warnings(view.get("notices") or [])

    @staticmethod
    def _address(endpoint: str, name: str) -> str:
        return f"{_endpoint(endpoint)}/deployments/{segment(name)}"


def _endpoint(name: str) -> str:
    return f"/v1/onlineEndpoints/{segment(name)}"


def _endpoint_name(deployment: OnlineDeployment) -> str:
    if deployment.endpoint_name is None:
        raise InvalidInput(
            "endpoint_name: missing; it is required (or --endpoint-name)", target="endpoint_name"
        )
    return str(deployment.endpoint_name)


def scoring_request(
    request: bytes | str | Mapping[str, Any] | builtins.list[Any], credentials: Mapping[str, str],
    deployment_name: str | None,
) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a scoring request."""
    key = credentials.get("primaryKey") or credentials["accessToken"]
    if isinstance(request, str):
        request = request.encode()
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if deployment_name is not None:
        headers["azureml-model-deployment"] = segment(deployment_name)
    return body, headers


def answer_of(name: str, answer: httpx.Response, *, flags: str = "") -> Answer:
    """Return what an endpoint answered.

    Args:
        name: The endpoint.
        answer: As it came.
        flags: What get-logs needs to show its logs.

    Raises:
        InferayError: It is no success; of the class that the status stands for.
    """
    deployment = answer.headers.get("azureml-model-deployment", "")
    if answer.status_code != 200:
        raise failure(
            name, deployment, answer.status_code, answer.headers, answer.text, flags=flags
        )
    return Answer(answer.content, deployment, answer.headers.get("x-request-id", ""))


def failure(
    name: str, deployment: str, status: int, headers: Mapping[str, str], text: str, *,
    flags: str = "",
) -> InferayError:
    """Return what an answer that is no success stands for."""
    said, code = _said(text)
    who = f"deployment '{deployment}' of endpoint '{name}'" if deployment else f"endpoint '{name}'"
    cls = _ERRORS.get(status, InferayError)
    if status != 424:
        return cls(f"{who} answered {status}: {said}", code=code)
    own = headers.get("ms-azureml-model-error-statuscode", "")
    return cls(
        f"{who} answered 424, its model {own}: {said}; see inferay online-deployment get-logs "
        f"{flags}-e {name} -n {deployment}",
        code="ModelError",
    )


def _said(text: str) -> tuple[str, str | None]:
    """Return the message of an answer in one line, and its code where it has one.

    An edge answers with Azure's error body, a container with a `message`, a script with anything.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    body = found if isinstance(found, dict) else {}
    error = body["error"] if isinstance(body.get("error"), dict) else body
    message, code = error.get("message"), error.get("code")
    said = " ".join((message if isinstance(message, str) else text).split())
    return said[:SAID_CHARS_MAX] or "no reason given", code if isinstance(code, str) else None

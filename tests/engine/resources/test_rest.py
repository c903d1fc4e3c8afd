"""Bodies as Azure's SDK sends them, and the way there and back for every kind of entity."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from inferay.engine.resources import (
    BatchDeployment,
    BatchDeploymentBody,
    BatchEndpoint,
    BatchEndpointBody,
    BatchJobBody,
    Code,
    CodeConfiguration,
    Compute,
    ComputeBody,
    CreationContext,
    Data,
    Datastore,
    DatastoreBody,
    Entity,
    Environment,
    EnvironmentVersionBody,
    Model,
    from_rest,
    parse_body,
    to_rest,
)
from inferay.errors import InvalidInput

WORKSPACE = (
    "/subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w"
)
SENT_DEPLOYMENT: dict[str, Any] = {
    "location": "westus",
    "tags": {},
    "properties": {
        "environmentId": f"{WORKSPACE}/environments/CliV2AnonymousEnvironment/versions/5f2a",
        "model": {"assetId": f"{WORKSPACE}/models/m/versions/1", "referenceType": "Id"},
        "codeConfiguration": {
            "codeId": f"{WORKSPACE}/codes/c/versions/1",
            "scoringScript": "batch_driver.py",
        },
        "compute": f"{WORKSPACE}/computes/cpu-cluster",
        "resources": {"instanceCount": 2, "properties": {}},
        "miniBatchSize": 5,
        "maxConcurrencyPerInstance": 3,
        "outputAction": "AppendRow",
        "outputFileName": "predictions.csv",
        "errorThreshold": -1,
        "retrySettings": {"maxRetries": 2, "timeout": "PT5M"},
        "loggingLevel": "info",
        "properties": {},
        "provisioningState": "Creating",
    },
}


def test_the_sdks_batch_deployment_is_understood() -> None:
    entity = from_rest(BatchDeployment, "d", SENT_DEPLOYMENT, endpoint_name="my-ep")
    assert entity.settings.retry_settings.timeout == 300
    assert entity.settings.output_action == "append_row"
    assert entity.resources.instance_count == 2
    assert entity.model == f"{WORKSPACE}/models/m/versions/1"
    assert entity.endpoint_name == "my-ep"
    sent = dict(SENT_DEPLOYMENT["properties"], loggingLevel="Info", environmentVariables={})
    del sent["provisioningState"]
    assert to_rest(entity) == {"tags": {}, "properties": sent}


def test_the_sdks_batch_endpoint_is_understood() -> None:
    body = {"location": "x", "tags": {}, "properties": {"authMode": "aadToken", "properties": {}}}
    entity = from_rest(BatchEndpoint, "my-ep", body)
    assert entity == BatchEndpoint(name="my-ep")
    assert to_rest(entity) == {
        "tags": {},
        "properties": {"authMode": "AADToken", "properties": {}, "defaults": {}},
    }


def test_the_sdks_blob_datastore_and_compute_are_understood() -> None:
    store = {
        "properties": {
            "datastoreType": "AzureBlob",
            "accountName": "a",
            "containerName": "c",
            "credentials": {
                "credentialsType": "Sas",
                "secrets": {"secretsType": "Sas", "sasToken": "canary"},
            },
            "subscriptionId": "s",
            "resourceGroup": "r",
        }
    }
    datastore = from_rest(Datastore, "s", store)
    assert datastore.credentials is not None
    assert "canary" not in json.dumps(to_rest(datastore))
    assert "canary" in json.dumps(to_rest(datastore, show_secrets=True))
    pool = {
        "location": "westus",
        "properties": {
            "computeType": "AmlCompute",
            "properties": {
                "vmSize": "STANDARD_DS3_V2",
                "vmPriority": "LowPriority",
                "scaleSettings": {
                    "maxNodeCount": 4,
                    "minNodeCount": 0,
                    "nodeIdleTimeBeforeScaleDown": "PT120S",
                },
                "remoteLoginPortPublicAccess": "NotSpecified",
                "isolatedNetwork": False,
            },
        },
    }
    compute = from_rest(Compute, "c", pool)
    assert (compute.size, compute.tier) == ("STANDARD_DS3_V2", "low_priority")
    assert compute.idle_time_before_scale_down == 120


def test_a_servers_answer_gives_its_facts_in_the_clis_names() -> None:
    body = {
        "id": f"{WORKSPACE}/batchEndpoints/my-ep",
        "name": "my-ep",
        "type": "Microsoft.MachineLearningServices/workspaces/batchEndpoints",
        "systemData": {"createdAt": "2026-01-01T00:00:00Z", "lastModifiedAt": None},
        "properties": {
            "authMode": "AADToken",
            "scoringUri": "https://h/batch/my-ep/jobs",
            "swaggerUri": "https://h/swagger",
            "provisioningState": "Succeeded",
            "defaults": {"deploymentName": "d"},
        },
    }
    entity = from_rest(BatchEndpoint, "my-ep", body)
    assert entity.defaults.deployment_name == "d"
    assert entity.creation_context == CreationContext(created_at="2026-01-01T00:00:00Z")
    plain = entity.to_dict()
    assert plain["id"] == body["id"]
    assert plain["scoring_uri"] == "https://h/batch/my-ep/jobs"
    assert plain["openapi_uri"] == "https://h/swagger"
    assert plain["provisioning_state"] == "Succeeded"
    assert plain["creation_context"] == {"created_at": "2026-01-01T00:00:00Z"}


def test_a_failed_deployment_carries_its_error_and_its_endpoint() -> None:
    error = {"code": "UserScriptError", "message": "init() raised"}
    body = {
        "id": f"{WORKSPACE}/batchEndpoints/my-ep/deployments/d",
        "properties": {"provisioningState": "Failed", "error": error},
    }
    entity = from_rest(BatchDeployment, "d", body)
    assert entity.endpoint_name == "my-ep"
    assert entity.to_dict()["error"] == entity.error == error


def test_an_assets_version_comes_from_its_id() -> None:
    body = {
        "id": f"{WORKSPACE}/models/m/versions/7",
        "properties": {"modelUri": "azureml://datastores/d/paths/x", "flavors": {}},
    }
    entity = from_rest(Model, "m", body)
    assert (entity.version, entity.type) == ("7", "custom_model")
    assert entity.to_dict()["path"] == "azureml://datastores/d/paths/x"


@pytest.mark.parametrize(
    ("cls", "data", "pointer", "message"),
    [
        (BatchJobBody, {"properties": {"miniBatchSzie": 1}}, "/properties/miniBatchSzie",
         "properties.miniBatchSzie: unknown field; did you mean 'miniBatchSize'?"),
        (BatchJobBody, {"properties": {"retrySettings": {"timeout": 30}}},
         "/properties/retrySettings/timeout",
         "properties.retrySettings.timeout: expected a duration of whole seconds from PT1S to P7D, "
         "got 30"),
        (BatchJobBody, {"properties": {"retrySettings": {"timeout": "PT0S"}}},
         "/properties/retrySettings/timeout",
         "properties.retrySettings.timeout: expected a duration of whole seconds from PT1S to P7D, "
         "got 'PT0S'"),
        (BatchJobBody, {"properties": {"inputData": {"a/b": {"jobInputType": "UriFoldr"}}}},
         "/properties/inputData/a~1b/jobInputType",
         "properties.inputData.a/b.jobInputType: expected UriFolder, UriFile, MLTable, Literal, "
         "CustomModel or MLFlowModel, got 'UriFoldr'; did you mean 'UriFolder'?"),
        (BatchJobBody, {"properties": {"inputData": []}}, "/properties/inputData",
         "properties.inputData: expected fields, got a list"),
        (BatchJobBody, {"properties": {"name": "../x"}}, "/properties/name",
         "properties.name: expected 1 to 255 letters, digits, '.', '_' and '-', starting with a "
         "letter or a digit, got '../x'"),
        (BatchJobBody, {"properties": {"miniBatchSize": 1, "MiniBatchSize": 2}},
         "/properties/miniBatchSize",
         "properties.miniBatchSize: given twice, in different case; expected it once"),
        (BatchJobBody, {}, "/properties", "properties: missing; it is required"),
        (BatchJobBody, [], "", "expected a JSON object, got a list"),
        (BatchJobBody, None, "", "expected a JSON object, got nothing"),
        (BatchDeploymentBody, {"properties": {"outputFileName": "../x"}},
         "/properties/outputFileName",
         "properties.outputFileName: expected a bare file name such as predictions.csv (no folder, "
         "no leading '.'), got '../x'"),
        (BatchDeploymentBody,
         {"properties": {"deploymentConfiguration":
                         {"deploymentConfigurationType": "PipelineComponent"}}},
         "/properties/deploymentConfiguration",
         "properties.deploymentConfiguration: pipeline component deployments are not supported; "
         "expected type: model (deploy each scoring step as a deployment of its own)"),
        (BatchEndpointBody, {"properties": {"authMode": "Key"}}, "/properties/authMode",
         "properties.authMode: expected aad_token, got 'Key'"),
        (DatastoreBody,
         {"properties": {"datastoreType": "AzureBlob", "credentials": {"secrets": "canary"}}},
         "/properties/credentials/secrets",
         "properties.credentials.secrets: expected fields, got a value that is not shown"),
        (EnvironmentVersionBody, {"properties": {"condaFile": 5}}, "/properties/condaFile",
         "properties.condaFile: expected text, got 5"),
        (ComputeBody, {"properties": {"computeType": "VirtualMachine"}}, "/properties/computeType",
         "properties.computeType: expected amlcompute or kubernetes, got 'VirtualMachine'"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused_with_a_json_pointer(
    cls: type[BaseModel], data: object, pointer: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_body(cls, data)
    assert (caught.value.target, str(caught.value)) == (pointer, message)


def test_what_only_the_entity_can_tell_is_refused_too() -> None:
    with pytest.raises(
        InvalidInput, match=r"^properties: expected at least one of image"
    ) as caught:
        from_rest(Environment, "e", {"properties": {}})
    assert caught.value.target == "/properties"
    with pytest.raises(InvalidInput, match=r"^properties: properties.condaFile:2:1: duplicate key"):
        from_rest(Environment, "e", {"properties": {"image": "i", "condaFile": "a: 1\na: 2\n"}})


def test_a_job_body_is_read_in_azures_case_and_in_its_documents_case() -> None:
    for body in (
        {
            "properties": {
                "inputData": {"heart": {"jobInputType": "UriFolder", "uri": "azureml:d:1"}},
                "outputData": {"score": {"jobOutputType": "UriFolder", "uri": "s3://b/k"}},
                "miniBatchSize": 5,
                "compute": {"instanceCount": 3},
                "retrySettings": {"maxRetries": 1, "timeout": "PT30S"},
                "outputAction": "append_row",
                "loggingLevel": "DEBUG",
                "maxConcurrencyPerInstance": 2,
                "environmentVariables": {"A": 1},
                "properties": {"experimentName": "x"},
                "name": None,
            }
        },
        {
            "Properties": {
                "InputData": {"heart": {"JobInputType": "uri_folder", "Uri": "azureml:d:1"}},
                "OutputData": {"score": {"Uri": "s3://b/k"}},
                "MiniBatchSize": 5,
                "Resources": {"InstanceCount": 3},
                "RetrySettings": {"MaxRetries": 1, "Timeout": "PT30S"},
                "OutputAction": "AppendRow",
                "LoggingLevel": "debug",
                "MaxConcurrencyPerInstance": 2,
                "EnvironmentVariables": {"A": "1"},
                "Properties": {"experimentName": "x"},
            }
        },
    ):
        job = parse_body(BatchJobBody, body).properties
        assert job.input_data["heart"].job_input_type == "UriFolder"
        assert job.input_data["heart"].uri == "azureml:d:1"
        assert job.output_data["score"].uri == "s3://b/k"
        assert (job.mini_batch_size, job.instance_count) == (5, 3)
        assert job.retry_settings is not None
        assert (job.retry_settings.max_retries, job.retry_settings.timeout) == (1, 30)
        assert (job.output_action, job.logging_level) == ("append_row", "debug")
        assert job.max_concurrency_per_instance == 2
        assert job.environment_variables == {"A": "1"}
        assert job.properties == {"experimentName": "x"}
        assert job.name is None
        assert job.error_threshold is None


def test_what_is_still_local_needs_an_id() -> None:
    code = CodeConfiguration(code="./src", scoring_script="score.py")
    entity = BatchDeployment(name="d", model=Model(path="m"), code_configuration=code)
    with pytest.raises(InvalidInput, match="model: not uploaded yet; expected model_id"):
        to_rest(entity)
    with pytest.raises(InvalidInput, match="code: not uploaded yet; expected code_id"):
        to_rest(entity, model_id="azureml:m:1")
    body = to_rest(entity, model_id="azureml:m:1", code_id="azureml:c:1")
    sent = from_rest(BatchDeployment, "d", body)
    assert sent.model == "azureml:m:1"
    assert sent.code_configuration == CodeConfiguration(
        code="azureml:c:1", scoring_script="score.py"
    )
    with pytest.raises(InvalidInput, match="conda_file: not read yet"):
        to_rest(Environment(name="e", image="i", conda_file="conda.yml"))


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
endpoint_names = st.from_regex(r"[a-z][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)
filled = texts.filter(lambda text: bool(text.strip()))
maps = st.dictionaries(texts, texts, max_size=3)
variables = st.dictionaries(texts.filter(lambda text: "=" not in text), texts, max_size=3)
optional_text = st.none() | texts
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
common: dict[str, Any] = {
    "name": names, "description": optional_text, "tags": maps, "properties": maps,
}  # fmt: skip
asset: dict[str, Any] = {**common, "version": st.none() | names}
routes = st.none() | st.fixed_dictionaries({"path": filled, "port": st.integers(1, 65535)})
references = st.builds("azureml:{}:{}".format, names, names)
ENTITIES: dict[type[Entity], st.SearchStrategy[dict[str, Any]]] = {
    BatchEndpoint: st.fixed_dictionaries(
        {**common, "name": endpoint_names,
         "defaults": st.fixed_dictionaries({"deployment_name": st.none() | names})}
    ),
    BatchDeployment: st.fixed_dictionaries(
        {**common, "endpoint_name": st.none() | endpoint_names, "model": st.none() | references,
         "environment": st.none() | references, "environment_variables": variables,
         "compute": st.none() | st.builds("azureml:{}".format, names),
         "code_configuration": st.none() | st.fixed_dictionaries(
             {"code": references, "scoring_script": st.just("a/score.py")}),
         "resources": st.fixed_dictionaries(
             {"instance_count": st.integers(1, 1000), "instance_type": st.none() | filled,
              "properties": st.dictionaries(texts, plain, max_size=2)}),
         "settings": st.fixed_dictionaries(
             {"mini_batch_size": st.integers(1, 10**7),
              "max_concurrency_per_instance": st.integers(1, 100),
              "output_action": st.sampled_from(["append_row", "summary_only"]),
              "output_file_name": st.sampled_from(["a.csv", "b.parquet"]),
              "error_threshold": st.integers(-1, 2**31 - 1),
              "logging_level": st.sampled_from(["info", "warning", "debug"]),
              "retry_settings": st.fixed_dictionaries(
                  {"max_retries": st.integers(0, 100), "timeout": st.integers(1, 604800)})})}
    ),
    Model: st.fixed_dictionaries(
        {**asset, "path": filled, "flavors": st.dictionaries(texts, maps, max_size=2),
         "type": st.sampled_from(["custom_model", "mlflow_model", "triton_model"])}
    ),
    Data: st.fixed_dictionaries(
        {**asset, "path": filled, "type": st.sampled_from(["uri_file", "uri_folder", "mltable"])}
    ),
    Code: st.fixed_dictionaries({**asset, "path": filled}),
    Environment: st.fixed_dictionaries(
        {**asset, "image": filled,
         "conda_file": st.none() | st.dictionaries(texts, plain, min_size=1, max_size=3),
         "inference_config": st.none() | st.fixed_dictionaries(
             {"liveness_route": routes, "scoring_route": routes})}
    ),
    Datastore: st.fixed_dictionaries(
        {**common, "type": st.just("azure_blob"), "account_name": filled,
         "container_name": filled, "endpoint": st.none() | filled,
         "credentials": st.none()
         | st.fixed_dictionaries({"account_key": texts})
         | st.fixed_dictionaries({"client_id": texts, "client_secret": texts})}
    ),
    Compute: st.fixed_dictionaries(
        {**common, "size": filled, "min_instances": st.integers(0, 5),
         "max_instances": st.integers(5, 1000),
         "tier": st.sampled_from(["dedicated", "low_priority"]),
         "idle_time_before_scale_down": st.integers(0, 604800)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("cls", ENTITIES)
@given(data=st.data())
def test_every_entity_survives_the_way_there_and_back(
    cls: type[Entity], data: st.DataObject
) -> None:
    fields = data.draw(ENTITIES[cls])
    entity = cls(**{key: value for key, value in fields.items() if value is not None})
    body = json.loads(json.dumps(to_rest(entity, show_secrets=True)))
    own = {key: fields[key] for key in ("version", "endpoint_name") if key in fields}
    assert from_rest(cls, fields["name"], body, **own) == entity

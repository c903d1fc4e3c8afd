"""Azure's safe rollout as its users type it: the installed command, real Ray Serve, real https."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.product.conftest import BIN, Product, workspace
from tests.services import require_program

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROLLOUT = Path(__file__).resolve().parents[2] / "examples" / "ci" / "rollout.sh"

SCORE = """
import json, os, six

def init():
    global version
    version = os.environ.get("VERSION", "1")
    if "BREAK" in os.environ:
        raise RuntimeError("no weights")

def run(data):
    print("asked for", data, "with six", six.__version__)
    return {"sum": sum(json.loads(data)), "version": version}
"""

ENDPOINT = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: my-endpoint
auth_mode: key
"""

DEPLOYMENT = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: my-endpoint
code_configuration:
  code: src
  scoring_script: score.py
environment:
  image: mcr.microsoft.com/azureml/minimal-ubuntu22.04-py311-cpu-inference:latest
  conda_file: {dependencies: [python=3.11, {pip: [six]}]}
instance_type: Standard_DS3_v2
instance_count: 1
"""

VERSION_2 = "environment_variables: {VERSION: '2'}\n"
PINNED = DEPLOYMENT.replace("[six]", "[six==1.16.0]")


@pytest.fixture(scope="module")
def online() -> Iterator[Product]:
    with workspace() as product:
        (product.folder / "src").mkdir()
        (product.folder / "src" / "score.py").write_text(SCORE)
        (product.folder / "endpoint.yml").write_text(ENDPOINT)
        (product.folder / "blue.yml").write_text(DEPLOYMENT)
        green = PINNED.replace("name: blue", "name: green") + VERSION_2
        (product.folder / "green.yml").write_text(green)
        (product.folder / "sample.json").write_text("[1, 2, 3]")
        yield product


class Caller:
    """A client of the endpoint that knows nothing but its scoring URI, a key and the CA."""

    def __init__(self, product: Product) -> None:
        show = ("online-endpoint", "show", "-n", "my-endpoint", "--query", "scoring_uri")
        keys = ("online-endpoint", "get-credentials", "-n", "my-endpoint", "--query", "primaryKey")
        self._uri = product.ok(*show, "-o", "tsv")
        self._key = product.ok(*keys, "-o", "tsv")
        self._ca = str(product.home / "tls" / "ca.pem")

    def versions(self, calls: int, **headers: str) -> Counter[tuple[str, str]]:
        """Call so often; return how many each deployment and version has answered."""
        found: Counter[tuple[str, str]] = Counter()
        with httpx.Client(
            verify=ssl.create_default_context(cafile=self._ca), trust_env=False, timeout=30,
            headers={"authorization": f"Bearer {self._key}", **headers},
        ) as http:
            for _ in range(calls):
                answer = http.post(self._uri, json=[1, 2, 3])
                assert answer.status_code == 200, answer.text
                name = answer.headers["azureml-model-deployment"]
                found[name, answer.json()["version"]] += 1
        return found


def test_version_2_is_put_beside_version_1_compared_and_given_the_requests(
    online: Product
) -> None:
    endpoint = ("--name", "my-endpoint")
    of_endpoint = ("--endpoint-name", "my-endpoint")
    sample = ("--request-file", "sample.json")
    invoke = ("online-endpoint", "invoke", *endpoint, *sample)
    update = ("online-endpoint", "update", *endpoint)

    online.ok("online-endpoint", "create", "--name", "my-endpoint", "-f", "endpoint.yml")
    online.ok("online-deployment", "create", "--name", "blue", *of_endpoint, "-f", "blue.yml",
              "--all-traffic")
    assert json.loads(online.ok(*invoke)) == {"sum": 6, "version": "1"}
    online.ok("online-deployment", "update", "--name", "blue", *of_endpoint, "--set",
              "instance_count=2")

    online.ok("online-deployment", "create", "--name", "green", *of_endpoint, "-f", "green.yml")
    caller = Caller(online)
    assert caller.versions(20) == {("blue", "1"): 20}
    assert caller.versions(1, **{"azureml-model-deployment": "green"}) == {("green", "2"): 1}
    assert json.loads(online.ok(*invoke, "--deployment-name", "green"))["version"] == "2"

    online.ok(*update, "--mirror-traffic", "green=50")
    assert caller.versions(40) == {("blue", "1"): 40}
    report = ("online-endpoint", "shadow-report", *endpoint, "--live", "blue", "--shadow", "green")
    online.wait_until(lambda: int(online.ok(*report, "--query", "pairs")) >= 5)
    assert "differ in value" in online.ok(*report)
    online.ok(*update, "--mirror-traffic", "green=0")

    online.ok(*update, "--traffic", "blue=90 green=10")
    answered = caller.versions(500)
    assert answered.total() == 500
    assert 25 <= answered["green", "2"] <= 75
    refused = online.inferay(*update, "--traffic", "blue=90 green=20")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)

    failed = online.inferay("online-deployment", "update", "--name", "blue", *of_endpoint, "--set",
                            "environment_variables.BREAK=1")
    assert failed.code == 1
    assert 'File "score.py", line 8, in init' in failed.err
    assert failed.err.splitlines()[-1].endswith("RuntimeError: no weights")
    assert caller.versions(20)["blue", "1"] > 0

    online.ok(*update, "--traffic", "blue=0 green=100")
    online.ok("online-deployment", "delete", "--name", "blue", *of_endpoint, "--yes")
    assert caller.versions(20) == {("green", "2"): 20}
    said = online.ok("online-deployment", "get-logs", "--name", "green", *of_endpoint, "-l", "200")
    assert "asked for [1,2,3] with six 1.16.0" in said   # its own, beside blue with the cluster's


def test_a_pipeline_takes_a_bad_version_back_and_a_good_one_over(online: Product) -> None:
    require_program("curl")
    show = ("online-endpoint", "show", "-n", "my-endpoint", "--query", "keys(traffic)")
    assert online.ok(*show, "-o", "tsv") == "green"
    for name, change in (("red", "{BREAK: '1'}"), ("black", "{VERSION: '3'}")):
        text = DEPLOYMENT.replace("name: blue", f"name: {name}")
        (online.folder / f"{name}.yml").write_text(f"{text}environment_variables: {change}\n")
    path = {"PATH": f"{BIN}:{online.environment['PATH']}", "STEPS": "10 100", "REQUESTS": "20"}

    bad = online.run(str(ROLLOUT), "my-endpoint", "green", "red.yml", "sample.json", env=path)
    assert bad.code == 1
    assert "RuntimeError: no weights" in bad.err
    assert "'red' was deleted" in bad.out
    assert Caller(online).versions(10) == {("green", "2"): 10}

    good = online.run(str(ROLLOUT), "my-endpoint", "green", "black.yml", "sample.json", env=path)
    assert good.code == 0, good.err
    assert "100 %: 'black' answered 20 of 20 requests, none failed" in good.out
    assert Caller(online).versions(10) == {("black", "3"): 10}

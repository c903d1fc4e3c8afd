"""Several requests in one call of `run()`, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inferay.serve.server.calls import Batching
from inferay.serve.server.limits import Limits
from tests.serve.server.conftest import Serve

LIMITS = Limits(concurrent_requests_max=8, queue_wait_s=30, request_timeout_s=30)

#: The first call holds until the file that it names is there: meanwhile the others gather.
GATHERS = """
    import os, time

    sizes = []

    def run(data):
        sizes.append(len(data))
        while data[0].startswith("/") and not os.path.exists(data[0]):
            time.sleep(0.005)
        if "raise" in data:
            raise ValueError("no")
        if "short" in data:
            return data[1:]
        return [f"{len(data)} {one}" for one in data]
"""


def test_everyone_gets_the_answer_to_their_own_request(serve: Serve, tmp_path: Path) -> None:
    client = serve(GATHERS, LIMITS, batching=Batching(size_max=8))
    assert client.post("/score", content="alone").json() == "1 alone"
    go = tmp_path / "go"
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(client.post, "/score", content=str(go))
        rest = [threads.submit(client.post, "/score", content=f"{n}") for n in range(4)]
        go.touch()
        found = [one.result() for one in [first, *rest]]
    assert {one.status_code for one in found} == {200}
    assert [one.json().split()[1] for one in found] == [str(go), "0", "1", "2", "3"]


def test_a_bad_request_is_refused_alone(serve: Serve) -> None:
    client = serve(GATHERS, LIMITS, batching=Batching(size_max=8))
    assert client.post("/score", content=b"\xff").status_code == 400
    assert client.post("/score", content="x").json() == "1 x"


def test_a_call_that_fails_or_returns_too_little_is_an_error_for_its_callers(
    serve: Serve,
) -> None:
    client = serve(GATHERS, LIMITS, batching=Batching(size_max=8))
    for content in ("raise", "short"):
        found = client.post("/score", content=content)
        assert found.status_code == 500
        assert found.headers["x-ms-run-function-failed"] == "True"
    assert client.post("/score", content="x").json() == "1 x"


def test_an_async_run_of_a_batch_that_cancels_itself_is_a_failure_of_its_own(
    serve: Serve,
) -> None:
    client = serve(
        "import asyncio\n\nasync def run(data):\n    raise asyncio.CancelledError('mine')\n",
        LIMITS, batching=Batching(size_max=4),
    )
    found = client.post("/score", content="x")
    assert found.status_code == 500
    assert found.headers["x-ms-run-function-failed"] == "True"


def test_an_async_run_is_given_batches_too(serve: Serve) -> None:
    client = serve(
        "async def run(data):\n    return [len(one) for one in data]\n", LIMITS,
        batching=Batching(size_max=4),
    )
    assert client.post("/score", content="four").json() == 4

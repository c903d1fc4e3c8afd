"""Jobs whose workers run in environments of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.scoring.environments import EnvironmentSpec

SCRIPT = """
    import six

    def init():
        pass

    def run(mini_batch):
        return [six.__version__ for _ in mini_batch]
"""


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERAY_ENVIRONMENTS", str(tmp_path_factory.mktemp("environments")))
        yield


@pytest.mark.parametrize("pins", [("1.15.0", "1.16.0")])
def test_jobs_with_pins_that_conflict_each_run_with_their_own(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], pins: tuple[str, ...]
) -> None:
    for pin in pins:
        spec = make_spec(SCRIPT, name=f"job{pin}", workers=2)
        result = run_job(replace(spec, environment=EnvironmentSpec((f"six=={pin}",))))
        assert result.status == "Completed"
        rows = Path(spec.output, "predictions.csv").read_text().split()
        assert rows == [pin] * 10


def test_an_impossible_pin_fails_the_job_at_once_in_the_resolver_s_words(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result]
) -> None:
    spec = make_spec(SCRIPT, workers=1)
    result = run_job(replace(spec, environment=EnvironmentSpec(("six==99",))))
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "EnvironmentFailed"
    assert "six==99" in result.error["details"][0]["message"]
    assert "score.py" not in result.error["message"]

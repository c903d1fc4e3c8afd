"""A Triton model repository scores tables, row by row as it answers online."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy
import pandas as pd
import pytest

from inferay.engine.batch import Result
from inferay.engine.batch.driver import Driver
from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec
from inferay.engine.batch.split.declared import resolve_split
from inferay.engine.scoring.triton.repository import Repository
from inferay.engine.scoring.triton_batch import TritonBatch
from inferay.engine.storage import Access
from inferay.errors import InvalidInput
from tests import triton_models
from tests.engine.batch.conftest import InlinePool


def score(repository: Path, place: Path, **settings: Any) -> Result:
    model = TritonBatch(repository)
    model.init()
    chosen = JobSettings(**{"mini_batch_size": 2, "max_retries": 0, **settings})
    spec = JobSpec(
        name="job", input=str(place / "input"), input_type="uri_folder",
        output=str(place / "output"), work=str(place / "work"), logs=str(place / "logs"), code="",
        scoring_script="", model=str(repository), flavor="triton",
        settings=resolve_split(chosen, "auto", None), workers=WorkerSpec(count=2),
    )

    def pool(settings_of: Any, events: Any) -> InlinePool:
        return InlinePool(
            settings_of, events, lambda batch, _: model.run(batch), model.column_types
        )

    result = Driver(spec, pool, None, lambda: False, Access()).run()
    model.shutdown()
    return result


def rows_of(place: Path) -> list[list[str]]:
    with open(place / "output" / "predictions.csv", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "input"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("config", [
    None, 'max_batch_size: 0 input [{name: "x" data_type: TYPE_FP32 dims: [-1, 3]}]',
])
def test_a_row_is_one_vector_by_its_name_or_by_its_columns(
    tmp_path: Path, inputs: Path, config: str | None
) -> None:
    repository = tmp_path / "repository"
    triton_models.linear(repository / "linear", config)
    x = numpy.random.default_rng(5).normal(size=(21, 3)).astype(numpy.float32)
    if config is None:
        pd.DataFrame(x, columns=["a", "b", "c"]).to_csv(inputs / "a.csv", index=False)
        pd.DataFrame({"x": list(x)}).to_parquet(inputs / "b.parquet")
        lines = [json.dumps({"x": [float(one) for one in row], "more": 1}) for row in x]
        (inputs / "c.jsonl").write_text("\n".join(lines))
        pd.DataFrame({"x": [json.dumps(row.tolist()) for row in x]}).to_csv(
            inputs / "d.csv", index=False
        )
        files = ["a.csv", "b.parquet", "c.jsonl", "d.csv"]
    else:   # each row is a request of its own: of one vector here
        pd.DataFrame({"x": [json.dumps([row.tolist()]) for row in x]}).to_csv(
            inputs / "a.csv", index=False
        )
        files = ["a.csv"]
    assert score(repository, tmp_path).status == "Completed"
    found = rows_of(tmp_path)
    assert [(row, file) for row, _, file in found] == [
        (str(row), file) for file in files for row in range(21)
    ]
    model = Repository(repository).only()
    online = [
        model.infer({"x": row[None]})["y"].reshape(-1).tolist() for row in x
    ]
    assert [numpy.ravel(json.loads(one)).tolist() for _, one, _ in found] == online * len(files)


def test_several_inputs_are_columns_and_several_outputs_an_object(
    tmp_path: Path, inputs: Path
) -> None:
    repository = tmp_path / "repository"
    triton_models.double(repository / "double")
    lines = [json.dumps({"VALUES": [at, at], "NAMES": f"n{at}"}) for at in range(19)]
    (inputs / "a.jsonl").write_text("\n".join(lines))
    assert score(repository, tmp_path).status == "Completed"
    assert [json.loads(one) for _, one, _ in rows_of(tmp_path)] == [
        {"DOUBLED": [2.0 * at, 2.0 * at], "UPPER": f"N{at}"} for at in range(19)
    ]


def test_what_does_not_fit_is_a_failed_row_and_a_file_without_a_column_fails_whole(
    tmp_path: Path, inputs: Path
) -> None:
    repository = tmp_path / "repository"
    triton_models.double(repository / "double")
    (inputs / "a.jsonl").write_text("\n".join(
        json.dumps({"VALUES": values, "NAMES": "n"}) for values in ([1, 2], [1], [-1, 2], [3, 4])
    ))
    (inputs / "b.jsonl").write_text('{"VALUES": [1, 2]}\n{"VALUES": [3, 4]}\n')
    result = score(repository, tmp_path)
    assert (result.status, [row for row, _, _ in rows_of(tmp_path)]) == ("Completed", ["0", "3"])
    lines = (tmp_path / "output" / "errors.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["kind"] for one in found[:2]] == ["SignatureMismatch", "Exception"]
    assert {one["kind"] for one in found[2:]} == {"ColumnsMissing"}
    assert "unexpected shape for input 'VALUES'" in found[0]["exception"]
    assert "a value is negative" in found[1]["exception"]
    assert "no column 'NAMES'; the model double expects VALUES FP32" in found[2]["exception"]


def test_which_model_is_meant_is_said_by_a_variable(
    tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        triton_models.linear(tmp_path / "repository" / name)
    with pytest.raises(InvalidInput, match="INFERAY_TRITON_MODEL"):
        TritonBatch(tmp_path / "repository").init()
    monkeypatch.setenv("INFERAY_TRITON_MODEL", "second")
    (inputs / "a.csv").write_text("a,b,c\n1,2,3\n")
    assert score(tmp_path / "repository", tmp_path).status == "Completed"
    assert rows_of(tmp_path) == [["0", "[17.0, 23.0]", "a.csv"]]

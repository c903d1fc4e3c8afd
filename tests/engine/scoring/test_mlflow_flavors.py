"""One contract: the same model, or script, gives equal answers row by row, online and in batch."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import PIL.Image
import pytest

from inferay.engine.batch import Result
from inferay.engine.batch.driver import Driver
from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec
from inferay.engine.batch.split.declared import resolve_split
from inferay.engine.scoring.mlflow_batch import MlflowBatch
from inferay.engine.storage import Access
from inferay.errors import UserCodeError
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.limits import Limits
from inferay.serve.server.serving import Serving
from inferay.serve.server.spec import ServerSpec
from tests import mlflow_models
from tests.engine.batch.conftest import InlinePool
from tests.mlflow_models import FLAVORS, Trained

#: What MLflow, and the libraries as it calls them, warn of.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:mlflow", "ignore::FutureWarning:mlflow",
    "ignore::DeprecationWarning:mlflow", "ignore:.*Any type hint is inferred as AnyType",
)


def score_batch(trained: Trained, place: Path, inputs: Path, **settings: Any) -> Result:
    model = MlflowBatch(trained.folder)
    model.init()
    chosen = JobSettings(**{"mini_batch_size": 2, "max_retries": 0, **settings})
    spec = JobSpec(
        name="job", input=str(inputs), input_type="uri_folder", output=str(place / "output"),
        work=str(place / "work"), logs=str(place / "logs"), code="", scoring_script="",
        model=str(trained.folder), flavor="mlflow", settings=resolve_split(chosen, "auto", None),
        workers=WorkerSpec(count=2),
    )

    def pool(settings_of: Any, events: Any) -> InlinePool:
        return InlinePool(
            settings_of, events, lambda batch, _: model.run(batch), model.column_types
        )

    return Driver(spec, pool, None, lambda: False, Access()).run()


def answers_of(place: Path) -> list[list[str]]:
    with open(place / "output" / "predictions.csv", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], httpx.Client]]:
    """Serve a model, or the script of a code folder, over HTTP."""
    running: list[tuple[Serving, httpx.Client]] = []
    for name in ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR"):
        monkeypatch.setenv(name, "")   # put back as it was

    def start(folder: Path, script: str = "") -> httpx.Client:
        hosted = Hosted(ServerSpec(
            name="svc", version="1", code_dir=str(folder) if script else "",
            scoring_script=script, model="" if script else str(folder),
            flavor="" if script else "mlflow", limits=Limits(request_timeout_s=30),
        ))
        serving = Serving(hosted.app, "127.0.0.1", 0)
        serving.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", timeout=30)
        running.append((serving, client))
        return client

    yield start
    for serving, client in running:
        client.close()
        serving.stop(timeout_s=10)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return mlflow_models.sklearn(tmp_path_factory.mktemp("models") / "clf")


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return mlflow_models.typed(tmp_path_factory.mktemp("models") / "typed")


def split_of(table: pd.DataFrame) -> dict[str, Any]:
    return {"input_data": json.loads(table.to_json(orient="split", double_precision=15))}


def plain(answer: list[Any]) -> list[Any]:
    """Return a list of predictions; of a table with one column, its values."""
    return [next(iter(one.values())) if isinstance(one, dict) else one for one in answer]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_model_answers_as_its_library_online_and_in_batch(
    flavor: str, tmp_path: Path, serve: Callable[[Path], httpx.Client]
) -> None:
    (tmp_path / "models").mkdir()
    trained = FLAVORS[flavor](tmp_path / "models" / flavor)
    inputs = tmp_path / "input" / "nested"
    inputs.mkdir(parents=True)
    half = len(trained.table) // 2
    trained.table[:half].to_csv(inputs / "a.csv", index=False)
    trained.table[half:].to_parquet(inputs / "b.pqt", index=False)
    assert score_batch(trained, tmp_path, tmp_path / "input").status == "Completed"
    batch = answers_of(tmp_path)
    files = ["nested/a.csv"] * half + ["nested/b.pqt"] * half
    assert [[row, file] for row, _, file in batch] == [
        [str(at % half), file] for at, file in enumerate(files)
    ]
    online = serve(trained.folder).post("/score", json=split_of(trained.table))
    assert online.status_code == 200, online.text
    assert plain(online.json()) == [float(value) for _, value, _ in batch]
    assert plain(online.json()) == pytest.approx(trained.expected)


SCRIPT = """
import json


def init():
    pass


def run(data):
    if isinstance(data, str):
        return [sum(row) for row in json.loads(data)["rows"]]
    found = []
    for path in data:
        with open(path) as file:
            found += [sum(row) for row in json.load(file)["rows"]]
    return found
"""


def test_a_script_answers_alike_online_and_in_batch(
    tmp_path: Path, serve: Callable[..., httpx.Client], clean_modules: None
) -> None:
    for folder in ("code", "input"):
        (tmp_path / folder).mkdir()
    (tmp_path / "code" / "score_both.py").write_text(SCRIPT)
    bodies = [json.dumps({"rows": [[at, 0.1], [at, 0.7]]}) for at in range(5)]
    for at, body in enumerate(bodies):
        (tmp_path / "input" / f"{at}.json").write_text(body)
    client = serve(tmp_path / "code", "score_both.py")
    online = [value for body in bodies for value in client.post("/score", content=body).json()]
    spec = JobSpec(
        name="job", input=str(tmp_path / "input"), input_type="uri_folder",
        output=str(tmp_path / "output"), work=str(tmp_path / "work"), logs=str(tmp_path / "logs"),
        code=str(tmp_path / "code"), scoring_script="score_both.py",
        settings=JobSettings(mini_batch_size=2),
    )
    run = sys.modules["score_both"].run

    def pool(settings_of: Any, events: Any) -> InlinePool:
        return InlinePool(settings_of, events, lambda paths, _: run(paths))

    assert Driver(spec, pool, None, lambda: False, Access()).run().status == "Completed"
    lines = (tmp_path / "output" / "predictions.csv").read_text().splitlines()
    assert [float(line) for line in lines] == online


def test_every_form_of_a_request_gives_the_same_answer(
    classifier: Trained, serve: Callable[..., httpx.Client]
) -> None:
    rows = classifier.table[:5]
    records, split = rows.to_dict("records"), rows.to_dict("split")
    client = serve(classifier.folder)
    for body in (
        {"input_data": split}, {"input_data": records}, {"input_data": rows.to_numpy().tolist()},
        {"input_data": rows.to_dict("list")}, {"input_data": {"data": split["data"]}},
        {"input_data": rows[["d", "b", "a", "c"]].to_dict("split")},
        {"inputs": rows.to_dict("list")}, {"inputs": records}, {"instances": records},
        {"instances": split["data"]}, {"dataframe_split": split}, {"dataframe_records": records},
    ):
        answer = client.post("/score", json=body)
        assert (answer.status_code, answer.json()) == (200, classifier.expected[:5]), body
    answer = client.post(
        "/score", content=rows.to_csv(index=False), headers={"content-type": "text/csv"}
    )
    assert answer.json() == classifier.expected[:5]


@pytest.mark.parametrize(("body", "said"), [
    ({"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}, "missing input 'd'"),
    ([{"a": 1, "b": 2, "c": 3, "d": 4, "dd": 5}], "unknown input 'dd'; did you mean 'd'"),
    ([{"a": 1, "b": 2, "c": 3, "d": "much"}], "input 'd', row 0: \"much\" is no double"),
    ([{"a": 1, "b": 2, "c": 3, "d": True}], "input 'd', row 0: true is no double"),
    ([{"a": 1, "b": 2, "c": 3, "d": 10**400}], "a number is too large"),
    ([{"a": 1, "b": 2, "c": 3, "d": [4]}], "input 'd', row 0: [4] is no double"),
    ({"columns": ["a", "b", "c", "d"], "data": []}, "it has no rows"),
    ({"columns": [["a"], "b", "c", "d"], "data": [[1, 2, 3, 4]]}, "unknown input"),
    ({"columns": ["a", "b", "c", "d"], "index": [{}], "data": [[1, 2, 3, 4]]}, "index: expected"),
    ({"columns": ["a", "b", "c", "a"], "data": [[1, 2, 3, 4]]}, "input 'a' is given twice"),
    ("abc", "rows of 1 values without columns"),
    ([[1, 2]], "rows of 2 values without columns; expected 4"),
    ({"columns": ["a", "b", "c", "d"], "data": [[1, 2]]}, "row 0 has 2 values for 4 columns"),
    ({"a": [1], "b": [2], "c": [3], "d": [4, 5]}, "expected lists of equal length"),
])
def test_a_request_that_does_not_fit_the_signature_is_told_what_does(
    classifier: Trained, serve: Callable[..., httpx.Client], body: Any, said: str
) -> None:
    answer = serve(classifier.folder).post("/score", json={"input_data": body})
    assert answer.status_code == 400
    message = answer.json()["message"]
    assert said in message
    assert "the model takes 'a': double, 'b': double, 'c': double, 'd': double" in message
    assert answer.headers["x-ms-run-function-failed"] == "False"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"input_data": [], "inputs": []}'])
def test_a_body_that_is_no_request_is_refused(
    classifier: Trained, serve: Callable[..., httpx.Client], content: bytes
) -> None:
    answer = serve(classifier.folder).post("/score", content=content)
    assert answer.status_code == 400
    assert "the model takes 'a': double" in answer.json()["message"]


def test_types_are_those_of_the_signature_online_and_in_batch(
    typed: Trained, serve: Callable[..., httpx.Client], tmp_path: Path
) -> None:
    client = serve(typed.folder)
    assert client.post("/score", json=split_of(typed.table)).json() == typed.expected
    for name, value, said in (
        ("id", 7, "7 is no string"), ("n", 1.5, "1.5 is no integer"),
        ("n", 1 << 40, "is no integer"), ("n", None, "null is no integer"),
        ("flag", 1, "1 is no boolean"),
    ):
        row = {"id": "x", "n": 1, "x": 1, name: value}
        answer = client.post("/score", json={"input_data": [row]})
        assert (answer.status_code, said in answer.text) == (400, True), answer.text
    inputs = tmp_path / "input"
    inputs.mkdir()
    typed.table.to_csv(inputs / "a.csv", index=False)   # where 007 is no number
    typed.table.to_json(inputs / "b.jsonl", orient="records", lines=True)
    typed.table.to_parquet(inputs / "c.parquet", index=False)
    assert score_batch(typed, tmp_path / "csv", inputs).counts.items_ok == 9
    found = answers_of(tmp_path / "csv")
    assert [json.loads(value) for _, value, _ in found] == typed.expected * 3
    for name in ("rows.jsonl", "rows.parquet"):
        place = tmp_path / name
        assert score_batch(typed, place, inputs, output_file_name=name).status == "Completed"
        file = place / "output" / name
        is_json = name == "rows.jsonl"
        frame = pd.read_json(file, lines=True) if is_json else pd.read_parquet(file)
        assert list(frame.columns) == ["row", "prediction", "file"]
        assert frame["prediction"].tolist() == typed.expected * 3
        assert frame["row"].tolist() == [0, 1, 2] * 3


def test_the_rows_that_do_not_fit_are_named_and_the_others_are_scored(
    typed: Trained, tmp_path: Path
) -> None:
    inputs = tmp_path / "input"
    inputs.mkdir()
    (inputs / "a.csv").write_text("id,n,x\nu,1,1\nv,many,1\nw,3,1\n")
    (inputs / "b.csv").write_text("id,N,x\n" + "z,1,1\n" * 500)
    result = score_batch(typed, tmp_path, inputs, mini_batch_size=1, max_retries=3)
    assert (result.counts.items_ok, result.counts.items_failed) == (2, 501)
    errors = [
        json.loads(line) for line in (tmp_path / "output" / "errors.jsonl").read_text().splitlines()
    ]
    assert [(one["item"], one["rows"], one["kind"]) for one in errors] == [
        ("a.csv", [1, 2], "SignatureMismatch"), ("b.csv", [0, 500], "ColumnsMissing"),
    ]
    assert "column n" in errors[0]["exception"]
    assert "missing column 'n'; the model takes" in errors[1]["exception"]
    assert errors[1]["attempts"] == 1   # another one would end the same way
    assert "the model takes 'id': string, 'n': integer" in errors[1]["exception"]
    assert [row[0] for row in answers_of(tmp_path)] == ["0", "2"]


def test_the_answers_are_the_same_bytes_for_any_slices(
    classifier: Trained, tmp_path: Path
) -> None:
    inputs = tmp_path / "input"
    inputs.mkdir()
    classifier.table.to_csv(inputs / "a.csv", index=False)
    found = set()
    for size in (1, "200 bytes", "7 rows", "1000 rows"):
        place = tmp_path / str(size).replace(" ", "-")
        score_batch(classifier, place, inputs, mini_batch_size=size)
        found.add((place / "output" / "predictions.csv").read_bytes())
    text, = found
    assert text == b"".join(
        f"{at},{value},a.csv\n".encode() for at, value in enumerate(classifier.expected)
    )


def test_images_become_the_tensors_of_the_signature(tmp_path: Path) -> None:
    trained = mlflow_models.brightness(tmp_path / "model")
    (tmp_path / "input").mkdir()
    for name, colour in (("a.png", (1, 2, 3)), ("b.jpg", (9, 9, 9)), ("c.bmp", (4, 5, 6))):
        PIL.Image.new("RGB", (2, 2), colour).save(tmp_path / "input" / name)
    PIL.Image.new("RGB", (3, 2)).save(tmp_path / "input" / "d.png")   # of another size
    (tmp_path / "input" / "e.png").write_bytes(b"no image")
    result = score_batch(trained, tmp_path, tmp_path / "input")
    assert (result.counts.items_ok, result.counts.items_failed) == (3, 2)
    assert answers_of(tmp_path) == [
        ["0", "[1.0, 2.0, 3.0]", "a.png"], ["0", "[9.0, 9.0, 9.0]", "b.jpg"],
        ["0", "[4.0, 5.0, 6.0]", "c.bmp"],
    ]
    errors = (tmp_path / "output" / "errors.jsonl").read_text()
    assert "tensor of float32 (-1, 2, 2, 3)" in errors
    assert "'e.png' is no image that can be read" in errors


def test_params_reach_the_model_and_are_checked(
    tmp_path: Path, serve: Callable[..., httpx.Client]
) -> None:
    trained = FLAVORS["pyfunc"](tmp_path / "sum")
    client = serve(trained.folder)
    rows = {"input_data": [{"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}]}
    assert client.post("/score", json=rows).json() == [10.0]
    assert client.post("/score", json={**rows, "params": {"factor": 2.0}}).json() == [20.0]
    for params, said in (
        ({"factr": 2.0}, "unknown parameter 'factr'; did you mean 'factor'"),
        ({"factor": "much"}, "factor"), ([1], "params: expected an object"),
    ):
        answer = client.post("/score", json={**rows, "params": params})
        assert (answer.status_code, said in answer.text) == (400, True), answer.text
    described = client.get("/swagger.json").json()["definitions"]["ServiceInput"]["properties"]
    assert described["params"]["properties"]["factor"]["default"] == 1.0
    columns = described["input_data"]["properties"]["columns"]
    assert columns["items"]["enum"] == ["a", "b", "c", "d"]


def test_a_model_without_a_signature_takes_what_its_library_takes(
    tmp_path: Path, serve: Callable[..., httpx.Client]
) -> None:
    trained = mlflow_models.sklearn(tmp_path / "clf", is_signed=False)
    client = serve(trained.folder)
    assert client.post("/score", json=split_of(trained.table)).json() == trained.expected
    assert client.get("/swagger.json?version=3").status_code == 200


def test_a_model_that_cannot_be_loaded_says_what_it_needs(
    classifier: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "clf"
    shutil.copytree(classifier.folder, folder)
    described = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(
        described.replace("loader_module: mlflow.sklearn", "loader_module: faraway.flavour")
    )
    with pytest.raises(UserCodeError, match="needs the package 'faraway'") as no:
        MlflowBatch(folder).init()
    assert no.value.code == "PackageMissing"
    (folder / "MLmodel").write_text(described)
    pickled = next(path for path in folder.iterdir() if path.name.startswith("model."))
    pickled.write_bytes(pickled.read_bytes()[:100])
    with pytest.raises(UserCodeError, match="the MLflow model clf cannot be loaded") as no:
        MlflowBatch(folder).init()
    assert no.value.code == "ModelLoadFailed"
    assert no.value.details


def test_a_script_of_the_user_s_own_loads_an_mlflow_model(
    classifier: Trained, tmp_path: Path, clean_modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR"):
        monkeypatch.setenv(name, "")   # put back as it was
    (tmp_path / "score_own.py").write_text(
        "import json, os, mlflow\n"
        "def init():\n"
        "    global model\n"
        "    model = mlflow.pyfunc.load_model(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'clf'))"
        "\n\ndef run(data):\n"
        "    import pandas\n"
        "    return model.predict(pandas.DataFrame(json.loads(data)))\n"
    )
    hosted = Hosted(ServerSpec(
        name="svc", version="1", code_dir=str(tmp_path), scoring_script="score_own.py",
        model=str(classifier.folder), model_dir=str(classifier.folder.parent),
    ))
    found = sys.modules["score_own"].run(classifier.table.to_json(orient="records"))
    assert found.tolist() == classifier.expected
    hosted.shutdown()


def test_tensors_are_taken_by_name_and_in_their_shape(
    tmp_path: Path, serve: Callable[..., httpx.Client]
) -> None:
    client = serve(mlflow_models.brightness(tmp_path / "model").folder)
    image = [[[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [1, 2, 3]]]
    for form in ("input_data", "inputs", "instances"):
        answer = client.post("/score", json={form: [image, image]})
        assert (answer.status_code, answer.json()) == (200, [[1.0, 2.0, 3.0]] * 2), answer.text
    for wrong, said in (
        ([image[:1]], "an array of shape (1, 1, 2, 3) for one of (-1, 2, 2, 3)"),
        (image, "an array of shape (2, 2, 3)"), ([[[["x"]]]], "are no float32"),
        ([[1], [2, 3]], "inhomogeneous"),
    ):
        answer = client.post("/score", json={"input_data": wrong})
        assert (answer.status_code, said in answer.text) == (400, True), answer.text


def test_a_file_without_a_column_fails_no_other_file_of_its_mini_batch(
    typed: Trained, tmp_path: Path
) -> None:
    inputs = tmp_path / "input"
    inputs.mkdir()
    for name in ("a", "c"):
        typed.table.to_csv(inputs / f"{name}.csv", index=False)
    (inputs / "b.csv").write_text("id,x\n" + "z,1\n" * 500)
    result = score_batch(typed, tmp_path, inputs, mini_batch_size=10)
    assert (result.counts.items_ok, result.counts.items_failed) == (6, 500)
    assert [(row, file) for row, _, file in answers_of(tmp_path)] == [
        (str(at), name) for name in ("a.csv", "c.csv") for at in range(3)
    ]
    lines = (tmp_path / "output" / "errors.jsonl").read_text().splitlines()
    errors = [json.loads(line) for line in lines]
    assert {one["item"] for one in errors} == {"b.csv"}
    assert len(errors) < 20   # runs of rows, not a line for each

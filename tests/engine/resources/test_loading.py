"""What a wrong file, `--set` or flag says, and which of the three wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferay.engine.resources import (
    BatchDeployment,
    BatchEndpoint,
    Compute,
    Data,
    Datastore,
    Entity,
    Environment,
    Model,
    load,
)
from inferay.engine.sizes import FORMS
from inferay.errors import InvalidInput

D, E, C, S = BatchDeployment, BatchEndpoint, Compute, Datastore
BAD: list[tuple[type[Entity], str, str]] = [
    (D, "name: d\nsettings:\n  mini_batch_szie: 5\n",
     "f.yml:3: settings.mini_batch_szie: unknown field; did you mean 'mini_batch_size'?"),
    (D, "name: d\nsettings:\n  mini_batch_size: ten\n",
     f"f.yml:3: settings.mini_batch_size: expected {FORMS}, got 'ten'"),
    (D, "name: d\nmini_batch_szie: 5\n",
     "f.yml:2: mini_batch_szie: unknown field; did you mean 'mini_batch_size'?"),
    (D, "name: d\nmini_batch_size: 0\n",
     f"f.yml:2: mini_batch_size: expected {FORMS}, got 0"),
    (D, "name: d\nmini_batch_size: '10'\n",
     f"f.yml:2: mini_batch_size: expected {FORMS}, got '10'"),
    (D, "name: d\nmini_batch_size: true\n",
     f"f.yml:2: mini_batch_size: expected {FORMS}, got true"),
    (D, "name: d\nmini_batch_size:\n",
     f"f.yml:2: mini_batch_size: expected {FORMS}, got nothing"),
    (D, "name: d\nresources: {instance_cout: 2}\n",
     "f.yml:2: resources.instance_cout: unknown field; did you mean 'instance_count'?"),
    *[(D, f"name: d\nresources:\n  instance_count: {value}\n",
       f"f.yml:3: resources.instance_count: expected an integer from 1 to 1000, got {got}")
      for value, got in [("-1", "-1"), ("1.5", "1.5"), ("two", "'two'"), ("1e9", "'1e9'"),
                         ("1.0e+9", "1000000000.0"), ("0", "0"), ("[1]", "a list")]],
    (D, "name: d\nsettings: {max_concurrency_per_instance: 999}\n",
     "f.yml:2: settings.max_concurrency_per_instance: expected an integer from 1 to 100, got 999"),
    (D, "name: d\nretry_settings:\n  timeout: 0\n",
     "f.yml:3: retry_settings.timeout: expected an integer from 1 to 604800 (seconds), got 0"),
    (D, "name: d\nsettings:\n  retry_settings: {max_retires: 0}\n",
     "f.yml:3: settings.retry_settings.max_retires: unknown field; did you mean 'max_retries'?"),
    (D, "name: d\nerror_threshold: -2\n",
     "f.yml:2: error_threshold: expected an integer from -1 to 2147483647, got -2"),
    (D, "name: d\noutput_action: apend_row\n",
     "f.yml:2: output_action: expected append_row or summary_only, got 'apend_row'; "
     "did you mean 'append_row'?"),
    *[(D, f"name: d\noutput_file_name: {name}\n",
       "f.yml:2: output_file_name: expected a bare file name such as predictions.csv "
       f"(no folder, no leading '.'), got '{name}'")
      for name in ("a/b.csv", "../x.csv", "..", ".hidden", "a\\b")],
    (D, "name: d\noutput_file_name: _success.json\n",
     "f.yml:2: output_file_name: '_success.json' is a name that every job writes itself; "
     "expected another"),
    (D, "name: d\nsettings: 5\n", "f.yml:2: settings: expected fields, got 5"),
    (D, "type: pipeline\nname: d\ncomponent: file:x.yml\n",
     "f.yml:1: type: pipeline component deployments are not supported; expected type: model "
     "(deploy each scoring step as a deployment of its own)"),
    (D, "name: d\ntype: modle\n",
     "f.yml:2: type: expected model, got 'modle'; did you mean 'model'?"),
    (D, "name: d\nmini_batch_size: 5\nsettings:\n  mini_batch_size: 6\n",
     "f.yml:2: mini_batch_size: given twice, here and at settings.mini_batch_size; "
     "expected it once"),
    (D, "name: d\nmodel: azureml:m\n",
     "f.yml:2: model: expected azureml:NAME:VERSION, azureml:NAME@latest, a resource id or "
     "fields (path, type, …), got 'azureml:m'"),
    (D, "name: d\nmodel:\n  pth: x\n",
     "f.yml:3: model.pth: unknown field; did you mean 'path'? (and 1 more)"),
    (D, "name: d\nmodel:\n  type: custom_model\n", "f.yml:2: model.path: missing; it is required"),
    (D, "endpoint_name: e1-x\n", "f.yml: name: missing; it is required"),
    (D, "name: d\nenvironment: {name: e}\n",
     "f.yml:2: environment: expected at least one of image, conda_file and build"),
    (D, "name: d\nenvironment_variables:\n  A: {b: 1}\n",
     "f.yml:3: environment_variables.A: expected text, got a mapping"),
    (D, "name: d\nenvironment_variables:\n  A:\n",
     'f.yml:3: environment_variables.A: expected text, got nothing (write "" for an empty one)'),
    (D, "name: d\ncode_configuration: {code: c, scoring_script: ../x.py}\n",
     "f.yml:2: code_configuration.scoring_script: expected a path inside the folder "
     "(no '..', not absolute), got '../x.py'"),
    (D, "name: ..\n",
     "f.yml:1: name: expected 1 to 255 letters, digits, '.', '_' and '-', starting with a "
     "letter or a digit, got '..'"),
    (D, "name: 5\n",
     "f.yml:1: name: expected 1 to 255 letters, digits, '.', '_' and '-', starting with a "
     "letter or a digit, got 5"),
    *[(E, f"name: {name!r}\n",
       "f.yml:1: name: expected 3 to 32 letters, digits and '-', starting with a letter and not "
       f"ending with '-', got {name!r}")
      for name in ("My_Endpoint!", "x" * 33, "ab", "-ab", "ab-", "1abc", "", "..", "äbc")],
    (E, "name: abc\ndescription: 5\n",
     "f.yml:2: description: expected text, got 5; write it in quotes"),
    (E, "name: abc\nauth_mode: key\n", "f.yml:2: auth_mode: expected aad_token, got 'key'"),
    (E, "name: abc\ntags: x\n", "f.yml:2: tags: expected fields 'key: text', got 'x'"),
    (C, "name: c\nmin_instances: 5\n",
     "f.yml:2: min_instances: expected at most max_instances (4), got 5"),
    (C, "name: c\ntype: computeinstance\n",
     "f.yml:2: type: expected amlcompute or kubernetes, got 'computeinstance'"),
    (S, "name: s\ntype: s3\n", "f.yml: bucket: missing; a datastore of type s3 needs it"),
    (S, "name: s\npath: /x\ncredentials: canary\n",
     "f.yml:3: credentials: expected fields, got a value that is not shown"),
    (S, "name: s\npath: /x\ncredentials: {account_key: [canary]}\n",
     "f.yml:3: credentials.account_key: expected a secret as text (its value is not shown)"),
    (S, "name: s\npath: /x\ncredentials: {acount_key: canary}\n",
     "f.yml:3: credentials.acount_key: unknown field; did you mean 'account_key'?"),
    (Data, "name: d\npath: https://x/y\ntype: uri_foldr\n",
     "f.yml:3: type: expected uri_file, uri_folder or mltable, got 'uri_foldr'; "
     "did you mean 'uri_folder'?"),
    (E, "name: abc\n\"a\\e[2Jb\\n\": 1\n", "f.yml:2: a\\x1b[2Jb\\n: unknown field"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("cls", "text", "message"), BAD)
def test_a_wrong_file_says_where_what_was_expected_and_what_is_near(
    cls: type[Entity], text: str, message: str
) -> None:
    Path("f.yml").write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load(cls, "f.yml")
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["settings:\n", "settings:\nmini_batch_size: 10\n",
                                  "settings:\n  retry_settings:\nresources:\ntags:\n"])
def test_fields_with_nothing_below_them_are_as_if_left_out(text: str) -> None:
    Path("f.yml").write_text(f"name: d\n{text}")
    assert load(BatchDeployment, "f.yml").entity == BatchDeployment(name="d")


def test_the_first_problem_by_line_is_named_and_the_others_are_counted() -> None:
    Path("f.yml").write_text("mini_batch_size: 0\nname: d\nfoo: 1\noutput_action: x\n")
    with pytest.raises(InvalidInput) as caught:
        load(BatchDeployment, "f.yml")
    assert str(caught.value) == (
        f"f.yml:1: mini_batch_size: expected {FORMS}, got 0 (and 2 more)"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("settings.mini_batch_size=ten",
         "--set settings.mini_batch_size=ten: settings.mini_batch_size: "
         f"expected {FORMS}, got 'ten'"),
        ("mini_batch_size=0",
         "--set mini_batch_size=0: settings.mini_batch_size: "
         f"expected {FORMS}, got 0"),
        ("settings.mini_batch_szie=5",
         "--set settings.mini_batch_szie=5: settings.mini_batch_szie: unknown field; "
         "did you mean 'mini_batch_size'?"),
        ("name.x=5", "--set name.x=5: name is 'd', expected fields"),
        ("name", "--set name: expected --set FIELD.FIELD=VALUE"),
        ("=5", "--set : expected --set FIELD.FIELD=VALUE"),
        ("a..b=5", "--set a..b: expected --set FIELD.FIELD=VALUE"),
        ("type=pipeline",
         "--set type=pipeline: type: pipeline component deployments are not supported; "
         "expected type: model (deploy each scoring step as a deployment of its own)"),
    ],
)  # fmt: skip
def test_a_wrong_override_names_itself(override: str, message: str) -> None:
    Path("f.yml").write_text("name: d\n")
    with pytest.raises(InvalidInput) as caught:
        load(BatchDeployment, "f.yml", [override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "override", ["tags=[1", "tags={a: b", "name=!!python/name:os.system", "name='a"]
)
def test_an_override_that_is_no_yaml_names_itself(override: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--set (name|tags)=.*expected a YAML scalar"):
        load(BatchEndpoint, None, [override])


def test_a_wrong_flag_names_itself() -> None:
    Path("f.yml").write_text("name: d\n")
    with pytest.raises(InvalidInput, match=r"^--mini-batch-size: settings.mini_batch_size: exp"):
        load(BatchDeployment, "f.yml", flags={"settings.mini_batch_size": 0})


def test_an_override_wins_over_the_file_and_a_flag_over_both() -> None:
    Path("f.yml").write_text(
        "name: d\nmini_batch_size: 1\nerror_threshold: 1\nlogging_level: info\n"
    )
    overrides = ["settings.mini_batch_size=2", "error_threshold=2", "error_threshold=3"]
    flags = {"settings.mini_batch_size": 3, "settings.logging_level": None}
    entity = load(BatchDeployment, "f.yml", overrides, flags, endpoint_name="my-ep").entity
    assert entity.settings.mini_batch_size == 3
    assert entity.settings.error_threshold == 3
    assert entity.settings.logging_level == "info"
    assert entity.endpoint_name == "my-ep"


def test_overrides_are_yaml_scalars_lists_and_mappings_and_keep_typed_text() -> None:
    overrides = [
        "name=abc", "description=a: b # c", "tags.x=1.10", 'tags."a.b"=yes', "tags.q='5'",
        "properties={a: 1, b: x}", "tags.empty=",
    ]  # fmt: skip
    entity = load(BatchEndpoint, None, overrides).entity
    assert entity.description == "a: b # c"
    assert entity.tags == {"x": "1.10", "a.b": "yes", "q": "5", "empty": ""}
    assert entity.properties == {"a": "1", "b": "x"}


def test_overrides_reach_into_lists_by_index() -> None:
    Path("f.yml").write_text("name: e\nimage: i\nconda_file: {dependencies: [a, b]}\n")
    overrides = ["conda_file.dependencies[0]=c", "conda_file.dependencies.2=d"]
    entity = load(Environment, "f.yml", overrides).entity
    assert entity.conda_file == {"dependencies": ["c", "b", "d"]}
    with pytest.raises(InvalidInput, match="expected an index from 0 to 2, got '5'"):
        load(Environment, "f.yml", ["conda_file.dependencies[5]=c"])


def test_without_a_file_flags_make_the_entity() -> None:
    Path("m").mkdir()
    Path("m/model.bin").write_text("x")
    entity = load(Model, None, name="x", path="./m", type="mlflow_model").entity
    assert entity == Model(name="x", path=str(Path("m").absolute()), type="mlflow_model")
    with pytest.raises(InvalidInput, match=r"^name: missing"):
        load(Model, None, path="./m")


def test_relative_paths_start_at_the_file_and_those_of_flags_at_the_current_folder() -> None:
    for folder in (Path("sub/m"), Path("m")):
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
    Path("sub/f.yml").write_text("name: m\npath: m\n")
    assert load(Model, "sub/f.yml").entity.path == str(Path("sub/m").absolute())
    assert load(Model, "sub/f.yml", path="m").entity.path == str(Path("m").absolute())
    assert load(Model, "sub/f.yml", ["path=m"]).entity.path == str(Path("m").absolute())


def test_secrets_show_in_no_message() -> None:
    for override in (
        "credentials.account_key=[canary]",
        "credentials.account_key={canary: 1",
        "credentials.acount_key=canary",
        "credentials=canary",
    ):
        with pytest.raises(InvalidInput) as caught:
            load(Datastore, None, ["name=s", "path=/x", override])
        assert "canary" not in f"{caught.value} {caught.value.as_dict()}"


def test_fields_without_effect_give_one_line_each_and_the_schema_gives_none() -> None:
    Path("f.yml").write_text(
        "$schema: x\nname: abc\nidentity: {type: SystemAssigned}\nscoring_uri: https://x\n"
    )
    loaded = load(BatchEndpoint, "f.yml", ["location=westus"])
    assert loaded.warnings == [
        "f.yml:3: identity: has no effect here; ignored",
        "f.yml:4: scoring_uri: read-only; ignored",
        "--set location=westus: location: has no effect here; ignored",
    ]
    assert loaded.entity.scoring_uri is None
    assert loaded.entity.warnings == tuple(loaded.warnings)


def test_a_problem_in_an_included_file_names_both_files() -> None:
    Path("env.yml").write_text("name: e\nimge: x\n")
    Path("f.yml").write_text("name: d\nenvironment: file:env.yml\n")
    with pytest.raises(InvalidInput) as caught:
        load(BatchDeployment, Path("f.yml").absolute())
    message = str(caught.value).replace(f"{Path.cwd()}/", "")
    assert message == (
        "f.yml:2: environment: env.yml:2: imge: unknown field; did you mean 'image'?"
    )
    Path("f.yml").write_text("name: d\nenvironment: file:no.yml\n")
    with pytest.raises(InvalidInput, match=r"^f.yml:2: environment: .*no.yml: no such file"):
        load(BatchDeployment, "f.yml")

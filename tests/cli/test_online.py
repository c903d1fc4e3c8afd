from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferay.client.online import OnlineEndpoints
from inferay.engine.resources import OnlineEndpoint
from tests.cli.conftest import Inferay, Said
from tests.cli.online_served import ServedOnline, served_online, write_project
from tests.edges import wait_until

Shares = dict[str, int]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedOnline]:
    with served_online(tmp_path_factory.mktemp("online")) as served:
        yield served


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def serving(inferay: Inferay, served: ServedOnline, project: Path) -> Inferay:
    """Endpoint `sums`: all its requests go to `blue`; `green` is up beside it."""
    if not served.client.online_endpoints.list():
        done(inferay("online-endpoint", "create", "-f", "endpoint.yml"))
        for name in ("blue", "green"):
            done(inferay("online-deployment", "create", "-f", f"{name}.yml"))
    set_rules(served, {"blue": 100}, {})
    return inferay


def done(said: Said) -> Any:
    """Return what a command that has to succeed printed as JSON."""
    assert said.code == 0, said.err
    return json.loads(said.out) if said.out else None


def set_rules(served: ServedOnline, traffic: Shares, mirror: Shares) -> None:
    if rules(served) != (traffic, mirror):
        served.client.online_endpoints.set_traffic("sums", traffic, mirror)


def rules(served: ServedOnline) -> tuple[Shares, Shares]:
    found = served.client.online_endpoints.get("sums")
    return dict(found.traffic), dict(found.mirror_traffic)


def invoke(inferay: Inferay, body: str = "sample.json", *more: str) -> Said:
    return inferay("online-endpoint", "invoke", "-n", "sums", "--request-file", body, *more)


def test_requests_go_where_the_rule_says_and_by_name_to_any_deployment(
    serving: Inferay, served: ServedOnline
) -> None:
    assert done(invoke(serving)) == {"version": "1", "sum": 6}
    assert done(invoke(serving, "sample.json", "-d", "green"))["version"] == "2"
    done(serving("online-endpoint", "update", "-n", "sums", "--traffic", "blue=0 green=100",
                 "--mirror-traffic", "blue=5"))
    assert rules(served) == ({"green": 100}, {"blue": 5})
    assert invoke(serving, "sample.json", "--query", "version", "-o", "tsv").out == "2\n"


@pytest.mark.parametrize("words", [
    ["blue=90 green=10"], ["blue=90", "green=10"], ["blue=90,green=10"], ["blue=90% green=10%"],
    ["blue = 90 green = 10"],
])
def test_percentages_are_read_as_people_write_them(
    serving: Inferay, served: ServedOnline, words: list[str]
) -> None:
    done(serving("online-endpoint", "update", "-n", "sums", "--traffic", *words))
    assert rules(served)[0] == {"blue": 90, "green": 10}


def test_a_file_changes_no_rule_that_it_does_not_name(
    serving: Inferay, served: ServedOnline, project: Path
) -> None:
    set_rules(served, {"blue": 60, "green": 40}, {"green": 10})
    with (project / "endpoint.yml").open("a") as file:
        file.write("description: Adds numbers\n")
    shown = done(serving("online-endpoint", "update", "-f", "endpoint.yml"))
    assert shown["description"] == "Adds numbers"
    assert rules(served) == ({"blue": 60, "green": 40}, {"green": 10})
    done(serving("online-endpoint", "update", "-n", "sums", "--traffic", "blue=100"))
    assert rules(served) == ({"blue": 100}, {"green": 10})
    done(serving("online-endpoint", "update", "-n", "sums", "--set", "mirror_traffic.green=20"))
    assert rules(served) == ({"blue": 100}, {"green": 20})


def test_another_tag_does_not_undo_a_rule_that_somebody_changes_meanwhile(
    serving: Inferay, served: ServedOnline, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = OnlineEndpoints.get

    def get_before_a_change(self: OnlineEndpoints, name: str) -> OnlineEndpoint:
        found = get(self, name)
        monkeypatch.setattr(OnlineEndpoints, "get", get)
        set_rules(served, {"green": 100}, {})
        return found

    monkeypatch.setattr(OnlineEndpoints, "get", get_before_a_change)
    done(serving("online-endpoint", "update", "-n", "sums", "--set", "tags.team=b"))
    assert rules(served) == ({"green": 100}, {})


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["--traffic", "blue=90 green=20"], 2, "110"),
    (["--traffic", "blue=90"], 2, "90"),
    (["--traffic", "blue=50 blue=50"], 2, "'blue' is given twice"),
    (["--mirror-traffic", "green=5 green=6"], 2, "'green' is given twice"),
    (["--traffic", "blue"], 2, "expected NAME=PERCENT"),
    (["--traffic", "blue=-10 green=110"], 2, "expected NAME=PERCENT"),
    (["--traffic", "blue=1.5"], 2, "expected NAME=PERCENT"),
    (["--traffic", "blue=100 green"], 2, "expected NAME=PERCENT"),
    (["--traffic", ""], 2, "expected NAME=PERCENT"),
    (["--traffic", "bleu=100"], 2, "did you mean 'blue'"),
    (["--traffic", "bleu=0"], 2, "did you mean 'blue'"),
    (["--mirror-traffic", "gren=10"], 2, "did you mean 'green'"),
    (["--mirror-traffic", "gren=0"], 2, "did you mean 'green'"),
    (["--mirror-traffic", "green=101"], 2, "101"),
    (["--trafic", "blue=100"], 2, "did you mean '--traffic'"),
    (["--set", "trafic.blue=100"], 2, "did you mean 'traffic'"),
    (["--set", "auth_mode=password"], 2, "auth_mode"),
])
def test_a_wrong_rule_is_refused_in_one_line_and_changes_nothing(
    serving: Inferay, served: ServedOnline, arguments: list[str], code: int, said: str
) -> None:
    found = serving("online-endpoint", "update", "-n", "sums", *arguments)
    assert (found.code, found.out) == (code, ""), found.err
    assert said in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert rules(served) == ({"blue": 100}, {})


def test_wrong_percentages_are_refused_before_anybody_is_asked(
    inferay: Inferay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERAY_URL", "https://127.0.0.1:1")
    monkeypatch.setenv("INFERAY_TOKEN", "t")
    update = ("online-endpoint", "update", "-n", "sums", "--traffic")
    assert inferay(*update, "blue=90 green=20").code == 2
    assert inferay(*update, "blue=90 green=10").code == 6


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["online-endpint", "list"], 2, "did you mean 'online-endpoint'"),
    (["online-endpoint", "get-credential", "-n", "sums"], 2, "did you mean 'get-credentials'"),
    (["online-endpoint", "show", "-n", "sum"], 3, "did you mean 'sums'"),
    (["online-endpoint", "show", "-n", "../x"], 2, "is no name"),
    (["online-endpoint", "create"], 2, "--name or --file"),
    (["online-endpoint", "create", "-n", "x"], 2, "3 to 32"),
    (["online-endpoint", "create", "-n", "new", "--auth-mode", "keys"], 2, "key"),
    (["online-endpoint", "update", "-n", "ghost", "--traffic", "blue=100"], 3, "ghost"),
    (["online-endpoint", "update", "--traffic", "blue=100"], 2, "--name or --file"),
    (["online-endpoint", "delete", "-n", "ghost", "-y"], 3, "ghost"),
    (["online-endpoint", "delete", "-n", "sums"], 2, "--yes"),
    (["online-endpoint", "invoke", "-n", "sums"], 2, "--request-file"),
    (["online-endpoint", "invoke", "-n", "sums", "-r", "none.json"], 2, "none.json: No such file"),
    (["online-endpoint", "invoke", "-n", "sums", "-r", "src"], 2, "src: Is a directory"),
    (["online-endpoint", "invoke", "-n", "ghost", "-r", "sample.json"], 3, "ghost"),
    (["online-endpoint", "invoke", "-n", "sums", "-r", "sample.json", "-d", "gren"], 3,
     "did you mean 'green'"),
    (["online-endpoint", "get-credentials", "-n", "ghost"], 3, "ghost"),
    (["online-endpoint", "regenerate-keys", "-n", "ghost"], 3, "ghost"),
    (["online-endpoint", "regenerate-keys", "-n", "sums", "--key-type", "third"], 2, "primary"),
    (["online-endpoint", "shadow-report", "-n", "sums", "--live", "blue", "--shadow", "gren"], 3,
     "did you mean 'green'"),
    (["online-deployment", "create", "-f", "blue.yml"], 4, "online-deployment update"),
    (["online-deployment", "create", "-f", "none.yml"], 2, "none.yml"),
    (["online-deployment", "create", "-f", "blue.yml", "-e", "ghost"], 3, "ghost"),
    (["online-deployment", "update", "-n", "blue"], 2, "--endpoint-name"),
    (["online-deployment", "update", "-n", "gren", "-e", "sums", "--set", "instance_count=2"], 3,
     "did you mean 'green'"),
    (["online-deployment", "update", "-n", "blue", "-e", "sums", "--set", "instance_cont=2"], 2,
     "did you mean 'instance_count'"),
    (["online-deployment", "update", "-n", "blue", "-e", "sums", "--set",
      'properties."inferay.max_batch"=8'], 2, "did you mean 'inferay.max_batch_size'"),
    (["online-deployment", "show", "-n", "gren", "-e", "sums"], 3, "did you mean 'green'"),
    (["online-deployment", "delete", "-n", "blue", "-e", "sums", "-y"], 4, "--traffic"),
    (["online-deployment", "delete", "-n", "green", "-e", "sums"], 2, "--yes"),
    (["online-deployment", "list", "-e", "sum"], 3, "did you mean 'sums'"),
    (["online-deployment", "get-logs", "-n", "gren", "-e", "sums"], 3, "did you mean 'green'"),
    (["online-deployment", "get-logs", "-n", "blue", "-e", "sums", "-l", "0"], 2, "tail"),
    (["online-deployment", "get-logs", "-n", "blue", "-e", "sums", "-c", "nginx"], 2,
     "inference-server"),
    (["batch-endpoint", "show", "-n", "sums"], 3, "sums"),
    (["batch-endpoint", "create", "-n", "sums"], 4, "online endpoint"),
])
def test_a_mistake_is_one_line_with_its_exit_code(
    serving: Inferay, arguments: list[str], code: int, said: str
) -> None:
    found = serving(*arguments)
    assert (found.code, found.out) == (code, ""), found.err
    assert said in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_an_answer_is_printed_as_it_came_or_as_asked_for(serving: Inferay) -> None:
    assert invoke(serving).out == '{"version": "1", "sum": 6}\n'
    assert invoke(serving, "sample.json", "-o", "yaml").out == "version: '1'\nsum: 6\n"
    assert invoke(serving, "sample.json", "--query", "sum").out == "6\n"
    assert invoke(serving, "sample.json", "-o", "none").out == ""


def test_a_body_is_read_from_standard_input(
    serving: Inferay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[4, 5]")))
    assert done(invoke(serving, "-"))["sum"] == 9


def test_what_the_script_raised_is_a_model_error_and_its_traceback_is_in_the_logs(
    serving: Inferay, project: Path
) -> None:
    (project / "bad.json").write_text('"x"')
    found = invoke(serving, "bad.json")
    assert (found.code, found.out, len(found.err.splitlines())) == (1, "", 1)
    assert "deployment 'blue' of endpoint 'sums' answered 424, its model 500" in found.err
    assert "inferay online-deployment get-logs -e sums -n blue" in found.err
    logs = serving("online-deployment", "get-logs", "-e", "sums", "-n", "blue").out
    assert 'File "score.py"' in logs
    assert "TypeError: unsupported operand" in logs


def test_a_request_that_takes_too_long_is_told_as_such(serving: Inferay, project: Path) -> None:
    (project / "slow.json").write_text('"slow"')
    found = invoke(serving, "slow.json", "-d", "green")
    assert (found.code, found.out, len(found.err.splitlines())) == (6, "", 1)
    assert "deployment 'green' of endpoint 'sums' answered 408" in found.err


def test_too_many_requests_are_told_as_such(
    serving: Inferay, served: ServedOnline
) -> None:
    key = done(serving("online-endpoint", "get-credentials", "-n", "sums"))["primaryKey"]

    def ask() -> None:
        with served.edge.http() as http:
            http.post("/endpoints/sums/score", content='"wait"', timeout=60,
                      headers={"authorization": f"Bearer {key}"})

    def blue_in_flight() -> int:
        return sum(one.in_flight for one in served.edge.state().replicas
                   if one.deployment == "blue")

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for one in threads:
        one.start()
    try:
        wait_until(lambda: blue_in_flight() == 2, "both requests")
        found = invoke(serving, "sample.json")
    finally:
        (served.folder / "GO").touch()
        for one in threads:
            one.join()
        (served.folder / "GO").unlink()
    assert (found.code, found.out, len(found.err.splitlines())) == (6, "", 1)
    assert "answered 429" in found.err


def test_an_endpoint_without_traffic_says_so(serving: Inferay, served: ServedOnline) -> None:
    set_rules(served, {}, {})
    found = invoke(serving)
    assert (found.code, found.out, len(found.err.splitlines())) == (3, "", 1)
    assert "endpoint 'sums'" in found.err
    assert "traffic" in found.err


def test_a_key_that_was_replaced_is_refused_and_the_other_one_goes_on(
    serving: Inferay, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = done(serving("online-endpoint", "get-credentials", "-n", "sums"))
    assert sorted(before) == ["primaryKey", "secondaryKey"]
    done(serving("online-endpoint", "regenerate-keys", "-n", "sums", "--key-type", "primary"))
    after = done(serving("online-endpoint", "get-credentials", "-n", "sums"))
    assert after["primaryKey"] != before["primaryKey"]
    assert after["secondaryKey"] == before["secondaryKey"]
    assert invoke(serving).code == 0
    monkeypatch.setattr(OnlineEndpoints, "get_keys", lambda self, name: before)
    found = invoke(serving)
    assert (found.code, found.out, len(found.err.splitlines())) == (5, "", 1)
    assert "endpoint 'sums' answered 401" in found.err


def test_an_endpoint_of_tokens_hands_out_one_that_ends(serving: Inferay) -> None:
    done(serving("online-endpoint", "create", "-n", "tokens", "--auth-mode", "aml_token"))
    found = done(serving("online-endpoint", "get-credentials", "-n", "tokens"))
    assert sorted(found) == ["accessToken", "expiryTimeUtc", "refreshAfterTimeUtc", "tokenType"]
    assert found["expiryTimeUtc"] > found["refreshAfterTimeUtc"]
    listed = serving("online-endpoint", "list", "--query", "[].[name, auth_mode]", "-o", "tsv")
    assert listed.out == "sums\tkey\ntokens\taml_token\n"
    assert serving("online-endpoint", "delete", "-n", "tokens", "-y").code == 0
    assert serving("online-endpoint", "show", "-n", "tokens").code == 3


def test_an_update_that_fails_shows_the_users_traceback_and_the_old_one_serves_on(
    serving: Inferay
) -> None:
    found = serving("online-deployment", "update", "-n", "blue", "-e", "sums", "--set",
                    "environment_variables.BREAK=1")
    assert (found.code, found.out) == (1, "")
    assert 'File "score.py", line 9, in init' in found.err
    assert found.err.splitlines()[-1].endswith("failed: RuntimeError: no weights")
    assert done(invoke(serving))["version"] == "1"
    failed = done(serving("online-deployment", "show", "-n", "blue", "-e", "sums"))
    assert failed["provisioning_state"] == "Failed"
    done(serving("online-deployment", "update", "-f", "blue.yml"))
    shown = done(serving("online-deployment", "list", "-e", "sums", "--query",
                         "[].[name, provisioning_state]"))
    assert shown == [["blue", "Succeeded"], ["green", "Succeeded"]]


def test_logs_are_the_last_lines_of_what_was_printed(serving: Inferay) -> None:
    done(invoke(serving))
    logs = ("online-deployment", "get-logs", "-n", "blue", "-e", "sums")
    assert "version 1 is up" in serving(*logs).out
    assert "asked for [1, 2, 3]" in serving(*logs, "-l", "2").out
    assert len(serving(*logs, "-l", "2").out.splitlines()) == 2
    assert serving(*logs, "-c", "storage-initializer").out.strip() == ""


def test_copies_go_to_the_shadow_and_the_report_says_how_it_answered(
    serving: Inferay, served: ServedOnline, project: Path
) -> None:
    set_rules(served, {"blue": 100}, {"green": 100})
    (project / "one.json").write_text("[1]")
    for body in ("sample.json", "one.json", "sample.json"):
        done(invoke(serving, body))
    report = ("online-endpoint", "shadow-report", "-n", "sums", "--live", "blue", "--shadow",
              "green")
    counts = (*report, "--query", "[pairs, copies.offered, copies.answered]")
    wait_until(lambda: serving(*counts).json == [3, 3, 3], "three pairs")
    text = serving(*report).out
    assert text.startswith("live blue, shadow green: 3 pairs\nagreement    0.00% (0 of 3) [0.00%,")
    assert "             3 differ in value\nerrors       live 0.00% (0 of 3)" in text
    assert re.search(r"^  \$\.sum +4\.333 +4\.333 +0 ", text, re.M), text
    assert "copies       3 offered, 3 answered (as counted" in text
    assert text.count("value $.version: 1 → 2  request [1, 2, 3]\n") == 2
    assert serving(*report, "--worst", "0").out.count("worst pairs") == 0
    wrong = serving(*report, "--worst", "1000")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)


def test_a_deployment_is_created_with_all_traffic_and_deleted_when_it_has_none(
    serving: Inferay, served: ServedOnline
) -> None:
    done(serving("online-deployment", "create", "-f", "green.yml", "-n", "red", "--all-traffic"))
    assert rules(served)[0] == {"red": 100}
    set_rules(served, {"blue": 100}, {})
    assert serving("online-deployment", "delete", "-n", "red", "-e", "sums", "-y").code == 0
    names = serving("online-deployment", "list", "-e", "sums", "--query", "[].name", "-o", "tsv")
    assert names.out == "blue\ngreen\n"

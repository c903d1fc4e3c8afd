from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.serve.mirror.bodies import Body, Capture, body_of
from inferay.serve.mirror.pairs import (
    LEVEL_MAX,
    Answered,
    PairLog,
    folder_of,
    level_of,
    remove_pairs,
)
from inferay.serve.mirror.sample import read_sample
from tests.serve.mirror.shadows import exchange

ANSWER = Answered(200, 0.02, 0.01, "application/json", body_of(b"[2]", 100), "r9")

#: Seconds of the day, for logs that never age.
NOON: Callable[[], float] = lambda: 1e9  # noqa: E731


def log_in(folder: Path, **changes: object) -> PairLog:
    return PairLog(folder, "blue", "r1", "replica", **changes)   # type: ignore[arg-type]


def write(log: PairLog, count: int, body: bytes = b"[1]") -> list[str]:
    ids = [str(uuid.UUID(int=number, version=4)) for number in range(count)]
    for each in ids:
        log.append(exchange(each, answer_body=body), "green", ANSWER)
    return ids


def ids_in(folder: Path, live_revision: str | None = None) -> list[str]:
    sample = read_sample(folder_of(folder, "blue", "green"), live_revision)
    return [pair.request_id for pair in sample.pairs()]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def age(folder: Path, seconds: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


@given(data=st.binary(max_size=40), kept=st.integers(0, 40), cut=st.integers(0, 40))
def test_a_body_is_kept_the_same_whole_and_in_pieces(data: bytes, kept: int, cut: int) -> None:
    capture = Capture(kept)
    capture.add(data[:cut])
    capture.add(data[cut:])
    whole = body_of(data, kept)
    assert capture.body() == whole
    again = Body.from_dict(whole.to_dict())
    assert (again.content, again.sha256) == (whole.content, whole.sha256)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    ids = write(log, 1000)
    log.count("green", {"offered": 1000})
    sample = read_sample(folder_of(tmp_path, "blue", "green"))
    pairs = list(sample.pairs())
    log.close()
    assert sorted(pair.request_id for pair in pairs) == sorted(ids)
    assert (sample.level_min, sample.counts, sample.unreadable) == (0, [{"offered": 1000}], 0)
    assert pairs[0].shadow == ANSWER
    assert pairs[0].live.revision == "r1"


def test_a_restart_adds_to_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        log = log_in(tmp_path)
        write(log, 10)
        log.close()
    assert len(ids_in(tmp_path)) == 20


def test_there_is_nothing_to_read_where_nobody_has_written(tmp_path: Path) -> None:
    sample = read_sample(folder_of(tmp_path, "blue", "green"))
    assert not sample.has_log
    assert list(sample.pairs()) == []


def test_a_killed_process_leaves_all_but_a_torn_line(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.serve.mirror import test_pairs as t\n"
        "log = t.log_in(Path(sys.argv[1])); t.write(log, 200); os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, timeout=60)
    path = max((tmp_path / "blue~green").glob("*.00"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    sample = read_sample(folder_of(tmp_path, "blue", "green"))
    assert len(list(sample.pairs())) == 199
    assert sample.unreadable == 1


def test_levels_halve_at_each_step() -> None:
    count = 20_000
    levels = [level_of(str(uuid.UUID(int=number))) for number in range(count)]
    for level in range(6):
        share = sum(each >= level for each in levels) / count
        assert share == pytest.approx(2.0 ** -level, rel=0.15)
    assert max(levels) <= LEVEL_MAX


def test_a_full_log_keeps_a_sample_of_all_the_time_by_request_id(tmp_path: Path) -> None:
    log = log_in(tmp_path, bytes_max=1_000_000)
    ids = write(log, 8000)
    log.close()
    assert size_of(tmp_path) < 1_000_000
    level = read_sample(folder_of(tmp_path, "blue", "green")).level_min
    assert level > 0
    assert sorted(ids_in(tmp_path)) == sorted(each for each in ids if level_of(each) >= level)


def test_the_pairs_of_two_replicas_are_thinned_alike_when_they_are_read(tmp_path: Path) -> None:
    busy, calm = log_in(tmp_path, bytes_max=1_000_000), log_in(tmp_path)
    write(busy, 8000)
    some = write(calm, 500)
    level = read_sample(folder_of(tmp_path, "blue", "green")).level_min
    found = ids_in(tmp_path)
    assert all(level_of(each) >= level for each in found)
    assert set(found) >= {each for each in some if level_of(each) >= level}
    busy.close()
    calm.close()


def test_dead_replicas_and_live_ones_together_stay_within_the_bound(tmp_path: Path) -> None:
    bytes_max = 2_000_000
    for _ in range(8):
        log = log_in(tmp_path, bytes_max=bytes_max)
        write(log, 1500)
        log.close()
        age(tmp_path, 120)
    last = log_in(tmp_path, bytes_max=bytes_max)
    ids = write(last, 1500)
    last.close()
    assert size_of(tmp_path) < bytes_max
    kept = read_sample(folder_of(tmp_path, "blue", "green"))
    assert {e for e in ids if level_of(e) >= kept.level_min} <= set(ids_in(tmp_path))


def test_replicas_that_write_at_once_share_the_bound(tmp_path: Path) -> None:
    bytes_max = 2_000_000
    logs = [log_in(tmp_path, bytes_max=bytes_max) for _ in range(4)]
    for _ in range(4):
        for log in logs:
            write(log, 1000)
    for log in logs:
        log.close()
    assert size_of(tmp_path) < bytes_max


def test_only_the_pairs_of_the_revision_that_is_asked_for_are_read(tmp_path: Path) -> None:
    for revision in ("r1", "r2"):
        log = PairLog(tmp_path, "blue", revision, "replica")
        log.append(exchange(f"of-{revision}"), "green", ANSWER)
        log.close()
    assert ids_in(tmp_path, live_revision="r2") == ["of-r2"]
    assert len(ids_in(tmp_path)) == 2


def test_the_pairs_of_a_deployment_go_with_it(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    for shadow in ("green", "red"):
        log.append(exchange(), shadow, ANSWER)
    remove_pairs(tmp_path, "green")
    remove_pairs(tmp_path, "green")
    remove_pairs(tmp_path / "none", "green")
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["blue~red"]


def test_a_replica_goes_on_when_its_pairs_are_removed(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.append(exchange("before"), "green", ANSWER)
    remove_pairs(tmp_path, "green")
    log.count("green", {"offered": 1})
    log.append(exchange("after"), "green", ANSWER)
    log.close()
    assert ids_in(tmp_path) == ["after"]

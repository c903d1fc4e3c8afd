"""Jobs over remote inputs: the same rows as over the same files on disk, and what goes wrong."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from inferay.engine.batch.driver import Driver
from inferay.engine.batch.pool import LocalPool
from inferay.engine.batch.prefetch import Prefetcher
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.units import Unit
from inferay.engine.storage import Access
from inferay.engine.storage.filesystems import open_filesystem
from inferay.engine.storage.read_errors import ReadError
from inferay.engine.storage.remote import S3Files
from tests.http_site import Site
from tests.radosgw import Bucket, Server

MakeSpec = Callable[..., JobSpec]

#: A script that gives a row per file: the end of its path and its content.
ECHO = """
    import os

    def init():
        pass

    def run(mini_batch):
        return ["/".join(path.split("/")[-2:]) + "=" + open(path).read() for path in mini_batch]
"""


def fill(bucket: Bucket, count: int, prefix: str = "in") -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.pipe({
        f"{name}/{prefix}/part {number % 3}/{number:04d}.txt": str(number).encode()
        for number in range(count)
    })


def run(spec: JobSpec, access: Access) -> Result:
    return Driver(spec, LocalPool, access=access).run()


def rows_of(spec: JobSpec) -> list[str]:
    return (Path(spec.output) / "predictions.csv").read_text().splitlines()


def errors_of(spec: JobSpec) -> list[dict[str, object]]:
    text = (Path(spec.output) / "errors.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_job_over_objects_gives_the_rows_of_a_job_over_files(
    bucket: Bucket, make_spec: MakeSpec, tmp_path: Path
) -> None:
    fill(bucket, 200)
    local = tmp_path / "same"
    for number in range(200):
        path = local / f"part {number % 3}" / f"{number:04d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    remote = make_spec(ECHO, name="remote", input=f"{bucket.uri}/in", mini_batch_size=7)
    result = run(remote, bucket.access)
    assert (result.status, result.counts.items_ok) == ("Completed", 200)
    here = make_spec(ECHO, name="here", input=local, mini_batch_size=7)
    assert run(here, Access()).status == "Completed"
    assert rows_of(remote) == rows_of(here)
    assert list(Path(tempfile.gettempdir()).glob("*.scratch")) == []


def test_no_secret_is_in_anything_that_a_job_leaves(
    bucket: Bucket, make_spec: MakeSpec, tmp_path: Path
) -> None:
    fill(bucket, 5)
    spec = make_spec(ECHO, input=f"{bucket.uri}/in")
    assert run(spec, bucket.access).status == "Completed"
    secret = bucket.access.places[0].secret_access_key.encode()
    assert secret
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


def test_one_object_is_an_input_file_under_its_own_name(
    bucket: Bucket, make_spec: MakeSpec
) -> None:
    fill(bucket, 1)
    spec = make_spec(
        ECHO, input=f"{bucket.uri}/in/part 0/0000.txt", input_type="uri_file",
    )
    assert run(spec, bucket.access).status == "Completed"
    assert rows_of(spec)[0].endswith("/0000.txt=0")


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_file_on_the_web_is_an_input(
    site: Site, make_spec: MakeSpec, has_ranges: bool
) -> None:
    site.files["/data/my%20file.csv"], site.has_ranges = b"content", has_ranges
    site.cut_after = [3]
    spec = make_spec(ECHO, input=f"{site.url}/data/my%20file.csv", input_type="uri_file")
    assert run(spec, Access(allow_private_addresses=True)).status == "Completed"
    assert rows_of(spec)[0].endswith("/my file.csv=content")


def test_the_signature_of_an_input_without_rows_is_not_shown(
    site: Site, make_spec: MakeSpec
) -> None:
    site.files["/x.csv"] = b"a,b\n"
    uri = f"{site.url}/x.csv?sig=geheim"
    spec = make_spec(ECHO, input=uri, input_type="uri_file", mini_batch_size="5 rows",
                     table="pandas")
    result = run(spec, Access(allow_private_addresses=True))
    assert (result.error or {})["code"] == "NoInput"
    assert (result.error or {})["target"] == f"{site.url}/x.csv?…"
    assert b"geheim" not in result.to_bytes()


def test_a_private_address_ends_the_job_before_anything_is_asked(
    site: Site, make_spec: MakeSpec
) -> None:
    spec = make_spec(ECHO, input=f"{site.url}/x", input_type="uri_file")
    result = run(spec, Access())
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "AddressRefused"
    assert site.asked == []


def test_an_object_that_changes_during_the_job_is_named_and_not_scored(
    bucket: Bucket, make_spec: MakeSpec
) -> None:
    fill(bucket, 12)
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    driver = Driver(
        make_spec(ECHO, input=f"{bucket.uri}/in", mini_batch_size=4, workers=1), LocalPool,
        access=bucket.access,
    )
    seal = driver._seal

    def change_after(*arguments: object) -> object:
        found = seal(*arguments)   # type: ignore[arg-type]
        filesystem.pipe(f"{name}/in/part 1/0004.txt", b"other")
        filesystem.rm_file(f"{name}/in/part 2/0005.txt")
        return found

    driver._seal = change_after   # type: ignore[assignment, method-assign]
    result = driver.run()
    assert (result.status, result.counts.items_ok) == ("Completed", 10)
    assert {(one["item"], one["kind"]) for one in errors_of(driver.spec)} == {
        ("part 1/0004.txt", "InputChanged"), ("part 2/0005.txt", "InputMissing"),
    }


def test_a_file_that_changes_during_the_job_is_named_and_not_scored(
    make_spec: MakeSpec, write_input: Callable[..., Path]
) -> None:
    folder = write_input(6)
    script = f"""
        import os

        def init():
            for name in ("0003.txt", "0004.txt"):
                path = os.path.join({str(folder)!r}, name)
                before = os.stat(path)
                with open(path, "w") as file:
                    file.write("y" if name == "0003.txt" else "longer")
                if name == "0004.txt":
                    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        def run(mini_batch):
            return [os.path.basename(path) for path in mini_batch]
    """
    spec = make_spec(script, files=6, workers=1)
    assert run(spec, Access()).counts.items_ok == 4
    assert {(one["item"], one["kind"]) for one in errors_of(spec)} == {
        ("0003.txt", "InputChanged"), ("0004.txt", "InputChanged"),
    }


def test_fetching_does_not_count_against_the_time_out(
    bucket: Bucket, radosgw: Server, make_spec: MakeSpec
) -> None:
    from tests.fault_proxy import fault_proxy

    fill(bucket, 2)
    with fault_proxy(radosgw.port, latency_s=0.8) as proxy:
        spec = make_spec(ECHO, input=f"{bucket.uri}/in", timeout_s=0.5, workers=1)
        result = run(spec, bucket.through(proxy.endpoint_url).access)
    assert (result.status, result.counts.items_ok) == ("Completed", 2)


def units(files: S3Files) -> list[Unit]:
    return [Unit(one.path, one.size_bytes, one.version) for one in files.list()]


def on_disk(folder: Path) -> int:
    return sum(os.path.getsize(path) for path in folder.rglob("*") if path.is_file())


def test_the_scratch_folder_stays_within_its_bound(bucket: Bucket, tmp_path: Path) -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.pipe({f"{name}/{number}": bytes(100) for number in range(30)})
    files = S3Files(bucket.uri, bucket.access)
    listed = units(files)
    prefetcher = Prefetcher(files, tmp_path / "scratch", bytes_max=500)
    prefetcher.prefetch(listed)
    for first in range(0, 30, 2):
        taken = listed[first:first + 2]
        assert all(Path(path).read_bytes() == bytes(100) for path in prefetcher.take(taken))
        assert on_disk(tmp_path / "scratch") <= 500
        prefetcher.release(taken)
    prefetcher.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_mini_batch_larger_than_the_bound_is_there_whole(
    bucket: Bucket, tmp_path: Path
) -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.pipe({f"{name}/{number}": bytes(100) for number in range(12)})
    files = S3Files(bucket.uri, bucket.access)
    listed = units(files)
    prefetcher = Prefetcher(files, tmp_path / "scratch", bytes_max=50)
    prefetcher.prefetch(listed[:2])
    assert len(prefetcher.take(listed)) == 12
    prefetcher.release(listed)
    prefetcher.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_keys_that_no_folder_can_hold_side_by_side_are_fetched_all_the_same(
    bucket: Bucket, tmp_path: Path
) -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    keys = ["a", "a/b", "a/b/c", "../x", "//y", "é" * 200 + ".csv", "n/" * 200 + "end"]
    for key in keys:
        filesystem.call_s3("put_object", Bucket=name, Key=f"in/{key}", Body=key.encode())
    files = S3Files(f"{bucket.uri}/in", bucket.access)
    listed = units(files)
    assert len(listed) == len(keys)
    prefetcher = Prefetcher(files, tmp_path / "scratch")
    for path, unit in zip(prefetcher.take(listed), listed, strict=True):
        assert Path(path).read_text() == unit.path
        assert Path(path).resolve().is_relative_to(tmp_path / "scratch")
        assert Path(path).suffix == Path(unit.path).suffix
    prefetcher.release(listed)
    prefetcher.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_one_file_that_cannot_be_read_does_not_hold_up_the_others(
    bucket: Bucket, tmp_path: Path
) -> None:
    fill(bucket, 3)
    files = S3Files(f"{bucket.uri}/in", bucket.access)
    listed = units(files)
    gone = Unit("gone", 1, "x")
    prefetcher = Prefetcher(files, tmp_path / "scratch")
    prefetcher.prefetch([gone, *listed])
    with pytest.raises(ReadError, match="does not exist"):
        prefetcher.take([gone])
    prefetcher.release([gone])
    assert len(prefetcher.take(listed)) == 3
    prefetcher.release(listed)
    prefetcher.close()
    assert list((tmp_path / "scratch").iterdir()) == []

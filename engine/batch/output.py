"""The final output, a pure function of the journal and the segments it names.

Committed ranges in the order of their mini-batches; each thing put create-only, whole or not at
all; `_SUCCESS.json` last. On an object store too all of it passes through the driver: its checksum
is published, and a copy that the server makes has none. A driver that died in the middle is
followed by one that finds what is there equal to what it would write, and goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from inferay.engine.batch.commits import Commits
from inferay.engine.batch.formats import final_bytes
from inferay.engine.batch.formats.so_far import columns_of
from inferay.engine.batch.journal import Record, valid_records
from inferay.engine.batch.manifest import ManifestReader, Seal
from inferay.engine.batch.store import LocalStore, Store
from inferay.engine.batch.units import narrowed
from inferay.errors import Conflict, JobError

SUCCESS = "_SUCCESS.json"
ERRORS = "errors.jsonl"
PARTIAL = ".partial"
VERSION = 1

#: Files that scripts wrote which are published at once: hides a store's latency.
FILES_AT_ONCE = 4

#: Bytes of a segment that are copied at once.
COPY_BYTES = 4 << 20


@dataclass
class Published:
    """A file of the output: its size and checksum."""

    name: str
    size_bytes: int = 0
    sha256: str = ""


def check_free(output: Store, file_name: str, where: str) -> None:
    """Check that the output's names are free.

    Args:
        output: The output.
        file_name: Of the rows.
        where: What the error calls the output.

    Raises:
        Conflict: One is taken: an existing output is never overwritten.
    """
    if isinstance(output, LocalStore) and output.root.exists() and not output.root.is_dir():
        raise Conflict(
            f"{where} is no folder; choose another output path", code="OutputExists", target=where
        )
    for name in (file_name, SUCCESS, ERRORS, file_name + PARTIAL):
        if output.exists(name):
            raise Conflict(
                f"{where} already has a {name}; an existing output is never overwritten: "
                "choose another output path, or move it away",
                code="OutputExists", target=name,
            )


def committed(store: Store) -> Commits:
    """Return the commit records that count, in the output's order; first commit wins."""
    return Commits(valid_records(store))


def check_complete(records: Iterable[Record], seal: Seal) -> None:
    """Check that the records speak of every item: no row is left out silently.

    Raises:
        JobError: Some are missing, because the journal was damaged after they were written.
    """
    items = sum(record["ok"] + sum(f["n"] for f in record["failures"]) for record in records)
    if items != seal.items:
        raise JobError(
            f"the journal speaks of {items} items, but the input has {seal.items}: it was damaged "
            "while the job ran; resume the job to score what is missing",
            code="DataLost",
        )


def is_published(output: Store, job: str) -> bool:
    """Return whether the job has published its output: it has its `_SUCCESS.json`.

    Raises:
        Conflict: Another job has published there.
    """
    try:
        found = json.loads(output.read(SUCCESS))
    except FileNotFoundError:
        return False
    if found.get("run", {}).get("job") != job:
        raise Conflict(f"the output already has a {SUCCESS} of another job", code="OutputExists")
    return True


def publish_rows(
    store: Store, records: Iterable[Record], output: Store, name: str, *, is_partial: bool = False
) -> Published:
    """Assemble the rows of the records as the file `name`; return its size and checksum.

    With `is_partial` it is put aside, under `.partial`, and made even of rows that do not fit.

    Raises:
        Conflict: The name is taken by other content.
        JobError: The rows do not fit into one table.
    """
    put_name = name + PARTIAL if is_partial else name
    return put(output, put_name, lambda: row_bytes(store, records, name, is_partial=is_partial))


def row_bytes(
    store: Store, records: Iterable[Record], name: str, *, is_partial: bool = False
) -> Iterator[bytes]:
    """Return the bytes of the file `name` of these records' rows; see `publish_rows`."""
    columns = columns_of(records, is_lenient=is_partial)
    return final_bytes(name, segments(store, records), columns)


def publish_files(store: Store, records: Iterable[Record], output: Store) -> list[Published]:
    """Publish the files that user code wrote, under their own names, in bytewise order.

    Raises:
        JobError: Two mini-batches wrote different content under one name, or a file was written
            to after its mini-batch had ended.
        Conflict: A name is taken by other content.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for record in records:
        for file in record["files"]:
            other = chosen.setdefault(file["name"], file)
            if other["sha256"] != file["sha256"]:
                raise JobError(
                    f"mini-batches {_who(other)} and {_who(file)} both wrote "
                    f"'{file['name']}', with different content; give each mini-batch's file a "
                    "name of its own",
                    code="OutputNameClash", target=file["name"],
                )
    _check_folders(chosen)
    threads = ThreadPoolExecutor(FILES_AT_ONCE, "publish")
    try:
        return list(threads.map(
            lambda name: _publish_file(store, chosen[name], output), sorted(chosen)
        ))
    finally:
        threads.shutdown(cancel_futures=True)


def _publish_file(store: Store, file: dict[str, Any], output: Store) -> Published:
    published = Published(file["name"], file["size_bytes"], file["sha256"])
    try:
        output.create_stream(file["name"], _unchanged(store, file), file["size_bytes"])
    except FileExistsError:
        _check_same(output, published)
    return published


def error_lines(
    records: Iterable[Record], manifest: ManifestReader,
    number_of: Callable[[int], int] = lambda number: number,
) -> Iterator[bytes]:
    """Yield the lines of `errors.jsonl`, in input order.

    An item that failed has a line of its own; a mini-batch with too few rows has one, with kind
    `RowsMissing` and how many. `number_of` is what a mini-batch is called.
    """
    for record in records:
        for failure in record["failures"]:
            units = narrowed(manifest.mini_batch(failure["mb"]), failure["items"])
            same = {
                "version": VERSION, "mini_batch": number_of(failure["mb"]),
                "attempts": failure["attempts"], "kind": failure["kind"],
                "exception": failure["exception"], "traceback": failure["traceback"],
            }
            if failure["kind"] == "RowsMissing":
                items = [unit.describe() for unit in units]
                line = {"items": items, "rows_missing": failure["n"], **same}
                yield json.dumps(line).encode() + b"\n"
                continue
            for unit in units:
                yield json.dumps({**unit.describe(), **same}).encode() + b"\n"


def publish_errors(
    records: Iterable[Record], manifest: ManifestReader, output: Store,
    number_of: Callable[[int], int] = lambda number: number,
) -> Published | None:
    """Publish `errors.jsonl` if any item failed.

    Raises:
        Conflict: The name is taken by other content.
    """
    if not any(record["failures"] for record in records):
        return None
    return put(output, ERRORS, lambda: error_lines(records, manifest, number_of))


def segments(store: Store, records: Iterable[Record]) -> Iterator[bytes]:
    """Yield the records' rows; neighbouring ranges of one segment are read together."""
    return _pieces(store, _joined(records))


def chunks(store: Store, name: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes [start, stop) of a name.

    Raises:
        JobError: It ends before.
    """
    return _pieces(store, [(name, start, stop)])


def _joined(records: Iterable[Record]) -> Iterator[tuple[str, int, int]]:
    segment, start, stop = "", 0, 0
    for record in records:
        if not record["seg"]:
            continue
        if record["seg"] == segment and record["at"][0] == stop:
            stop = record["at"][1]
            continue
        yield segment, start, stop
        segment, (start, stop) = record["seg"], record["at"]
    yield segment, start, stop


def _pieces(store: Store, ranges: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
    """Yield the bytes of the ranges, in pieces, of which the store may read a few ahead."""
    asked: deque[tuple[str, int, int]] = deque()

    def cut() -> Iterator[tuple[str, int, int]]:
        for name, start, stop in ranges:
            for at in range(start, stop, COPY_BYTES):
                asked.append((name, at, min(stop, at + COPY_BYTES)))
                yield asked[-1]

    for piece in store.read_each(cut()):
        name, start, stop = asked.popleft()
        if len(piece) < stop - start:
            raise JobError(
                f"{name} ends too early, at byte {start + len(piece)}", code="DataLost"
            )
        yield piece


def copy_file(old: Store, file: Published, output: Store, job: str) -> None:
    """Publish a file of an earlier job's output as it is.

    Raises:
        JobError: It is not what that job published.
        Conflict: The name is taken by other content.
    """

    def checked() -> Iterator[bytes]:
        found = Published(file.name)
        yield from _hashed(chunks(old, file.name, 0, file.size_bytes), found)
        if found.sha256 != file.sha256:
            raise FileNotFoundError(file.name)

    try:
        output.create_stream(file.name, checked())
    except FileExistsError:
        _check_same(output, file)
    except (FileNotFoundError, JobError):
        raise JobError(
            f"'{file.name}' of job {job} is gone from its output, or was changed; put it back as "
            "it was", code="OutputChanged", target=file.name,
        ) from None


def _unchanged(store: Store, file: dict[str, Any]) -> Iterator[bytes]:
    """Yield what a script's file had when its call of `run()` ended, which is what it must have."""
    digest = hashlib.sha256()
    for chunk in chunks(store, file["stored"], 0, file["size_bytes"]):
        digest.update(chunk)
        yield chunk
    size_bytes = file["size_bytes"]
    is_longer = bool(store.read(file["stored"], size_bytes, size_bytes + 1))
    if is_longer or digest.hexdigest() != file["sha256"]:
        raise JobError(
            f"'{file['name']}' was written to after {_whose(file)} had ended; write one file per "
            "mini-batch (its name may come from the mini-batch's first file) and close it, or "
            "return the rows",
            code="OutputChanged", target=file["name"],
        )


def _check_folders(chosen: dict[str, dict[str, Any]]) -> None:
    """Check that no name is a file here and a folder there."""
    for name, file in chosen.items():
        parent = name
        while parent := parent.rpartition("/")[0]:
            if parent in chosen:
                raise JobError(
                    f"{_whose(chosen[parent])} wrote a file '{parent}' and {_whose(file)} wrote "
                    f"'{name}', for which that would have to be a folder; choose another name",
                    code="OutputNameClash", target=name,
                )


def _hashed(chunks: Iterator[bytes], published: Published) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        published.size_bytes += len(chunk)
        yield chunk
    published.sha256 = digest.hexdigest()


def put(output: Store, name: str, chunks: Callable[[], Iterator[bytes]]) -> Published:
    """Put the chunks under the name, or find them there; return size and checksum.

    Raises:
        Conflict: The name is taken by other content.
    """
    published = Published(name)
    try:
        output.create_stream(name, _hashed(chunks(), published))
    except FileExistsError:
        published = Published(name)
        for _ in _hashed(chunks(), published):
            pass
        _check_same(output, published)
    return published


def withdraw(output: Store, name: str, chunks: Callable[[], Iterator[bytes]]) -> None:
    """Remove the name if it has these bytes, and is so this job's; idempotent."""
    if not output.exists(name):
        return
    ours = Published(name)
    for _ in _hashed(chunks(), ours):
        pass
    try:
        _check_same(output, ours)
    except Conflict:   # it is somebody else's
        return
    output.remove(name)


def _check_same(output: Store, expected: Published) -> None:
    digest = hashlib.sha256()
    start = 0
    while chunk := output.read(expected.name, start, start + COPY_BYTES):
        digest.update(chunk)
        start += len(chunk)
    if digest.hexdigest() != expected.sha256:
        raise Conflict(
            f"the output already has a {expected.name} with other content; it was not changed",
            code="OutputExists", target=expected.name,
        )


def _whose(file: dict[str, Any]) -> str:
    return "init()" if file["mini_batch"] < 0 else f"mini-batch {file['mini_batch']}"


def _who(file: dict[str, Any]) -> str:
    return "init()" if file["mini_batch"] < 0 else str(file["mini_batch"])

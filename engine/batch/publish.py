"""The end of a job: its final output, or the rows that a job without an end leaves.

What is written, and how each thing, is `output`'s; here is the order, and `_SUCCESS.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from inferay.engine.batch import output as outputs
from inferay.engine.batch.dispatch import Counts
from inferay.engine.batch.formats.columns import to_json
from inferay.engine.batch.formats.so_far import columns_of
from inferay.engine.batch.journal import Record, check_newest, valid_records
from inferay.engine.batch.manifest import SEAL, ManifestReader, Seal, read_seal
from inferay.engine.batch.merge import Merge
from inferay.engine.batch.provenance import versions
from inferay.engine.batch.redrive import check_old_rows, read_plan
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import Store, open_store
from inferay.engine.storage import Access, redacted
from inferay.errors import JobError


def assemble(
    spec: JobSpec, store: Store, output: Store, *, seal: Seal, epoch: int, counts: Counts,
    run_facts: dict[str, Any], close_files: Callable[[], None], access: Access,
) -> None:
    """Publish a finished job; idempotent: what is there and equal stays.

    Args:
        spec: The job.
        store: Its work.
        output: Where it is published.
        seal: Its manifest's.
        epoch: Whose driver publishes; a newer one stops it.
        counts: How it went.
        run_facts: What may differ between runs.
        close_files: Ends the workers; called if scripts wrote files, which they may have open.
        access: How remote storage is reached.

    Raises:
        JobError: The journal is incomplete, or two mini-batches wrote one file.
        Conflict: A name is taken by other content.
        SupersededError: A newer driver has the job.
    """
    records = outputs.committed(store)
    outputs.check_complete(records, seal)
    name = spec.settings.output_file_name
    output.remove(name + outputs.PARTIAL)
    _check_reserved(records, name)
    if any(record["files"] for record in records):
        close_files()
    check_newest(store, epoch)
    files = outputs.publish_files(store, records, output)
    manifest = ManifestReader(store, seal)
    found = {
        "items": seal.items, "items_ok": counts.items_ok, "items_failed": counts.items_failed,
        "mini_batches": seal.mini_batches, "rows": counts.rows,
    }
    has_rows = spec.settings.output_action == "append_row"
    merge = _merge(spec, store, records, access)
    if merge is None:
        columns = columns_of(records)
        if has_rows:
            files.append(outputs.publish_rows(store, records, output, name))
        errors = outputs.publish_errors(records, manifest, output)
    else:
        columns = merge.columns()
        files = merge.publish_files(files, output)
        if has_rows:
            files.append(outputs.put(output, name, lambda: merge.row_bytes(name, columns)))
        errors = outputs.publish_errors(records, manifest, output, merge.number_of)
        found = merge.counts(found)
    check_newest(store, epoch)
    if epoch > 1:
        output.sweep()   # a driver of before may have been killed while it wrote
    success = {
        "format": "inferay.success", "version": outputs.VERSION,
        "counts": found,
        "files": [asdict(file) for file in files],
        "errors": asdict(errors) if errors else None,
        "hashes": {**spec.hashes, "manifest": seal.sha256},
        "assets": spec.assets,
        "columns": to_json(columns),
        "run": {
            "job": spec.name, "redrive_of": spec.redrive and spec.redrive.job,
            "input": redacted(spec.input), **run_facts, "versions": versions(spec.packages),
        },
    }
    try:
        output.create(outputs.SUCCESS, json.dumps(success, indent=2).encode() + b"\n")
    except FileExistsError:
        outputs.is_published(output, spec.name)   # raises if it is another job's


def publish_partial(spec: JobSpec, access: Access) -> None:
    """Leave the committed rows of a job that did not complete under `.partial`; idempotent.

    What its driver had published of the final output, before it came to its end, is withdrawn.
    Only for a job without a live driver that is not published.
    """
    store, output = open_store(spec.work, access), open_store(spec.output, access)
    output.sweep()
    records = outputs.committed(store)
    rows = spec.settings.output_file_name
    if spec.settings.output_action == "append_row" and any(record["seg"] for record in records):
        output.remove(rows + outputs.PARTIAL)
        outputs.publish_rows(store, records, output, rows, is_partial=True)
    if any(record["k"] == "sealed" for record in valid_records(store)):
        merge = _merge(spec, store, records, access)
        outputs.withdraw(output, rows, lambda: (
            merge.row_bytes(rows, merge.columns()) if merge
            else outputs.row_bytes(store, records, rows)
        ))
        manifest = ManifestReader(store, read_seal(store))
        outputs.withdraw(output, outputs.ERRORS, lambda: (
            outputs.error_lines(records, manifest, merge.number_of) if merge
            else outputs.error_lines(records, manifest)
        ))


def failed_lines(store: Store) -> Iterator[bytes]:
    """Yield what `errors.jsonl` says, or would say, of the items that have failed so far.

    It comes from the journal, so the job may be in any state.
    """
    if not store.exists(SEAL):
        return
    plan = read_plan(store)
    number_of = plan.number_of if plan is not None and plan.is_merged else int
    manifest = ManifestReader(store, read_seal(store))
    yield from outputs.error_lines(outputs.committed(store), manifest, number_of)


def _merge(
    spec: JobSpec, store: Store, records: Iterable[Record], access: Access
) -> Merge | None:
    """Return what merges the old job's output, which is checked to be as it was, or None."""
    plan = read_plan(store)
    if spec.redrive is None or plan is None or not plan.is_merged:
        return None
    old = open_store(spec.redrive.output, access)
    check_old_rows(plan, old)
    return Merge(plan, store, records, old)


def _check_reserved(records: Iterable[Record], name: str) -> None:
    reserved = {name, outputs.SUCCESS, outputs.ERRORS}
    for record in records:
        for file in record["files"]:
            if file["name"].split("/")[0] in reserved:
                raise JobError(
                    f"the script wrote '{file['name']}' under AZUREML_BI_OUTPUT_PATH, a name that "
                    "the job itself writes; choose another",
                    code="OutputNameClash", target=file["name"],
                )

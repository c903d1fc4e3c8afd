from __future__ import annotations

import io

import pandas
import pytest
from pandas.testing import assert_frame_equal

from inferay.engine.batch.split.plan import Limits, TablePlan
from inferay.engine.batch.split.read import TableReader
from inferay.engine.batch.split.sources import Sources
from inferay.engine.batch.units import Piece, Unit
from inferay.engine.sizes import BatchSize
from inferay.engine.storage import open_filesystem
from inferay.engine.storage.remote import open_remote
from inferay.errors import JobError
from tests.radosgw import Bucket


def test_tables_on_s3_are_read_in_ranges_and_not_when_they_changed(bucket: Bucket) -> None:
    frame = pandas.DataFrame({"id": range(900), "text": [f'ä "{n}"\nb' for n in range(900)]})
    out = io.BytesIO()
    frame.to_parquet(out, row_group_size=200, index=False)
    filesystem, path = open_filesystem(bucket.uri, bucket.access)
    filesystem.pipe_file(f"{path}/in/data.csv", frame.to_csv(index=False).encode())
    filesystem.pipe_file(f"{path}/in/data.parquet", out.getvalue())
    root = f"{bucket.uri}/in"
    files = [
        Unit(one.path, one.size_bytes, one.version)
        for one in open_remote(root, bucket.access).list()
    ]
    sources = Sources(root, bucket.access)
    plan = TablePlan(sources, "pandas", is_cut=True, limits=Limits.of(BatchSize(70, "rows")))
    units = [unit for units in plan.mini_batches(files) for unit in units]
    reader = TableReader(sources, "pandas", plan.types.get)
    read = [reader.read(Piece(unit, 0, unit.items)) for unit in units]
    reader.close()
    assert_frame_equal(
        pandas.concat(read, ignore_index=True), pandas.concat([frame, frame], ignore_index=True)
    )
    filesystem.pipe_file(f"{path}/in/data.csv", frame[:800].to_csv(index=False).encode())
    with pytest.raises(JobError, match=r"data\.csv was changed after it was listed"):
        reader.read(Piece(units[0], 0, 1))

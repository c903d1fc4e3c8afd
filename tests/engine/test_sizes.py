from __future__ import annotations

import pytest

from inferay.engine.sizes import MINI_BATCH_SIZE_MAX, parse_mini_batch_size


@pytest.mark.parametrize(("given", "meant"), [
    (10, (10, "files")), (1, (1, "files")), (MINI_BATCH_SIZE_MAX, (MINI_BATCH_SIZE_MAX, "files")),
    ("64MB", (64_000_000, "bytes")), ("64 MiB", (64 << 20, "bytes")), ("1GB", (10**9, "bytes")),
    ("512 kb", (512_000, "bytes")), ("1 byte", (1, "bytes")), ("100 bytes", (100, "bytes")),
    ("5000 rows", (5000, "rows")), ("5000rows", (5000, "rows")), (" 1 Row ", (1, "rows")),
])
def test_a_size_is_files_bytes_or_rows(given: int | str, meant: tuple[int, str]) -> None:
    assert parse_mini_batch_size(given) == meant


@pytest.mark.parametrize("given", [
    0, -1, True, 1.5, None, MINI_BATCH_SIZE_MAX + 1, "", "10", "ten", "0 rows", "0MB", "-5 rows",
    "1.5GB", "64 M", "64MBs", "5000 lines", "1e3 rows", "99999999999 rows", "999999999999999 GB",
])
def test_what_is_none_of_these_has_no_size(given: object) -> None:
    assert parse_mini_batch_size(given) is None

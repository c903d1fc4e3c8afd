from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch import manifest as manifests
from inferay.engine.batch.manifest import (
    SEAL,
    ManifestReader,
    Seal,
    check_version,
    read_seal,
    write_manifest,
)
from inferay.engine.batch.plan import by_count
from inferay.engine.batch.store import LocalStore, MemoryStore
from inferay.engine.batch.units import Unit
from inferay.errors import InferayError

NAMES = ["a.txt", "new\nline", 'quo"te', "com,ma", os.fsdecode(b"\xff\xfe.bin"), "=cmd", "é" * 100]


def units_of(count: int) -> list[Unit]:
    return [
        Unit(f"{number}-{NAMES[number % len(NAMES)]}", number, number,
             ("bytes", number, number + 1) if number % 3 == 0 else None)
        for number in range(count)
    ]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "PART_UNITS", 10)


@given(st.integers(0, 60), st.integers(1, 12))
def test_the_plan_keeps_order_and_only_the_last_mini_batch_is_short(count: int, size: int) -> None:
    units = units_of(count)
    mini_batches = list(by_count(units, size))
    assert [unit for one in mini_batches for unit in one] == units
    assert all(len(one) == size for one in mini_batches[:-1])
    assert all(0 < len(one) <= size for one in mini_batches)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 21, 95])
@pytest.mark.parametrize("size", [1, 3, 10, 25])
def test_every_mini_batch_is_read_as_it_was_written(count: int, size: int) -> None:
    store, units = MemoryStore(), units_of(count)
    seal = write_manifest(store, by_count(units, size), root="/in", epoch=1)
    reader = ManifestReader(store, seal)
    expected = list(by_count(units, size))
    assert (seal.units, seal.mini_batches) == (count, len(expected))
    assert seal.size_bytes == sum(unit.size_bytes for unit in units)
    for index in [*range(len(expected)), *reversed(range(len(expected)))]:
        assert reader.mini_batch(index) == expected[index]
    for index in (-1, len(expected)):
        with pytest.raises(IndexError):
            reader.mini_batch(index)


@pytest.mark.usefixtures("small_parts")
def test_parts_lie_end_to_end_and_hold_whole_mini_batches() -> None:
    seal = write_manifest(MemoryStore(), by_count(units_of(50), 4), root="/in", epoch=1)
    assert len(seal.parts) > 2
    first = 0
    for part in seal.parts:
        assert part.first == first
        first += part.mini_batches
    assert first == seal.mini_batches
    assert sum(part.units for part in seal.parts) == seal.units


@pytest.mark.usefixtures("small_parts")
def test_a_reader_keeps_few_parts_in_memory() -> None:
    store = MemoryStore()
    seal = write_manifest(store, by_count(units_of(100), 5), root="/in", epoch=1)
    reader = ManifestReader(store, seal)
    for index in range(seal.mini_batches):
        reader.mini_batch(index)
        assert len(reader._lines) <= manifests.PARTS_IN_MEMORY


def test_a_manifest_on_disk_reads_back(tmp_path: Path) -> None:
    store, units = LocalStore(tmp_path), units_of(40)
    written = write_manifest(store, by_count(units, 7), root="/in", epoch=1)
    assert read_seal(store) == written
    assert ManifestReader(store, read_seal(store)).mini_batch(5) == units[35:40]


def test_there_is_no_seal_before_the_manifest_is_whole() -> None:
    store = MemoryStore()

    def failing() -> list[list[Unit]]:
        raise KeyError("stop")

    with pytest.raises(KeyError):
        write_manifest(store, (one for _ in [0] for one in failing()), root="/in", epoch=1)
    with pytest.raises(FileNotFoundError):
        read_seal(store)


def test_the_second_writer_uses_the_first_ones_seal() -> None:
    store = MemoryStore()
    first = write_manifest(store, by_count(units_of(10), 2), root="/in", epoch=1)
    second = write_manifest(store, by_count(units_of(33), 5), root="/in", epoch=2)
    assert second == first == read_seal(store)
    assert ManifestReader(store, second).mini_batch(4) == units_of(10)[8:]


def test_the_same_plan_has_the_same_checksum_whoever_writes_it() -> None:
    seals = [
        write_manifest(MemoryStore(), by_count(units_of(30), 4), root="/in", epoch=epoch)
        for epoch in (1, 2)
    ]
    assert seals[0].sha256 == seals[1].sha256
    other = write_manifest(MemoryStore(), by_count(units_of(30), 5), root="/in", epoch=1)
    assert other.sha256 != seals[0].sha256


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("damage", ["flip", "cut", "other", "empty"])
def test_a_damaged_part_is_named(damage: str) -> None:
    store = MemoryStore()
    seal = write_manifest(store, by_count(units_of(30), 5), root="/in", epoch=1)
    name = seal.parts[1].name
    data = bytearray(store.read(name))
    if damage == "flip":
        data[len(data) // 2] ^= 0x40
    elif damage == "cut":
        del data[-3:]
    elif damage == "other":
        data = bytearray(zlib.compress(b"[]"))
    else:
        data = bytearray()
    store.replace(name, bytes(data))
    reader = ManifestReader(store, seal)
    assert reader.mini_batch(0)
    with pytest.raises(InferayError, match=name) as caught:
        reader.mini_batch(seal.parts[1].first)
    assert caught.value.code == "ManifestDamaged"


def test_a_seal_of_a_later_version_is_refused() -> None:
    store = MemoryStore()
    write_manifest(store, by_count(units_of(3), 2), root="/in", epoch=1)
    fields = json.loads(store.read(SEAL))
    assert (fields["format"], fields["version"]) == ("inferay.manifest", 1)
    with pytest.raises(InferayError, match="version 2") as caught:
        Seal.from_bytes(json.dumps({**fields, "version": 2}).encode())
    assert caught.value.code == "FormatUnknown"


@pytest.mark.parametrize("fields", [{}, {"format": "other", "version": 1}, {"version": 1}])
def test_a_thing_of_another_kind_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InferayError):
        check_version(fields, "inferay.manifest", 1)

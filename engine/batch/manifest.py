"""The manifest: which units make up which mini-batch, fixed before the first lease.

It is a sequence of compressed parts, each a line of JSON per mini-batch, and a seal that names
them with their checksums. The seal is created once; whoever finds it uses it as it is. The driver
keeps no list of files: it streams them into the parts, and workers read a part at a time.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inferay.engine.batch.store import Store
from inferay.engine.batch.units import Unit, units_from_json, units_to_json
from inferay.errors import InferayError

VERSION = 1
SEAL = "manifest/sealed.json"

#: Units in one part: about 1.5 MB of JSON, which a worker inflates in about 10 ms.
PART_UNITS = 16_384

#: `json.dumps` would make an encoder for each mini-batch.
_encode = json.JSONEncoder(separators=(",", ":")).encode

#: Parts that a reader keeps inflated: the lease in hand and the next one may straddle two.
PARTS_IN_MEMORY = 2


@dataclass(frozen=True)
class Part:
    """A compressed run of mini-batches."""

    name: str
    first: int
    mini_batches: int
    units: int
    sha256: str


@dataclass(frozen=True)
class Seal:
    """What the manifest says of itself.

    Attributes:
        root: What the units' paths are relative to.
        parts: In order.
        mini_batches: How many there are.
        units: How many there are.
        items: How many there are: rows where `run()` takes tables, else files.
        size_bytes: Of all files together.
        types: Name of the object with the types of files that were cut, or "".
        types_sha256: Of its content.
        sha256: Over the parts' content and the types; the same input and plan give the same value.
    """

    root: str
    parts: tuple[Part, ...]
    mini_batches: int
    units: int
    items: int
    size_bytes: int
    types: str
    types_sha256: str
    sha256: str

    def to_bytes(self) -> bytes:
        """Return the seal as it is stored."""
        fields = {**self.__dict__, "parts": [part.__dict__ for part in self.parts]}
        return json.dumps({"format": "inferay.manifest", "version": VERSION, **fields}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Seal:
        """Return the seal that `to_bytes` wrote.

        Raises:
            InferayError: A later version of inferay wrote it.
        """
        fields = json.loads(data)
        check_version(fields, "inferay.manifest", VERSION)
        del fields["format"], fields["version"]
        parts = tuple(Part(**part) for part in fields.pop("parts"))
        return cls(parts=parts, **fields)


def check_version(fields: dict[str, Any], name: str, version: int) -> None:
    """Check that a stored thing is of a kind and version that this code reads.

    Raises:
        InferayError: It is not.
    """
    if fields.get("format") != name or fields.get("version", 0) > version:
        raise InferayError(
            f"this is no {name} up to version {version}, but {fields.get('format')} version "
            f"{fields.get('version')}; use the inferay that wrote it",
            code="FormatUnknown",
        )


def write_manifest(
    store: Store, mini_batches: Iterable[list[Unit]], *, root: str, epoch: int,
    types: Mapping[str, Any] | None = None,
) -> Seal:
    """Stream the mini-batches into parts, then seal; return the seal that counts.

    Blocks until durable. Parts of an earlier, unsealed try are garbage: names carry the epoch.

    Args:
        store: Of the job.
        mini_batches: The units of each, in order.
        root: What the units' paths are relative to.
        epoch: Whose try this is.
        types: Of files that were cut, by path; read when the mini-batches have ended.
    """
    parts: list[Part] = []
    lines: list[str] = []
    first = units = items = part_units = size_bytes = 0

    def end_part() -> None:
        nonlocal first, part_units
        text = "\n".join(lines).encode()
        name = f"manifest/e{epoch}-part-{len(parts):06d}.z"
        store.create(name, zlib.compress(text, 1))
        parts.append(Part(name, first, len(lines), part_units, hashlib.sha256(text).hexdigest()))
        first += len(lines)
        lines.clear()
        part_units = 0

    for mini_batch in mini_batches:
        lines.append(_encode(units_to_json(mini_batch)))
        part_units += len(mini_batch)
        units += len(mini_batch)
        for unit in mini_batch:
            if unit.rows is None:
                size_bytes += unit.size_bytes
                items += 1
            else:
                size_bytes += unit.size_bytes if unit.rows[0] == 0 else 0   # once for its file
                items += unit.items
        if part_units >= PART_UNITS:
            end_part()
    if lines:
        end_part()
    types_name = types_sha256 = ""
    if types:
        text = json.dumps(types, sort_keys=True).encode()
        types_name, types_sha256 = f"manifest/e{epoch}-types.z", hashlib.sha256(text).hexdigest()
        store.create(types_name, zlib.compress(text, 1))
    content = "".join(part.sha256 for part in parts) + types_sha256
    seal = Seal(
        root, tuple(parts), first, units, items, size_bytes, types_name, types_sha256,
        hashlib.sha256(content.encode()).hexdigest(),
    )
    try:
        store.create(SEAL, seal.to_bytes())
    except FileExistsError:
        return read_seal(store)
    return seal


def read_seal(store: Store) -> Seal:
    """Return the seal.

    Raises:
        FileNotFoundError: The manifest is not sealed yet.
    """
    return Seal.from_bytes(store.read(SEAL))


class ManifestReader:
    """Random access to mini-batches, a part at a time; not for more than one thread."""

    def __init__(self, store: Store, seal: Seal) -> None:
        self.seal = seal
        self._store = store
        self._firsts = [part.first for part in seal.parts]
        self._lines: OrderedDict[int, list[str]] = OrderedDict()
        self._types: dict[str, Any] | None = None

    def mini_batch(self, index: int) -> list[Unit]:
        """Return the units of a mini-batch, in order.

        Raises:
            IndexError: There is no such mini-batch.
            InferayError: The part does not have the content that was sealed.
        """
        if not 0 <= index < self.seal.mini_batches:
            raise IndexError(f"no mini-batch {index} of {self.seal.mini_batches}")
        number = bisect.bisect_right(self._firsts, index) - 1
        lines = self._lines.get(number) or self._load(number)
        return units_from_json(json.loads(lines[index - self._firsts[number]]))

    def units(self) -> Iterator[Unit]:
        """Yield all units, in order, a part at a time.

        Raises:
            InferayError: A part does not have the content that was sealed.
        """
        for index in range(self.seal.mini_batches):
            yield from self.mini_batch(index)

    @property
    def types(self) -> Mapping[str, Any]:
        """The types of files that were cut, by path.

        Raises:
            InferayError: They do not have the content that was sealed.
        """
        if self._types is None:
            name, sha256 = self.seal.types, self.seal.types_sha256
            self._types = json.loads(self._read(name, sha256)) if name else {}
        return self._types or {}

    def _read(self, name: str, sha256: str) -> bytes:
        try:
            text = zlib.decompress(self._store.read(name))
        except zlib.error:
            text = b""   # no part is empty
        if hashlib.sha256(text).hexdigest() != sha256:
            raise InferayError(
                f"the manifest part {name} is damaged: its checksum is not the sealed one; "
                "invoke the endpoint again",
                code="ManifestDamaged",
            )
        return text

    def _load(self, number: int) -> list[str]:
        part = self.seal.parts[number]
        lines = self._read(part.name, part.sha256).decode().split("\n")
        self._lines[number] = lines
        if len(self._lines) > PARTS_IN_MEMORY:
            self._lines.popitem(last=False)
        return lines

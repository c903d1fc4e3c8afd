from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from inferay.engine.batch.inputs import Inputs
from inferay.engine.batch.listing import list_folder
from inferay.engine.batch.split.plan import Limits, TablePlan
from inferay.engine.batch.split.sources import Sources
from inferay.engine.batch.units import Unit, pieces_of
from inferay.engine.sizes import BatchSize


class Cut:
    """A folder of tables, cut into mini-batches."""

    def __init__(
        self, folder: Path, size: BatchSize, *, kind: str = "pandas", is_cut: bool = True
    ) -> None:
        plan = TablePlan(Sources(str(folder)), kind, is_cut=is_cut, limits=Limits.of(size))
        self.mini_batches = list(plan.mini_batches(list_folder(str(folder))))
        self.types = plan.types
        self.inputs = Inputs(str(folder), kind, plan.types.get)

    @property
    def units(self) -> list[Unit]:
        return [unit for units in self.mini_batches for unit in units]

    def tables(self, mini_batches: Iterable[int] | None = None) -> list[Any]:
        """Return the tables of the mini-batches, of all by default."""
        chosen = range(len(self.mini_batches)) if mini_batches is None else mini_batches
        return [
            table for index in chosen
            for table, _ in self.inputs.tables(pieces_of(self.mini_batches[index]))
        ]

    def frame(self) -> pandas.DataFrame:
        """Return all rows as one pandas table."""
        found: pandas.DataFrame = pandas.concat(self.tables(), ignore_index=True)
        return found


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Callable[..., Cut]]:
    """Write files of given contents into a folder, and cut them."""
    made: list[Cut] = []

    def cut_files(
        size: BatchSize, *, kind: str = "pandas", is_cut: bool = True, **files: bytes
    ) -> Cut:
        folder = tmp_path / f"input{len(made)}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        made.append(Cut(folder, size, kind=kind, is_cut=is_cut))
        return made[-1]

    yield cut_files
    for one in made:
        one.inputs.close()

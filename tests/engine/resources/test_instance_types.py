from __future__ import annotations

import pytest

from inferay.engine.resources import INSTANCE_TYPES, InstanceType, gpu_share, instance_type
from inferay.errors import InvalidInput


def test_a_type_is_found_whatever_its_case() -> None:
    found = instance_type("STANDARD_DS3_V2")
    assert (found.name, found.cpus, found.gpus) == ("Standard_DS3_v2", 4, 0)
    assert found.memory_bytes == 14 * 1024**3


def test_every_row_makes_sense() -> None:
    for name, row in INSTANCE_TYPES.items():
        assert row.name == name
        assert row.cpus >= 1
        assert row.memory_bytes >= 1024**3
        assert 0 < row.price_per_hour_usd < 100
        assert (row.gpus > 0) == name.startswith(("Standard_NC", "Standard_ND"))


def test_own_types_win_over_the_table() -> None:
    own = InstanceType("standard_ds3_v2", 1, 1024**3, 0, 0.0)
    assert instance_type("Standard_DS3_v2", {"standard_ds3_v2": own}) is own
    assert instance_type("Desktop", {"desktop": own}) is own


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"'Standard_DS3v2'; did you mean 'Standard_DS3_v2'"):
        instance_type("Standard_DS3v2")
    with pytest.raises(InvalidInput, match=r"^unknown instance type 'x{59}…'$"):
        instance_type("x" * 10_000)


@pytest.mark.parametrize(("gpus", "workers", "share"), [
    (0, 3, 0.0), (1, 1, 1.0), (1, 2, 0.5), (1, 3, 0.3333), (4, 1, 4.0), (4, 2, 2.0),
    (4, 3, 1.0),   # Ray has no 1.33 GPUs
    (2, 3, 0.5),   # nor 0.67 of one for three workers: two of them lie on one
    (8, 8, 1.0), (4, 6, 0.5),
])
def test_the_workers_of_an_instance_share_its_gpus_so_that_all_fit(
    gpus: int, workers: int, share: float
) -> None:
    assert gpu_share(gpus, workers) == share
    free = [1.0] * gpus
    for _ in range(workers if gpus else 0):
        if share >= 1:
            assert len(free) >= share
            del free[: int(share)]
        else:
            at = next(i for i, left in enumerate(free) if left >= share - 1e-9)
            free[at] -= share

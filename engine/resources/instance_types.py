"""What an instance type stands for: CPUs, memory, GPUs and a price.

One frozen table of common Azure sizes; a configuration adds to it or overrides it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from inferay.engine.resources.wording import shown
from inferay.errors import InvalidInput, nearest

_GIB = 1024**3


@dataclass(frozen=True)
class InstanceType:
    """The size and the price of one instance.

    Attributes:
        price_per_hour_usd: About the list price for Linux in one US region, pay as you go, to
            estimate with; it changes and differs by region. Pass `extra` to `instance_type()`
            to set your own.
    """

    name: str
    cpus: int
    memory_bytes: int
    gpus: int
    price_per_hour_usd: float


def _table(*rows: tuple[str, int, float, int, float]) -> Mapping[str, InstanceType]:
    return MappingProxyType(
        {
            name: InstanceType(name, cpus, int(memory_gib * _GIB), gpus, price)
            for name, cpus, memory_gib, gpus, price in rows
        }
    )


#: name, CPUs, memory in GiB, GPUs, USD per hour (approximate list prices)
INSTANCE_TYPES = _table(
    ("Standard_DS1_v2", 1, 3.5, 0, 0.07),
    ("Standard_DS2_v2", 2, 7, 0, 0.15),
    ("Standard_DS3_v2", 4, 14, 0, 0.29),
    ("Standard_DS4_v2", 8, 28, 0, 0.58),
    ("Standard_DS5_v2", 16, 56, 0, 1.17),
    ("Standard_DS11_v2", 2, 14, 0, 0.19),
    ("Standard_DS12_v2", 4, 28, 0, 0.37),
    ("Standard_D2_v2", 2, 7, 0, 0.15),
    ("Standard_D2s_v3", 2, 8, 0, 0.10),
    ("Standard_D4s_v3", 4, 16, 0, 0.19),
    ("Standard_D8s_v3", 8, 32, 0, 0.38),
    ("Standard_D16s_v3", 16, 64, 0, 0.77),
    ("Standard_D2s_v5", 2, 8, 0, 0.10),
    ("Standard_D4s_v5", 4, 16, 0, 0.19),
    ("Standard_D8s_v5", 8, 32, 0, 0.38),
    ("Standard_D16s_v5", 16, 64, 0, 0.77),
    ("Standard_E2s_v3", 2, 16, 0, 0.13),
    ("Standard_E4s_v3", 4, 32, 0, 0.25),
    ("Standard_E8s_v3", 8, 64, 0, 0.50),
    ("Standard_F2s_v2", 2, 4, 0, 0.08),
    ("Standard_F4s_v2", 4, 8, 0, 0.17),
    ("Standard_F8s_v2", 8, 16, 0, 0.34),
    ("Standard_F16s_v2", 16, 32, 0, 0.68),
    ("Standard_NC6s_v3", 6, 112, 1, 3.06),
    ("Standard_NC12s_v3", 12, 224, 2, 6.12),
    ("Standard_NC24s_v3", 24, 448, 4, 12.24),
    ("Standard_NC4as_T4_v3", 4, 28, 1, 0.53),
    ("Standard_NC8as_T4_v3", 8, 56, 1, 0.75),
    ("Standard_NC16as_T4_v3", 16, 110, 1, 1.20),
    ("Standard_NC64as_T4_v3", 64, 440, 4, 4.35),
    ("Standard_NC24ads_A100_v4", 24, 220, 1, 3.67),
    ("Standard_NC48ads_A100_v4", 48, 440, 2, 7.35),
    ("Standard_NC96ads_A100_v4", 96, 880, 4, 14.69),
    ("Standard_ND40rs_v2", 40, 672, 8, 22.03),
    ("Standard_NC40ads_H100_v5", 40, 320, 1, 6.98),
    ("Standard_NC80adis_H100_v5", 80, 640, 2, 13.96),
)  # fmt: skip


def instance_type(name: str, extra: Mapping[str, InstanceType] | None = None) -> InstanceType:
    """Return the instance type of this name, whatever its case; `extra` wins over the table.

    Raises:
        InvalidInput: No such type is known.
    """
    known = {**INSTANCE_TYPES, **(extra or {})}
    by_lower = {key.lower(): value for key, value in INSTANCE_TYPES.items()}
    by_lower |= {key.lower(): value for key, value in (extra or {}).items()}
    found = by_lower.get(name.lower())
    if found is None:
        names = {key.lower(): key for key in known}
        hint = nearest(name.lower(), names) if len(name) < 100 else ""
        for lower, written in names.items():
            hint = hint.replace(f"'{lower}'", f"'{written}'")
        raise InvalidInput(f"unknown instance type {shown(name)}{hint}", target="instance_type")
    return found


def gpu_share(gpus: int, workers: int) -> float:
    """Return what each of an instance's workers asks of its GPUs so that all of them fit.

    A share of one GPU, or whole ones: Ray knows no other amounts, nor a share over two GPUs.
    """
    if gpus >= workers:
        return float(gpus // workers)
    sharing = -(-workers // gpus) if gpus else 0   # workers on one GPU, rounded up
    # Ray counts in ten-thousandths; rounded up, three thirds would be more than one GPU.
    return math.floor(10_000 / sharing) / 10_000 if sharing else 0.0

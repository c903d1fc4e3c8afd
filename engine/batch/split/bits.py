"""Sets of positions as bits, 64 to a word: what a scan does to all bytes of a chunk at once.

Position 0 is the lowest bit of the first word; bits beyond the last position are 0 or meaningless
as each function says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint64]
Positions = NDArray[np.int64]

_ONE = np.uint64(1)
_LAST = np.uint64(63)


def pack(flags: NDArray[np.bool_]) -> Mask:
    """Return the positions whose flag is set."""
    packed = np.packbits(flags, bitorder="little")
    words = np.zeros(-(-len(packed) // 8), np.uint64)
    words.view(np.uint8)[: len(packed)] = packed
    return words


def positions(mask: Mask) -> Positions:
    """Return the positions in ascending order."""
    octets = mask.view(np.uint8)
    filled = np.flatnonzero(octets != 0)   # most are empty: only the others are unpacked
    at = np.flatnonzero(np.unpackbits(octets[filled], bitorder="little").view(np.bool_))
    found: Positions = (filled[at >> 3] << 3) | (at & 7)
    return found


def later(mask: Mask) -> Mask:
    """Return the positions, each one later."""
    moved = mask << _ONE
    moved[1:] |= mask[:-1] >> _LAST
    return moved


def earlier(mask: Mask) -> Mask:
    """Return the positions, each one earlier."""
    moved = mask >> _ONE
    moved[:-1] |= mask[1:] << _LAST
    return moved


def prefix_parity(mask: Mask) -> Mask:
    """Return where an odd number of positions lie at or before; goes on beyond the end."""
    parity = mask.copy()
    for step in (1, 2, 4, 8, 16, 32):
        parity ^= parity << np.uint64(step)
    carry = np.bitwise_xor.accumulate(parity >> _LAST)
    parity[1:] ^= np.uint64(0) - carry[:-1]
    return parity


def is_odd(parity: Mask) -> bool:
    """Return whether `prefix_parity` of the mask ends odd."""
    return bool(parity[-1] >> _LAST) if len(parity) else False


def first(mask: Mask, stop: int) -> Mask:
    """Return the positions below `stop`."""
    kept = mask.copy()
    word, bit = divmod(stop, 64)
    if word < len(kept):
        kept[word] &= (_ONE << np.uint64(bit)) - _ONE
        kept[word + 1 :] = 0
    return kept


def without(mask: Mask, left_out: list[int]) -> Mask:
    """Return the positions other than those."""
    kept = mask.copy()
    at = np.array(left_out, np.uint64)
    np.bitwise_and.at(kept, (at >> np.uint64(6)).astype(np.int64), ~(_ONE << (at & _LAST)))
    return kept

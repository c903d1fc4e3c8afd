"""Some CPU time per file: about 5 ms, as a small image model takes; the file says how much."""

import hashlib
import os

#: Rounds of PBKDF2 in about 1 ms of one core.
ROUNDS_PER_MS = 1_800


def init():
    pass


def run(mini_batch):
    rows = []
    for path in mini_batch:
        with open(path) as file:
            milliseconds = float(file.read())
        rounds = max(1, int(milliseconds * ROUNDS_PER_MS))
        digest = hashlib.pbkdf2_hmac("sha256", path.encode(), b"salt", rounds)
        rows.append(f"{os.path.basename(path)} {digest[:4].hex()}")
    return rows

"""Waits 10 ms for each file, as for a device that computes, so that the machine's cores are free.

In w7 the object store and what delays it run on the same two cores, where a script that computes
would be in their way.
"""

import os
import time

DEVICE_S = 0.01


def init():
    pass


def run(mini_batch):
    rows = []
    for path in mini_batch:
        with open(path) as file:
            text = file.read()
        time.sleep(DEVICE_S)
        rows.append(f"{os.path.basename(path)} {len(text)}")
    return rows

"""Send real images to an online endpoint, a request each, and count who answered, and how well.

`python send.py ENDPOINT DATA --ca CA.pem`: DATA is what `../digits/prepare.py` wrote.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from inferay import Client

#: Requests under way at once.
CALLERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("data", type=Path)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--ca", help="file with the CA to trust, if it is not a public one")
    options = parser.parse_args()
    with Client() as client:
        uri = client.online_endpoints.get(options.endpoint).scoring_uri
        key = client.online_endpoints.get_keys(options.endpoint)["primaryKey"]
    images = itertools.islice(itertools.cycle(labelled(options.data)), options.requests)
    answered: Counter[str] = Counter()
    right: Counter[str] = Counter()
    with httpx.Client(
        headers={"Authorization": f"Bearer {key}"},
        verify=ssl.create_default_context(cafile=options.ca),
    ) as http, ThreadPoolExecutor(CALLERS) as callers:
        def ask(image: tuple[list[int], int]) -> tuple[str, bool]:
            answer = http.post(str(uri), json={"images": [image[0]]}).raise_for_status()
            return answer.headers["azureml-model-deployment"], answer.json()[0]["digit"] == image[1]

        for deployment, is_right in callers.map(ask, images):
            answered[deployment] += 1
            right[deployment] += is_right
    for deployment, count in answered.most_common():
        print(f"{deployment} answered {count} of {options.requests} requests "
              f"({count / options.requests:.1%}), {right[deployment] / count:.1%} of them right")


def labelled(data: Path) -> Iterator[tuple[list[int], int]]:
    """Yield the pixels and the digit of each image to score."""
    with open(data / "labels.csv", newline="") as labels:
        for row in csv.DictReader(labels):
            file = data / "images" / row["file"]
            if file.exists():
                yield list(file.read_bytes()[-64:]), int(row["digit"])


if __name__ == "__main__":
    main()

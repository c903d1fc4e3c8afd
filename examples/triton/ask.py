"""Asks the endpoint for the types of files, as Triton's users do.

    python ask.py SCORING_URI KEY FILE…

SSL_CERT_FILE names the certificate of the workspace's own authority.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from pathlib import Path

import gevent.ssl
import numpy as np
import tritonclient.http
from prepare import features  # type: ignore[import-not-found]  # beside this file


def context() -> gevent.ssl.SSLContext:
    """Return what checks the server's certificate."""
    found = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.load_verify_locations(os.environ["SSL_CERT_FILE"])
    return found


def main() -> None:
    """Print each file's type."""
    uri, key, *files = sys.argv[1:]
    url = uri.removeprefix("https://").removesuffix("/score")
    labels = json.loads(Path("labels.json").read_text())
    client = tritonclient.http.InferenceServerClient(
        url, ssl=True, ssl_context_factory=context
    )
    for file in files:
        row = np.array([features(Path(file).read_bytes())], np.int32)
        tensor = tritonclient.http.InferInput("bytes", list(row.shape), "INT32")
        tensor.set_data_from_numpy(row)
        found = client.infer("magika", [tensor], headers={"Authorization": f"Bearer {key}"})
        print(f"{file}: {labels[found.as_numpy('target_label')[0].argmax()]}")


if __name__ == "__main__":
    main()

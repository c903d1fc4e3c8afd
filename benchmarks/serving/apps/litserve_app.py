"""LitServe. Arguments: port, worker processes, processes that answer HTTP."""

# No `from __future__ import annotations`: LitServe reads the type of a request from its hook.
import os
import sys
from typing import Any

import litserve as ls

from benchmarks.serving import models


class Scorer(ls.LitAPI):
    """The model behind LitServe's hooks; none of them changes anything."""

    def setup(self, device: str) -> None:
        """Load the model, once per worker."""
        self.model = models.load(os.environ["MODEL"])

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take the JSON as it is."""
        return request

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        """Score."""
        return self.model(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Give the JSON as it is."""
        return output


if __name__ == "__main__":
    port, workers, servers = (int(one) for one in sys.argv[1:])
    server = ls.LitServer(
        Scorer(api_path="/score"), accelerator="cpu", workers_per_device=workers,
        fast_queue=True, timeout=30,
    )
    server.run(
        host="127.0.0.1", port=port, num_api_servers=servers, log_level="warning",
        generate_client_file=False,
    )

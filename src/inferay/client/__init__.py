"""The Python client: the same resources, YAML and verbs as the CLI, over the REST API."""

from __future__ import annotations

from inferay.client.client import Client
from inferay.client.jobs import Job

__all__ = ["Client", "Job"]

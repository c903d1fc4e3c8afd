"""The client: one object per kind of resource, entities in and out."""

from __future__ import annotations

from pathlib import Path

from inferay.client.batch import BatchDeployments, BatchEndpoints
from inferay.client.data import DataAssets
from inferay.client.http import Address, Http
from inferay.client.jobs import Jobs
from inferay.client.online import OnlineDeployments, OnlineEndpoints
from inferay.client.resources import Environments, Models, Named
from inferay.engine.resources import Compute, Datastore, Environment, Model
from inferay.errors import InvalidInput


class Client:
    """A connection to a control plane.

    Without arguments it finds the one that `INFERAY_URL`, `INFERAY_TOKEN` and `INFERAY_CA` name,
    else the one that runs in this machine's workspace.

    Raises:
        Unavailable: None runs.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, ca: str | Path | None = None
    ) -> None:
        if url is None:
            address = Address.find()
        elif token is None:
            raise InvalidInput("Client(url, token): a URL needs a token")
        else:
            address = Address(url.rstrip("/"), token, Path(ca) if ca else None, False)
        self.http = Http(address)
        self.jobs = Jobs(self.http)
        self.batch_endpoints = BatchEndpoints(self.http)
        self.batch_deployments = BatchDeployments(self.http)
        self.online_endpoints = OnlineEndpoints(self.http)
        self.online_deployments = OnlineDeployments(self.http)
        self.models = Models(self.http, "models", Model)
        self.data = DataAssets(self.http)
        self.environments = Environments(self.http, "environments", Environment)
        self.datastores = Named(self.http, "datastores", Datastore)
        self.computes = Named(self.http, "computes", Compute)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

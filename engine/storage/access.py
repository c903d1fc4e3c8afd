"""How remote storage is reached: endpoints and credentials, by the URIs that they are for.

An `Access` travels from the control plane to the driver in a file of mode 0600, and from the
driver to its workers in their settings. It never stands in a spec, a journal, a log or an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from inferay.config import ALLOW_VARIABLE
from inferay.errors import InvalidInput


@dataclass(frozen=True)
class Place:
    """A bucket or container, or a prefix in one, and what reaches it.

    What is empty, the standard chain of AWS or Azure gives.

    Attributes:
        prefix: `s3://BUCKET`, `s3://BUCKET/PREFIX`, or `abfs://CONTAINER@ACCOUNT.dfs.ENDPOINT`,
            without a trailing slash.
        endpoint_url: Of the S3 service; "" for AWS's own, or `AWS_ENDPOINT_URL`. Of the Azure
            storage account; "" for the one that the prefix names.
        region: Of the S3 service.
        tenant_id: Of an Azure service principal, as `client_id` and `client_secret`.
    """

    prefix: str
    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    account_key: str = field(default="", repr=False)
    sas_token: str = field(default="", repr=False)
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)

    def covers(self, uri: str) -> bool:
        """Return whether the URI is the prefix itself, or below it."""
        return uri == self.prefix or uri.startswith(f"{self.prefix}/")


@dataclass(frozen=True)
class Access:
    """The places that one job reaches, and whether private addresses may be read over http(s).

    Without a place for a URI, the standard environment and chain of AWS or Azure hold.
    """

    places: tuple[Place, ...] = ()
    allow_private_addresses: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Access:
        """Return the access of a process without a control plane: AWS's chain alone.

        Raises:
            InvalidInput: `INFERAY_ALLOW_PRIVATE_ADDRESSES` is neither true nor false.
        """
        said = environ.get(ALLOW_VARIABLE, "false").lower()
        if said not in ("true", "false"):
            raise InvalidInput(f"{ALLOW_VARIABLE}: expected true or false, got '{said}'")
        return cls(allow_private_addresses=said == "true")

    def place(self, uri: str) -> Place:
        """Return the place with the longest prefix that covers the URI, or one of no settings."""
        found = [place for place in self.places if place.covers(uri)]
        return max(found, key=lambda place: len(place.prefix), default=Place(uri))

    def only(self, uris: Iterable[str]) -> Access:
        """Return the access that these URIs need, and no more."""
        needed = {self.place(uri) for uri in uris}
        places = tuple(place for place in self.places if place in needed)
        return Access(places, self.allow_private_addresses)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, secrets too, as JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Access:
        """Return the access that `to_dict` described.

        Raises:
            InvalidInput: It lacks a field, or has one too many.
        """
        try:
            places = tuple(Place(**place) for place in data["places"])
            return cls(places, bool(data["allow_private_addresses"]))
        except (KeyError, TypeError):   # not shown: it may hold secrets
            raise InvalidInput("the access to storage is malformed; submit the job again") from None

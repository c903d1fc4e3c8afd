"""What a user's path or URI means, and how it is reached: local folders, S3, Azure and https."""

from inferay.engine.storage.access import Access, Place
from inferay.engine.storage.filesystems import open_filesystem
from inferay.engine.storage.uris import (
    datastore_uri,
    is_bucket,
    is_remote,
    is_uri,
    redacted,
    resolve,
)

__all__ = [
    "Access",
    "Place",
    "datastore_uri",
    "is_bucket",
    "is_remote",
    "is_uri",
    "open_filesystem",
    "redacted",
    "resolve",
]

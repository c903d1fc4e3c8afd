"""A store on S3: conditional puts instead of links, objects instead of logs."""

from __future__ import annotations

from typing import Any

from inferay.engine.batch.multipart import MARK, Multipart
from inferay.engine.batch.remote_store import RemoteStore, new_mark

#: Names that one request deletes (S3's limit).
DELETED_MAX = 1_000


class ObjectStore(RemoteStore):
    """A store of the objects below a prefix of a bucket, on an s3fs file system."""

    mark_name = MARK

    def replace(self, name: str, data: bytes) -> None:
        """See `Store.replace`."""
        self._wait(self.call("put_object", "writing", name, Body=data))

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        self._wait(self.call("delete_object", "deleting", name))

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        names = self.names(prefix.rstrip("/") + "/")
        for first in range(0, len(names), DELETED_MAX):
            self._wait(self._delete(names[first : first + DELETED_MAX]))

    # -- for `Multipart` too

    def uri(self, name: str) -> str:
        """See `RemoteStore.uri`."""
        return f"s3://{self._bucket}/{self._prefix}{name}"

    async def call(self, method: str, doing: str, name: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request about a name.

        Raises:
            FileNotFoundError: There is no such object, or upload.
            FileExistsError: A condition of the request does not hold.
            InferayError: It failed for good; see `retries.named`.
        """
        key = self.key(name)

        async def attempt() -> dict[str, Any]:
            found: dict[str, Any] = await self._filesystem._call_s3(
                method, Bucket=self._bucket, Key=key, **arguments
            )
            return found

        return await self._retry(attempt, f"{doing} {self.uri(name)}")

    async def uploads(self, name: str) -> list[str]:
        """Return the ids of the uploads for a name that are under way."""
        key = self.key(name)

        async def attempt() -> list[str]:
            found = await self._filesystem._call_s3(
                "list_multipart_uploads", Bucket=self._bucket, Prefix=key
            )
            return [one["UploadId"] for one in found.get("Uploads", ()) if one["Key"] == key]

        return await self._retry(attempt, f"listing uploads of {self.uri(name)}")

    async def head(self, name: str) -> dict[str, str] | None:
        """See `RemoteStore.head`."""
        try:
            found = await self.call("head_object", "looking for", name)
        except FileNotFoundError:
            return None
        metadata: dict[str, str] = found.get("Metadata", {})
        return metadata

    # -- inside

    def _upload(self, name: str) -> Multipart:
        return Multipart(self, name, new_mark())

    async def _refresh(self) -> None:
        await self._filesystem.set_session(refresh=True)

    async def _create(self, name: str, data: bytes) -> None:
        mark = new_mark()
        try:
            await self.call(
                "put_object", "writing", name, Body=data, IfNoneMatch="*", Metadata={MARK: mark}
            )
        except FileExistsError:
            if not await self.is_marked(name, mark):
                raise FileExistsError(f"{self.uri(name)} exists already") from None

    async def _read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and stop <= start:
            return b""
        last = "" if stop is None else stop - 1
        span = {} if (start, stop) == (0, None) else {"Range": f"bytes={start}-{last}"}
        key = self.key(name)

        async def attempt() -> bytes:
            try:
                answer = await self._filesystem._call_s3(
                    "get_object", Bucket=self._bucket, Key=key, **span
                )
            except OSError as error:
                if _code(error) == "InvalidRange":   # it ends before `start`
                    return b""
                raise
            async with answer["Body"] as body:
                data: bytes = await body.read()
                return data

        return await self._retry(attempt, f"reading {self.uri(name)}")

    async def _names(self, prefix: str) -> list[str]:
        found: list[str] = []
        arguments: dict[str, str] = {}
        while True:
            page = await self._page(prefix, arguments)
            found += [one["Key"].removeprefix(self._prefix) for one in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return found
            arguments = {"ContinuationToken": page["NextContinuationToken"]}

    async def _page(self, prefix: str, arguments: dict[str, str]) -> dict[str, Any]:
        key = self.key(prefix)

        async def attempt() -> dict[str, Any]:
            page: dict[str, Any] = await self._filesystem._call_s3(
                "list_objects_v2", Bucket=self._bucket, Prefix=key, **arguments
            )
            return page

        return await self._retry(attempt, f"listing {self.uri(prefix)}")

    async def _delete(self, names: list[str]) -> None:
        listed = {"Objects": [{"Key": self.key(name)} for name in names], "Quiet": True}

        async def attempt() -> None:
            answer = await self._filesystem._call_s3(
                "delete_objects", Bucket=self._bucket, Delete=listed
            )
            for error in answer.get("Errors", ()):
                raise ConnectionError(f"{error['Key']}: {error.get('Code')}")

        await self._retry(attempt, f"deleting {len(names)} objects of s3://{self._bucket}")


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))

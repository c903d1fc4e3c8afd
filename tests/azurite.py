"""Azure's blob storage for tests: Microsoft's emulator, Azurite, in memory on a free port.

    npm install --prefix .azurite azurite@3.35.0

    with started() as server:
        container = server.make_container()   # container.uri, container.access

It is stopped by its process, and dies with the tests. Gaps that are its own, not Azure's: names are
listed in the order of JavaScript's strings.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from inferay.engine.storage import Access, Place, open_filesystem
from tests.radosgw import die_with_parent

ACCOUNT = "inferaytests"
ACCOUNT_KEY = "aW5mZXJheS1pbmZlcmF5LWluZmVyYXktaW5mZXJheS0="

START_S = 60.0


@dataclass(frozen=True)
class Container:
    """A container of the server, or the same one through something in front of the server."""

    uri: str
    access: Access

    @property
    def place(self) -> Place:
        """What reaches it."""
        return self.access.places[0]

    @property
    def name(self) -> str:
        """Its name."""
        return self.uri.removeprefix("abfs://").partition("@")[0]

    def through(self, endpoint_url: str) -> Container:
        """Return the container as it is reached at another address, such as a fault proxy's."""
        place = replace(self.place, endpoint_url=f"{endpoint_url}/{ACCOUNT}")
        return Container(self.uri, Access((place,)))

    def put(self, blobs: dict[str, bytes]) -> None:
        """Put these blobs, by name."""
        filesystem, _ = open_filesystem(self.uri, self.access)

        async def put(name: str, data: bytes) -> None:
            client: Any = filesystem.service_client.get_blob_client(self.name, name)
            await client.upload_blob(data, overwrite=True)

        for name, data in blobs.items():
            sync(filesystem.loop, put, name, data)

    def blobs(self, prefix: str = "") -> dict[str, bytes]:
        """Return the content of every blob, by name."""
        filesystem, _ = open_filesystem(self.uri, self.access)

        async def read() -> dict[str, bytes]:
            container = filesystem.service_client.get_container_client(self.name)
            names = [name async for name in container.list_blob_names(name_starts_with=prefix)]
            return {
                name: await (await container.download_blob(name)).readall() for name in names
            }

        found: dict[str, bytes] = sync(filesystem.loop, read)
        return found


@dataclass
class Azurite:
    """A running emulator.

    Attributes:
        port: On 127.0.0.1.
    """

    port: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def account_url(self) -> str:
        """The URL of its storage account."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def make_container(self) -> Container:
        """Return a new, empty container."""
        name = f"container-{next(self._numbers):04d}"
        uri = f"abfs://{name}@{ACCOUNT}.dfs.127.0.0.1:{self.port}"
        place = Place(uri, endpoint_url=self.account_url, account_key=ACCOUNT_KEY)
        container = Container(uri, Access((place,)))
        filesystem, _ = open_filesystem(uri, container.access)
        sync(filesystem.loop, filesystem.service_client.create_container, name)
        return container


def program() -> str | None:
    """Return the emulator's program, from the checkout or the PATH."""
    local = Path(__file__).parent.parent / ".azurite" / "node_modules" / ".bin"
    return shutil.which("azurite-blob", path=f"{local}{os.pathsep}{os.environ['PATH']}")


@contextlib.contextmanager
def started() -> Iterator[Azurite]:
    """Run an emulator until the block ends; what it held is gone then.

    Raises:
        RuntimeError: It did not start; the message has the last lines that it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(program()), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent",
        "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry",
    ]
    with tempfile.TemporaryDirectory(prefix="azurite-") as folder:
        said = Path(folder, "out")
        with open(said, "wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder,
                env=os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"},
                preexec_fn=die_with_parent,
            )
        try:
            _wait_for(process, port, said)
            yield Azurite(port)
        finally:
            process.kill()   # all that it holds is in memory
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    until_s = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), START_S).close()
            return
        if process.poll() is not None or time.monotonic() > until_s:
            lines = said.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"Azurite did not start: {lines}")
        time.sleep(0.05)

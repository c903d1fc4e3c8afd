"""A real S3 server for tests: Ceph's gateway over one monitor and one store in memory.

Packages: radosgw ceph-mon ceph-osd ceph-common. Everything listens on free ports of 127.0.0.1 and
lies in a folder of its own; what is started is stopped by its process. Starting takes about 10 s.

    with started() as server:
        bucket = server.make_bucket()   # bucket.uri, bucket.access

Gaps that are its own, not S3's: CompleteMultipartUpload ignores If-None-Match; If-Match with a
quoted ETag is refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferay.engine.storage import Access, Place, open_filesystem

PROGRAMS = ("radosgw", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool")

ACCESS_KEY_ID = "inferay"
SECRET_ACCESS_KEY = "inferay-secret"

_PR_SET_PDEATHSIG = 1

#: A step of the start that takes longer has failed.
STEP_S = 60.0

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
[mon.a]
mon data = {folder}/mon
mon addr = 127.0.0.1:{mon1}
mon data avail crit = 1
[osd]
osd data = {folder}/osd0
osd objectstore = memstore
memstore device bytes = 4294967296
osd max object name len = 460
osd max object namespace len = 64
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw dns name = localhost
rgw thread pool size = 64
rgw num rados handles = 1
rgw enable apis = s3, admin
rgw lc debug interval = -1
"""


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server, or the same one through something in front of the server."""

    uri: str
    access: Access

    def through(self, endpoint_url: str) -> Bucket:
        """Return the bucket as it is reached at another address, such as a fault proxy's."""
        return Bucket(self.uri, _access(self.uri, endpoint_url))

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Return the content of every object, by key."""
        filesystem, path = open_filesystem(self.uri, self.access)
        found = filesystem.find(f"{path}/{prefix}")
        return {name.removeprefix(f"{path}/"): filesystem.cat_file(name) for name in found}

    def uploads(self) -> list[str]:
        """Return the keys of multipart uploads that were neither completed nor aborted."""
        filesystem, path = open_filesystem(self.uri, self.access)
        found = filesystem.call_s3("list_multipart_uploads", Bucket=path)
        return [upload["Key"] for upload in found.get("Uploads", [])]


@dataclass
class Server:
    """A running gateway.

    Attributes:
        port: On 127.0.0.1.
    """

    port: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def endpoint_url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def make_bucket(self) -> Bucket:
        """Return a new, empty bucket."""
        name = f"bucket-{next(self._numbers):04d}"
        bucket = Bucket(f"s3://{name}", _access(f"s3://{name}", self.endpoint_url))
        filesystem, _ = open_filesystem(bucket.uri, bucket.access)
        filesystem.call_s3("create_bucket", Bucket=name)
        return bucket


def missing_program() -> str | None:
    """Return the name of a program that is not installed, if any."""
    return next((name for name in PROGRAMS if shutil.which(name) is None), None)


@contextlib.contextmanager
def started() -> Iterator[Server]:
    """Run a server until the block ends; what it held is gone then.

    Raises:
        RuntimeError: It did not start; the message has the last lines that it said.
    """
    folder = Path(tempfile.mkdtemp(prefix="rgw-", dir="/tmp"))   # sockets need a short path
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield _Start(folder, stack).run()


class _Start:
    """The steps of a start; `stack` stops what was begun, in reverse order."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._ports = _free_ports(3)
        self._environ = os.environ | {"CEPH_CONF": f"{folder}/ceph.conf"}

    def run(self) -> Server:
        folder, (mon2, mon1, port) = self._folder, self._ports
        fsid = str(uuid.uuid4())
        for name in ("mon", "osd0"):
            (folder / name).mkdir()
        (folder / "ceph.conf").write_text(_CONFIGURATION.format(
            folder=folder, fsid=fsid, mon1=mon1, mon2=mon2, port=port,
        ))
        keyring = f"{folder}/keyring"
        self._call("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.",
                   "--cap", "mon", "allow *")
        for name in ("client.admin", "client.rgw.a"):
            self._call("ceph-authtool", keyring, "--gen-key", "-n", name,
                       "--cap", "mon", "allow *", "--cap", "osd", "allow *")
        address = f"[v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]"
        self._call("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address,
                   f"{folder}/monmap")
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap",
                   "--keyring", keyring)
        self._begin("ceph-mon", "-i", "a", "-f")
        self._begin_osd()
        gateway = self._begin("radosgw", "-n", "client.rgw.a", "-f")
        self._wait_for(gateway, port)
        self._call("radosgw-admin", "-n", "client.rgw.a", "user", "create", "--uid=inferay",
                   "--display-name=inferay", f"--access-key={ACCESS_KEY_ID}",
                   f"--secret-key={SECRET_ACCESS_KEY}", "--max-buckets=0")
        return Server(port)

    def _begin_osd(self) -> None:
        number, key = str(uuid.uuid4()), self._call("ceph-authtool", "--gen-print-key").strip()
        self._call("ceph", "osd", "new", number, "-i", "-", say=f'{{"cephx_secret": "{key}"}}')
        self._call("ceph-osd", "-i", "0", "--mkfs", "--key", key, "--osd-uuid", number,
                   "--no-mon-config")
        (self._folder / "osd0" / "keyring").write_text(f"[osd.0]\n\tkey = {key}\n")
        self._call("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
        self._begin("ceph-osd", "-i", "0", "-f", "--keyring", f"{self._folder}/osd0/keyring")

    def _call(self, *command: str, say: str = "") -> str:
        done = subprocess.run(
            command, input=say, capture_output=True, text=True, timeout=STEP_S, env=self._environ,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout

    def _begin(self, *command: str) -> subprocess.Popen[bytes]:
        with open(self._folder / f"{command[0]}.out", "wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environ,
                preexec_fn=die_with_parent,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)   # all that it holds is in memory
        return process

    def _wait_for(self, process: subprocess.Popen[bytes], port: int) -> None:
        until_s = time.monotonic() + STEP_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=STEP_S).close()
                return
            if process.poll() is not None or time.monotonic() > until_s:
                said = (self._folder / "radosgw.out").read_text(errors="replace")
                raise RuntimeError(f"radosgw did not start: {said[-2000:]}")
            time.sleep(0.1)


def die_with_parent() -> None:
    """Ask Linux to end this process with the tests, however they end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _access(uri: str, endpoint_url: str) -> Access:
    return Access((Place(
        uri, endpoint_url=endpoint_url, region="us-east-1",
        access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET_ACCESS_KEY,
    ),))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets: list[Any] = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]

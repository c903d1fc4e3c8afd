from __future__ import annotations

import io
import socket
from typing import Any

import pytest

from inferay.engine.storage import Access
from inferay.engine.storage.read_errors import ReadError
from inferay.engine.storage.remote import Found, HttpFile
from inferay.engine.storage.retries import (
    AccessDenied,
    RetryPolicy,
    StorageThrottled,
    StorageUnavailable,
)
from inferay.errors import InferayError, InvalidInput
from tests.http_site import Site

LOCAL = Access(allow_private_addresses=True)
TWICE = RetryPolicy(attempts_max=2, first_wait_s=0.001)
CONTENT = bytes(range(256)) * 40


@pytest.fixture(params=["with ranges", "without ranges"])
def both(request: pytest.FixtureRequest, site: Site) -> Site:
    site.has_ranges = request.param == "with ranges"
    site.files["/a/b%20c.bin"] = CONTENT
    return site


def fetched(remote: HttpFile, expected: Found, file: io.BytesIO) -> bytes:
    remote.fetch(expected, file)
    return file.getvalue()


def test_a_file_has_a_name_a_size_and_a_version(both: Site) -> None:
    assert list(HttpFile(f"{both.url}/a/b%20c.bin?sig=1", LOCAL).list()) == [
        Found("b c.bin", len(CONTENT), '"v1"')
    ]


def test_a_file_is_fetched_whole(both: Site) -> None:
    remote = HttpFile(f"{both.url}/a/b%20c.bin", LOCAL)
    assert fetched(remote, remote.stat("b c.bin"), io.BytesIO()) == CONTENT


def test_a_size_that_is_not_told_is_counted(both: Site) -> None:
    both.tells_size, both.has_ranges = False, False
    remote = HttpFile(f"{both.url}/a/b%20c.bin", LOCAL)
    found = remote.stat("x")
    assert found.size_bytes == len(CONTENT)
    assert fetched(remote, found, io.BytesIO()) == CONTENT


def test_after_a_reset_it_goes_on_or_begins_again(both: Site) -> None:
    remote = HttpFile(f"{both.url}/a/b%20c.bin", LOCAL)
    found = remote.stat("x")
    both.cut_after = [5000, 100]
    assert fetched(remote, found, io.BytesIO()) == CONTENT
    assert both.cut_after == []


def test_what_comes_further_each_time_is_not_given_up(site: Site) -> None:
    site.files["/f"] = CONTENT
    remote = HttpFile(f"{site.url}/f", LOCAL, RetryPolicy(attempts_max=2, first_wait_s=0.001))
    found = remote.stat("f")
    site.cut_after = [1000] * 8
    assert fetched(remote, found, io.BytesIO()) == CONTENT


def test_what_never_comes_further_is_given_up(site: Site) -> None:
    site.files["/f"], site.has_ranges = CONTENT, False
    remote = HttpFile(f"{site.url}/f", LOCAL, RetryPolicy(attempts_max=3, first_wait_s=0.001))
    found = remote.stat("f")
    site.cut_after = [1000] * 99
    with pytest.raises(StorageUnavailable):
        remote.fetch(found, io.BytesIO())
    assert len(site.cut_after) > 80


def test_an_empty_file_is_a_file(site: Site) -> None:
    site.files["/empty"] = b""
    remote = HttpFile(f"{site.url}/empty", LOCAL)
    found = remote.stat("empty")
    assert found.size_bytes == 0
    assert fetched(remote, found, io.BytesIO()) == b""


@pytest.mark.parametrize("etag", ['"v2"', ""])
def test_another_version_is_a_changed_input(site: Site, etag: str) -> None:
    site.files["/f"] = CONTENT
    remote = HttpFile(f"{site.url}/f", LOCAL)
    found = remote.stat("f")
    site.etag = etag
    with pytest.raises(ReadError, match="has changed") as caught:
        remote.fetch(found, io.BytesIO())
    assert caught.value.code == "InputChanged"


@pytest.mark.parametrize("tells_size", [True, False])
@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1]])
def test_another_size_is_not_taken_for_the_file(
    site: Site, tells_size: bool, content: bytes
) -> None:
    site.files["/f"], site.etag = CONTENT, ""
    remote = HttpFile(f"{site.url}/f", LOCAL, TWICE)
    found = remote.stat("f")
    site.files["/f"], site.tells_size = content, tells_size
    with pytest.raises((ReadError, StorageUnavailable)):
        remote.fetch(found, io.BytesIO())


@pytest.mark.parametrize(("status", "error"), [
    (404, ReadError), (410, ReadError), (403, ReadError), (401, AccessDenied), (400, ReadError),
    (503, StorageThrottled), (500, StorageUnavailable),
])
def test_a_status_is_named(site: Site, status: int, error: type[Exception]) -> None:
    site.files["/f"], site.statuses = CONTENT, [status] * 2
    remote = HttpFile(f"{site.url}/f?sig=geheim", LOCAL, TWICE)
    with pytest.raises(error) as caught:
        remote.stat("f")
    assert "geheim" not in str(caught.value)
    assert len(site.asked) == (2 if status >= 500 else 1)


def test_what_passes_is_tried_again(site: Site) -> None:
    site.files["/f"], site.statuses = CONTENT, [503, 500, 429]
    assert HttpFile(f"{site.url}/f", LOCAL).stat("f").size_bytes == len(CONTENT)


@pytest.mark.parametrize("host", [
    "127.0.0.1", "localhost", "localhost.", "2130706433", "0x7f.1", "0177.0.0.1", "127.1",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0",
])
def test_a_private_address_is_never_asked(site: Site, host: str) -> None:
    site.files["/canary"] = CONTENT
    port = site.url.rpartition(":")[2]
    with pytest.raises(InferayError):
        HttpFile(f"http://{host}:{port}/canary", Access(), TWICE).stat("canary")
    assert site.asked == []


def test_a_refusal_says_what_allows_it(site: Site) -> None:
    with pytest.raises(InvalidInput, match="INFERAY_ALLOW_PRIVATE_ADDRESSES=true") as caught:
        HttpFile(f"{site.url}/x?sig=geheim", Access()).stat("x")
    assert caught.value.code == "AddressRefused"
    assert "geheim" not in str(caught.value.as_dict())


def test_a_name_that_answers_otherwise_the_second_time_gains_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/canary"] = CONTENT
    port = int(site.url.rpartition(":")[2])
    answers = ["93.184.216.34", "127.0.0.1"]
    asked = []

    def rebinding(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(
        "inferay.engine.storage.filesystems.CONNECT_TIMEOUT_S", 0.2
    )
    for _ in range(2):
        with pytest.raises(InferayError):
            HttpFile(f"http://rebind.example:{port}/canary", Access(), TWICE).stat("canary")
    assert asked
    assert site.asked == []


def test_a_name_with_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixed(host: str, *arguments: Any, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))
                for address in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", mixed)
    with pytest.raises(InvalidInput, match="not public"):
        HttpFile("http://mixed.example/x", Access()).stat("x")


def test_a_redirect_is_checked_like_any_address(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first host counts as public here; where it leads does not."""
    site.files |= {"/canary": CONTENT, "/away": f"http://127.0.0.2:{site.url[17:]}/canary"}
    public = "inferay.engine.storage.addresses.is_public"
    monkeypatch.setattr(public, lambda address: address == "127.0.0.1")
    with pytest.raises(InvalidInput, match="not public"):
        HttpFile(f"{site.url}/away", Access()).stat("x")
    assert [path for path, _ in site.asked] == ["/away"]


def test_redirects_end(site: Site) -> None:
    site.files["/round"] = f"{site.url}/round"
    with pytest.raises(ReadError):
        HttpFile(f"{site.url}/round", LOCAL).stat("x")
    assert len(site.asked) == 3


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1"):
        HttpFile(uri, LOCAL, TWICE).stat("x")

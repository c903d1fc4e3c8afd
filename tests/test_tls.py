from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from inferay import launcher, tls
from inferay.config import Workspace
from inferay.edge_process import renew_certificate
from inferay.serve.edge.config import EdgeConfig
from inferay.tls import ServerTls, ensure_tls


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "home")
    launcher.prepare(workspace)
    return workspace


def serial(found: ServerTls) -> int:
    return x509.load_pem_x509_certificate(found.certificate.read_bytes()).serial_number


def handshake(workspace: Workspace, found: ServerTls, name: str) -> None:
    """Connect to a server with the certificate, as a strict client that expects the name."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(found.certificate, found.key)
    client = ssl.create_default_context(cafile=str(workspace.ca_certificate))
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with server.wrap_socket(connection, server_side=True) as secure:
                        secure.sendall(b"hello")
                except (ssl.SSLError, ConnectionError):
                    pass   # the client has hung up

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with socket.create_connection(listener.getsockname()) as plain, client.wrap_socket(
                plain, server_hostname=name
            ) as secure:
                assert secure.recv(5) == b"hello"
        finally:
            thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", socket.gethostname()])
def test_a_strict_client_trusts_the_server_under_each_of_its_names(
    workspace: Workspace, name: str
) -> None:
    handshake(workspace, ensure_tls(workspace, "127.0.0.1"), name)


def test_a_strict_client_refuses_another_name_and_another_workspaces_ca(
    workspace: Workspace, tmp_path: Path
) -> None:
    found = ensure_tls(workspace, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(workspace, found, "example.org")
    other = Workspace(tmp_path / "other")
    launcher.prepare(other)
    ensure_tls(other, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(other, found, "localhost")


def test_private_keys_are_the_users_alone(workspace: Workspace) -> None:
    found = ensure_tls(workspace, "0.0.0.0")
    for path in (found.key, workspace.secrets / "ca_key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "PRIVATE KEY" in path.read_text()
    for path in (found.certificate, workspace.ca_certificate):
        assert "PRIVATE KEY" not in path.read_text()
    assert stat.S_IMODE(workspace.secrets.stat().st_mode) == 0o700


def test_a_certificate_that_is_good_is_kept(workspace: Workspace) -> None:
    first = serial(ensure_tls(workspace, "127.0.0.1"))
    assert serial(ensure_tls(workspace, "127.0.0.1")) == first
    assert serial(ensure_tls(workspace, "0.0.0.0")) == first


def test_a_new_host_or_a_near_end_renews_the_certificate_and_keeps_the_ca(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    serials = [serial(ensure_tls(workspace, "127.0.0.1"))]
    ca = workspace.ca_certificate.read_bytes()
    found = ensure_tls(workspace, "inferay.example.org")
    serials.append(serial(found))
    for name in ("inferay.example.org", "digits.inferay.example.org"):
        handshake(workspace, found, name)
    monkeypatch.setattr(tls, "RENEW_DAYS", tls.SERVER_DAYS + 1)
    serials.append(serial(ensure_tls(workspace, "inferay.example.org")))
    assert len(set(serials)) == 3
    assert workspace.ca_certificate.read_bytes() == ca


def test_the_keeper_renews_the_certificate_of_the_edges_host(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ensure_tls(workspace, "inferay.example.org")
    before = serial(found)
    EdgeConfig(
        folder=str(workspace.edge), host="inferay.example.org", port=1, management_host="",
        certificate=str(found.certificate), key=str(found.key), management_port=2, mirror_port=3,
        admin_secret="", registration_key="",
    ).write(workspace.edge / "config.json")
    renew_certificate(workspace)
    assert serial(found) == before
    monkeypatch.setattr(tls, "RENEW_DAYS", tls.SERVER_DAYS + 1)
    renew_certificate(workspace)
    assert serial(found) != before
    handshake(workspace, found, "inferay.example.org")


@pytest.mark.parametrize("lost", ["tls/ca.pem", "secrets/ca_key.pem"])
def test_a_new_ca_signs_a_new_certificate(workspace: Workspace, lost: str) -> None:
    ensure_tls(workspace, "127.0.0.1")
    (workspace.home / lost).unlink()
    handshake(workspace, ensure_tls(workspace, "127.0.0.1"), "localhost")


@pytest.mark.parametrize("damaged", ["tls/server.pem", "secrets/server_key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nMII"])
def test_a_damaged_certificate_or_key_is_made_anew(
    workspace: Workspace, damaged: str, content: bytes | None
) -> None:
    ensure_tls(workspace, "127.0.0.1")
    if content is None:
        (workspace.home / damaged).unlink()
    else:
        (workspace.home / damaged).write_bytes(content)
    handshake(workspace, ensure_tls(workspace, "127.0.0.1"), "localhost")


def test_a_key_that_is_not_the_certificates_is_replaced(workspace: Workspace) -> None:
    """So it is after a crash between the two writes."""
    found = ensure_tls(workspace, "127.0.0.1")
    certificate = found.certificate.read_bytes()
    found.certificate.unlink()
    ensure_tls(workspace, "127.0.0.1")
    found.certificate.write_bytes(certificate)
    handshake(workspace, ensure_tls(workspace, "127.0.0.1"), "localhost")

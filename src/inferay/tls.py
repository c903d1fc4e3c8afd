"""The workspace's own CA and the server's certificate, made at first start.

A client trusts `tls/ca.pem` and nothing else. The CA's key stays in `secrets/`. The server's
certificate names the host that the public port binds to and this machine, and what stands before a
name with a dot: endpoints are called by host name, too. It is made anew when it nears its end or
when it lacks a name.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from inferay.config import Workspace
from inferay.processes import write_private

CA_DAYS = 3650
#: Browsers and Apple's libraries refuse longer ones.
SERVER_DAYS = 390
RENEW_DAYS = 30

#: Clocks differ.
SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class ServerTls:
    """What a server presents: its certificate with the CA's, and its key."""

    certificate: Path
    key: Path


def ensure_tls(workspace: Workspace, host: str) -> ServerTls:
    """Return the server's certificate for this host, made or renewed if need be; idempotent."""
    ca_key_path = workspace.secrets / "ca_key.pem"
    if not (ca_key_path.exists() and workspace.ca_certificate.exists()):
        _make_ca(ca_key_path, workspace.ca_certificate)
    tls = ServerTls(workspace.tls / "server.pem", workspace.secrets / "server_key.pem")
    names = _names(host)
    if not _is_good(tls, names, workspace.ca_certificate):
        _make_server(tls, names, ca_key_path, workspace.ca_certificate)
    return tls


def _make_ca(key_path: Path, certificate_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inferay local CA")])
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(key_path, _key_bytes(key))
    write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))


def _make_server(
    tls: ServerTls, names: list[x509.GeneralName], ca_key_path: Path, ca_path: Path
) -> None:
    ca_key = serialization.load_pem_private_key(ca_key_path.read_bytes(), None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{ca_key_path} holds no elliptic curve key")
    ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inferay")])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    write_private(tls.key, _key_bytes(key))
    pem = serialization.Encoding.PEM
    write_private(tls.certificate, certificate.public_bytes(pem) + ca.public_bytes(pem))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW).not_valid_after(now + timedelta(days=days))
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature, key_cert_sign=key_cert_sign, crl_sign=crl_sign,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )


def _names(host: str) -> list[x509.GeneralName]:
    hosts = {"localhost", "127.0.0.1", "::1", socket.gethostname(), host} - {"", "0.0.0.0", "::"}
    names: list[x509.GeneralName] = []
    for name in sorted(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
            if "." in name:   # clients take no `*.localhost`
                names.append(x509.DNSName(f"*.{name}"))
    return names


def _is_good(tls: ServerTls, names: list[x509.GeneralName], ca_path: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
        key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
        certificate.verify_directly_issued_by(
            x509.load_pem_x509_certificate(ca_path.read_bytes())
        )
    except (FileNotFoundError, ValueError, InvalidSignature):
        return False
    if key.public_key() != certificate.public_key():
        return False
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    is_fresh = certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=RENEW_DAYS)
    return is_fresh and set(names) <= set(found)


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

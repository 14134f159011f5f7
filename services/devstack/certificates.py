"""The local stack's own authority, with a certificate for each server and one for clients."""

import datetime as dt
import ipaddress
import os
import secrets
import ssl
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS: Final = 825
# A certificate that expires sooner is replaced when it is requested.
_RENEWED_BEFORE: Final = dt.timedelta(days=30)
HOSTS: Final = ("localhost", "127.0.0.1", "::1")


class Pair(NamedTuple):
    """A certificate and its key, as files in PEM."""

    certificate: Path
    key: Path


class Tls(NamedTuple):
    """The files of one side of TLS: the authorities that it trusts and its own certificate."""

    authority: Path
    server: Pair
    client: Pair


class ServerTls(NamedTuple):
    """A server's certificate, and the authority by which its clients verify it."""

    authority: Path
    server: Pair

    def context(self) -> ssl.SSLContext:
        """Return the context with which a client verifies the server."""
        return ssl.create_default_context(cafile=self.authority)


class Authority:
    """An authority that signs certificates; created on first use, renewed in time."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        """Read the authority, or create it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.files = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        if not _lasts(self.files):
            self._make(name)
        self._certificate = _certificate(self.files)
        key = serialization.load_pem_private_key(self.files.key.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.files.key} holds another kind of key: remove the folder")
        self._key = key

    @property
    def bundle(self) -> Path:
        """Return the file with the authority's certificate, for those that trust it."""
        return self.files.certificate

    def server(
        self, name: str = "server", hosts: tuple[str, ...] = HOSTS, *, days: int = _DAYS
    ) -> Pair:
        """Return the certificate of a server for some hosts; with `days` of -2 it has expired.

        An existing one is kept unless it is about to expire, is for other hosts, or was signed by a
        former authority.
        """
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._pair(name, ExtendedKeyUsageOID.SERVER_AUTH, names, days)

    def client(self, name: str, *, days: int = _DAYS) -> Pair:
        """Return the certificate of a client with this common name; `days` as for a server."""
        return self._pair(name, ExtendedKeyUsageOID.CLIENT_AUTH, None, days)

    def _pair(
        self,
        name: str,
        use: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
        days: int,
    ) -> Pair:
        files = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        if (
            _lasts(files)
            and _certificate(files).issuer == self._certificate.subject
            and _names(files) == names
        ):
            return files
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, self._certificate.subject, key.public_key(), days)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        _write_key(files.key, key)
        _write(files.certificate, _pem(builder.sign(self._key, hashes.SHA256())))
        return files

    def _make(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # A name of its own: an authority is looked up by it.
        subject = _subject(f"orders devstack {name} {secrets.token_hex(4)}")
        builder = _builder(subject, subject, key.public_key(), 10 * _DAYS)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = builder.add_extension(constraints, critical=True)
        _write_key(self.files.key, key)
        _write(self.files.certificate, _pem(builder.sign(key, hashes.SHA256())))


def _certificate(files: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


def _lasts(files: Pair) -> bool:
    """Return whether a pair exists, is complete and is not about to expire."""
    if not (files.certificate.exists() and files.key.exists()):
        return False
    certificate = _certificate(files)
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    remaining = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return key.public_key() == certificate.public_key() and remaining > _RENEWED_BEFORE


def _names(files: Pair) -> x509.SubjectAlternativeName | None:
    """Return the hosts of a certificate; None for a client's."""
    try:
        extension = _certificate(files).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return None
    return extension.value


def _builder(
    subject: str | x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    first, last = sorted((now - dt.timedelta(days=1), now + dt.timedelta(days=days)))
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(subject) if isinstance(subject, str) else subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    contents = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(path, contents, mode=0o600)


def _write(path: Path, contents: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step, because a server may read it at the same time."""
    scratch = path.with_name(f"{path.name}.part")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(contents)
    scratch.rename(path)

"""The server's certificate and the authority that signed it, renewed together and early.

The authority's key is discarded after it has signed, so it cannot be stolen. The previous authority
stays in the bundle, so that a replica with the older certificate is still trusted.
"""

import datetime as dt
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME: Final = dt.timedelta(days=90)
# A guess: time for people to fix what prevents the renewal.
_RENEW_BEFORE: Final = LIFETIME / 3
_CLOCKS_DIFFER: Final = dt.timedelta(minutes=10)
_KEY_USES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class CertificateAndKey(msgspec.Struct, frozen=True):
    """A certificate, its key, and the authorities to trust (newest first), all in PEM."""

    certificate: str
    key: str
    authorities: str

    def __repr__(self) -> str:
        return "CertificateAndKey(…)"  # a key belongs in no log


def issue(
    names: tuple[str, ...],
    now: dt.datetime,
    previous: CertificateAndKey | None = None,
    lifetime: dt.timedelta = LIFETIME,
) -> CertificateAndKey:
    """Create an authority and a certificate for a server with these names."""
    window = (now - _CLOCKS_DIFFER, now + lifetime)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # A name of its own: the bundle has two of them.
    issuer = _name(f"orderservice-operator {now:%Y-%m-%dT%H:%M:%S.%fZ}")
    authority = _authority(issuer, authority_key, window)
    earlier_authorities = authorities_of(previous)[:1] if previous else []
    return CertificateAndKey(
        certificate=_pem(_leaf(names, key, (authority, authority_key), window)),
        key=_key_pem(key),
        authorities="".join(_pem(certificate) for certificate in (authority, *earlier_authorities)),
    )


def is_due(pair: CertificateAndKey, names: tuple[str, ...], now: dt.datetime) -> bool:
    """Return whether to issue a new one: it expires soon, or is for other names."""
    certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
    return certificate.not_valid_after_utc - now < _RENEW_BEFORE or names != _names(certificate)


def is_sound(pair: CertificateAndKey) -> bool:
    """Return whether a pair is usable: the Secret may have been edited."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        key = serialization.load_pem_private_key(pair.key.encode(), None)
        certificate.verify_directly_issued_by(authorities_of(pair)[0])
    except (ValueError, TypeError, InvalidSignature):
        return False
    return key.public_key() == certificate.public_key()


def authorities_of(pair: CertificateAndKey) -> list[x509.Certificate]:
    """Return the authorities of a bundle."""
    return x509.load_pem_x509_certificates(pair.authorities.encode())


def _authority(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, window: tuple[dt.datetime, dt.datetime]
) -> x509.Certificate:
    builder = _builder(name, name, key.public_key(), window)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_use("key_cert_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    names: tuple[str, ...],
    key: ec.EllipticCurvePrivateKey,
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    window: tuple[dt.datetime, dt.datetime],
) -> x509.Certificate:
    authority, authority_key = signer
    of_authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = _builder(_name("external-metrics"), authority.subject, key.public_key(), window)
    return (
        builder.add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_use("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(of_authority, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    window: tuple[dt.datetime, dt.datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(window[0])
        .not_valid_after(window[1])
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(extension.value.get_values_for_type(x509.DNSName))


def _use(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _KEY_USES})


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()

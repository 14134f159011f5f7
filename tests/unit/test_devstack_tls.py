"""The local stack's own authority and certificates: what is kept, and what is made again."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from devstack import settings, tls
from devstack.certificates import Authority, Pair

MONTH = 30


def contents(pair: Pair) -> tuple[bytes, bytes]:
    return pair.certificate.read_bytes(), pair.key.read_bytes()


def test_a_pair_is_kept_until_it_is_near_its_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ending = contents(authority.server("a", days=MONTH - 1))
    renewed = contents(authority.server("a"))
    assert renewed != ending
    assert contents(Authority(tmp_path).server("a")) == renewed
    assert not list(tmp_path.glob("*.part"))


def of_another_authority(folder: Path) -> None:
    (folder / "authority.pem").unlink()


def without_its_key(folder: Path) -> None:
    (folder / "a.key").unlink()


def with_the_key_of_another(folder: Path) -> None:
    Authority(folder).server("b")
    (folder / "b.key").rename(folder / "a.key")


@pytest.mark.parametrize("spoil", [of_another_authority, without_its_key, with_the_key_of_another])
def test_a_pair_that_could_not_be_used_is_made_again(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    Authority(tmp_path).server("a")
    spoil(tmp_path)
    authority = Authority(tmp_path)
    pair = authority.server("a")
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    own_certificate = x509.load_pem_x509_certificate(authority.bundle.read_bytes())
    certificate.verify_directly_issued_by(own_certificate)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair)


def test_a_pair_for_other_hosts_is_made_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    narrow = contents(authority.server("a", ("localhost",)))
    assert contents(authority.server("a", ("localhost", "orders.test"))) != narrow


def load(state: Path, **environ: str) -> settings.Settings:
    return settings.load({"DEVSTACK_STATE": str(state), "DEVSTACK_TLS": "1", **environ})


def test_the_gateway_s_certificate_is_for_the_address_that_it_listens_on(tmp_path: Path) -> None:
    tls.prepare(load(tmp_path, DEVSTACK_GATEWAY_HOST="192.0.2.7"))
    certificates = {
        name: x509.load_pem_x509_certificate((tmp_path / tls.FOLDER / f"{name}.pem").read_bytes())
        for name in tls.SERVERS
    }
    named = {
        name: {
            str(host.value)
            for host in certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
        }
        for name, certificate in certificates.items()
    }
    local = {"localhost", "127.0.0.1", "::1"}
    assert named.pop("gateway") == {*local, "192.0.2.7"}
    assert list(named.values()) == [local] * (len(tls.SERVERS) - 1)


def test_what_the_user_trusts_stays_trusted(tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").bundle
    state = tmp_path / "state"
    loaded = load(state, SSL_CERT_FILE=str(other))
    tls.prepare(loaded)
    variables = tls.of_shell(loaded)
    assert set(variables.values()) == {str(tls.trusted_file(loaded))}
    trusted = tls.trusted_file(loaded).read_bytes()
    assert len(x509.load_pem_x509_certificates(trusted)) == 2
    # As in a shell that has the variables of the stack already.
    pair = load(state, SSL_CERT_FILE=variables["SSL_CERT_FILE"])
    tls.prepare(pair)
    assert tls.authority_file(pair).read_bytes() in tls.trusted_file(pair).read_bytes()


def test_processes_trust_others_only_where_a_server_is_the_user_s_own(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert tls.variables(loaded)["SSL_CERT_FILE"] == str(tls.authority_file(loaded))
    own = load(tmp_path, ORDERS_AUTH_JWKS_URL="https://login.example/keys")
    assert tls.variables(own)["REQUESTS_CA_BUNDLE"] == str(tls.trusted_file(own))


def test_without_tls_nothing_is_made_or_set(tmp_path: Path) -> None:
    loaded = load(tmp_path, DEVSTACK_TLS="0")
    tls.prepare(loaded)
    assert tls.variables(loaded) == tls.of_shell(loaded) == {}
    assert tls.served(loaded, "gateway") is None
    assert list(tmp_path.iterdir()) == []

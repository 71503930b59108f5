import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from structlog.testing import capture_logs

from services.executor.trust import TrustStore, host_bundle


def authority(name: str, *, is_authority: bool = True) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), secret


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "bundle.pem", tmp_path / "store")


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    made = tmp_path / "sandbox"
    made.mkdir()
    return made


def names_in_pem(path: Path) -> set[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return {certificate["subject"][0][0][1] for certificate in context.get_ca_certs()}


def names_in_java(path: Path) -> set[str]:
    found = pkcs12.load_pkcs12(path.read_bytes(), None)
    return {str(entry.certificate.subject.rfc4514_string()) for entry in found.additional_certs}


def test_both_forms_hold_the_bundles_authorities(store: TrustStore, sandbox: Path, tmp_path: Path) -> None:
    (one, _), (two, _) = authority("one"), authority("two")
    (tmp_path / "bundle.pem").write_bytes(b"# a comment\n" + one + two)
    old = os.umask(0o077)
    try:
        store.give(sandbox)
    finally:
        os.umask(old)
    trust = sandbox / "trust"
    assert names_in_pem(trust / "ca.pem") == {"one", "two"}
    assert names_in_java(trust / "java.p12") == {"CN=one", "CN=two"}
    assert sorted(path.name for path in trust.iterdir()) == ["ca.pem", "java.p12"]
    # Programs read it and nobody but the owner writes it, whatever the service's umask is.
    assert (trust.stat().st_mode & 0o777, (trust / "ca.pem").stat().st_mode & 0o777) == (0o755, 0o644)
    assert (trust / "java.p12").stat().st_mode & 0o777 == 0o644


def test_nothing_but_authorities_gets_into_a_sandbox(store: TrustStore, sandbox: Path, tmp_path: Path) -> None:
    (one, secret), (leaf, _) = authority("one"), authority("leaf", is_authority=False)
    assert load_pem_private_key(secret, None)
    (tmp_path / "bundle.pem").write_bytes(secret + b"password: hunter2\n" + leaf + one)
    store.give(sandbox)
    given = (sandbox / "trust" / "ca.pem").read_text()
    assert "PRIVATE" not in given
    assert "hunter2" not in given
    assert names_in_java(sandbox / "trust" / "java.p12") == {"CN=one"}


def test_sandboxes_share_one_copy_and_giving_again_changes_nothing(
    store: TrustStore, sandbox: Path, tmp_path: Path
) -> None:
    (tmp_path / "bundle.pem").write_bytes(authority("one")[0])
    other = tmp_path / "other"
    other.mkdir()
    for directory in (sandbox, other, sandbox):
        store.give(directory)
    files = [directory / "trust" / "ca.pem" for directory in (sandbox, other, tmp_path)][:2]
    assert files[0].samefile(files[1])
    assert sorted(path.name for path in (sandbox / "trust").iterdir()) == ["ca.pem", "java.p12"]


def test_a_changed_bundle_reaches_the_next_start(store: TrustStore, sandbox: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority("one")[0])
    store.give(sandbox)
    earlier = (sandbox / "trust" / "ca.pem").open("rb")
    bundle.write_bytes(authority("two")[0] + authority("three")[0])
    store.give(sandbox)
    assert names_in_pem(sandbox / "trust" / "ca.pem") == {"two", "three"}
    assert names_in_java(sandbox / "trust" / "java.p12") == {"CN=two", "CN=three"}
    # Who had it open reads on.
    with earlier:
        assert earlier.read().count(b"BEGIN") == 1


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_bundle_that_turns_bad_is_told_and_the_earlier_one_stays(
    content: bytes | None, store: TrustStore, sandbox: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority("one")[0])
    store.give(sandbox)
    bundle.unlink()
    if content is not None:
        bundle.write_bytes(content)
    with capture_logs() as lines:
        store.give(sandbox)
    assert [line["event"] for line in lines] == ["the trusted authorities cannot be read"]
    assert names_in_pem(sandbox / "trust" / "ca.pem") == {"one"}


def test_no_bundle_no_files(sandbox: Path, tmp_path: Path) -> None:
    TrustStore(None, tmp_path / "store").give(sandbox)
    TrustStore(tmp_path / "missing.pem", tmp_path / "store").give(sandbox)
    assert list(sandbox.iterdir()) == []


def test_the_hosts_bundle(tmp_path: Path) -> None:
    assert host_bundle({"SSL_CERT_FILE": str(tmp_path / "own.pem")}) == tmp_path / "own.pem"
    found = host_bundle({})
    assert found is None or found.is_file()

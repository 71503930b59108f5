"""The authorities that this machine trusts, given to the programs in its sandboxes.

A machine behind a proxy that opens TLS trusts an authority of its own, which no image can know. What is given is read
by OpenSSL and Go (`ca.pem`) and by Java (`java.p12`); the image has links to both files where these look.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import threading
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12
from cryptography.utils import CryptographyDeprecationWarning

NAME = "trust"
PEM = "ca.pem"
JAVA = "java.p12"
_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

log = structlog.get_logger()


def host_bundle(variables: Mapping[str, str]) -> Path | None:
    """The file of the authorities that this machine's own programs trust; None if it has none in one file."""
    if named := variables.get("SSL_CERT_FILE"):
        return Path(named)
    standard = ssl.get_default_verify_paths().cafile
    candidates = (_SYSTEM_BUNDLE, *([Path(standard)] if standard else []))
    return next((path for path in candidates if path.is_file()), None)


class TrustStore:
    """Both forms of a bundle, made again when the bundle has changed; a sandbox gets hard links to them."""

    def __init__(self, bundle: Path | None, directory: Path) -> None:
        """`directory` is this store's own, on the file system of the sandboxes' socket directories."""
        self._bundle = bundle
        self._directory = directory
        self._made_from: tuple[int, int, int] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Make both forms, which takes a tenth of a second, unless the bundle is still the same.

        A bundle that cannot be read is logged, and what was made before stays.
        """
        with self._lock:
            if self._bundle is not None:
                self._make(self._bundle)

    def give(self, sandbox: Path) -> None:
        """Refresh, and put both into a sandbox's socket directory; nothing if there never was a bundle."""
        self.refresh()
        with self._lock:
            if self._made_from is None:
                return
            target = sandbox / NAME
            target.mkdir(exist_ok=True)
            # Whatever the service's umask is, programs must be able to read it.
            target.chmod(0o755)
            for name in (PEM, JAVA):
                _link(self._directory / name, target / name)

    def _make(self, bundle: Path) -> None:
        try:
            state = bundle.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
            if stamp == self._made_from:
                return
            authorities = read_bundle(bundle)
        except OSError as error:
            log.warning("the trusted authorities cannot be read", path=str(bundle), error=str(error))
            return
        self._directory.mkdir(mode=0o700, exist_ok=True)
        _write(self._directory / PEM, "".join(map(ssl.DER_cert_to_PEM_cert, authorities)).encode("ascii"))
        _write(self._directory / JAVA, java_store(authorities))
        self._made_from = stamp
        log.info("trusted authorities read", path=str(bundle), count=len(authorities))


def read_bundle(path: Path) -> list[bytes]:
    """The authorities of a PEM file in DER form, and nothing else that may stand in it.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=path)
    return context.get_ca_certs(binary_form=True)


def java_store(authorities: Iterable[bytes]) -> bytes:
    """A PKCS #12 trust store without a password, as the JDK's own is."""
    entries = []
    for authority in authorities:
        alias = hashlib.sha256(authority).hexdigest()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                certificate = x509.load_der_x509_certificate(authority)
        except ValueError as error:
            log.warning("an authority is not given to Java", sha256=alias, error=str(error))
            continue
        entries.append(pkcs12.PKCS12Certificate(certificate, alias.encode("ascii")))
    return pkcs12.serialize_java_truststore(entries, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    temporary.write_bytes(content)
    temporary.chmod(0o644)
    temporary.rename(path)


def _link(source: Path, target: Path) -> None:
    """Replace at once: a program may be reading."""
    temporary = target.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    os.link(source, temporary)
    temporary.rename(target)
    # Renaming one name of a file to another of the same file does nothing.
    temporary.unlink(missing_ok=True)

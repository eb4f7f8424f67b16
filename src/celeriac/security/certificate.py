"""Certificates of signers, and the store of those that are trusted.

`signing` looks a message's signer up here. A signer's id is that of Celery: the values of the issuer's attributes and the
serial number, joined by spaces. Invariant: a certificate that has expired verifies nothing, whenever it was loaded.
"""

from __future__ import annotations

import glob
import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from celeriac.errors import SecurityError
from celeriac.security.key import UNREADABLE, pss

__all__ = ["CertStore", "Certificate", "FSCertStore"]

#: A folder is read again at most so often, in seconds, when an unknown signer asks for it.
REREAD = 5.0


class Certificate:
    """An X.509 certificate of a signer.

    Args:
        cert: The certificate in PEM format.

    Raises:
        SecurityError: It can't be read, or its key is neither RSA nor Ed25519.
    """

    def __init__(self, cert: str | bytes) -> None:
        try:
            found = x509.load_pem_x509_certificate(cert.encode() if isinstance(cert, str) else cert)
            # The parts of it are not looked into before they are asked for.
            key, self._serial, self._ends_at = found.public_key(), found.serial_number, found.not_valid_after_utc
            self._issuer = " ".join(str(attribute.value) for attribute in found.issuer)
        except UNREADABLE as exc:
            raise SecurityError("It is no X.509 certificate in PEM format.") from exc
        if not isinstance(key, (rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
            raise SecurityError(f"The key of a certificate is RSA or Ed25519, not {type(key).__name__}.")
        self.public_key = key

    def has_expired(self) -> bool:
        """Whether its time is over."""
        return datetime.now(UTC) >= self._ends_at

    def get_pubkey(self) -> rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
        """Its public key."""
        return self.public_key

    def get_serial_number(self) -> int:
        """Its serial number."""
        return self._serial

    def get_issuer(self) -> str:
        """The values of its issuer's attributes, joined by spaces."""
        return self._issuer

    def get_id(self) -> str:
        """The id of its signer."""
        return f"{self.get_issuer()} {self.get_serial_number()}"

    def verify(self, data: bytes, signature: bytes, digest: hashes.HashAlgorithm) -> None:
        """Check a signature.

        Raises:
            SecurityError: It is not that of `data`, or the certificate has expired.
        """
        if self.has_expired():
            raise SecurityError(f"the certificate of {self.get_id()!r} has expired")
        try:
            if isinstance(self.public_key, ed25519.Ed25519PublicKey):
                self.public_key.verify(signature, data)
            else:
                self.public_key.verify(signature, data, pss(digest), digest)
        except InvalidSignature as exc:
            raise SecurityError(f"bad signature: the message is not as {self.get_id()!r} has signed it") from exc


class CertStore:
    """Certificates that are trusted, by the id of their signer."""

    def __init__(self, certificates: Iterable[Certificate] = ()) -> None:
        self._by_id: dict[str, Certificate] = {}
        for certificate in certificates:
            self.add_cert(certificate)

    def itercerts(self) -> Iterator[Certificate]:
        """All of them."""
        yield from list(self._by_id.values())

    def add_cert(self, cert: Certificate) -> None:
        """Trust a certificate.

        Raises:
            SecurityError: Another one has the same issuer and serial number.
        """
        if self._by_id.setdefault(cert.get_id(), cert).public_key != cert.public_key:
            raise SecurityError(f"Two certificates have the id {cert.get_id()!r}.")

    def __getitem__(self, signer: str) -> Certificate:
        found = self._by_id.get(signer)
        if found is None:
            raise SecurityError(f"unknown signer {signer!r}: no such certificate is trusted here")
        return found


class FSCertStore(CertStore):
    """The certificates in files.

    A signer that is unknown makes it read them again, so that a new key needs no restart.

    Args:
        path: A folder, or a pattern such as "/etc/ssl/celeriac/*.pem".

    Raises:
        SecurityError: There is none, or one of them can't be read or has expired.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = os.path.join(path, "*") if os.path.isdir(path) else path
        self._lock = threading.Lock()
        self._read_at = time.monotonic()
        self._by_id = self._read(strict=True)

    def _read(self, *, strict: bool) -> dict[str, Certificate]:
        found = CertStore()
        files = [file for file in sorted(glob.glob(self._path)) if os.path.isfile(file)]
        for file in files:
            try:
                with open(file, "rb") as opened:
                    certificate = Certificate(opened.read())
                if certificate.has_expired():
                    raise SecurityError(f"The certificate of {certificate.get_id()!r} has expired.")
                found.add_cert(certificate)
            except (OSError, SecurityError) as exc:
                if strict:
                    raise SecurityError(f"{file}, named by security_cert_store: {exc}") from exc
        if strict and not files:
            raise SecurityError(f"security_cert_store names no file: {self._path!r}.")
        return found._by_id

    def __getitem__(self, signer: str) -> Certificate:
        if signer not in self._by_id:
            with self._lock:
                if time.monotonic() - self._read_at >= REREAD:
                    self._read_at = time.monotonic()
                    # One that was trusted stays so until a restart; while they are read, a file may be half written.
                    self._by_id = {**self._by_id, **self._read(strict=False)}
        return super().__getitem__(signer)

"""Keys and certificates that sign themselves."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

__all__ = ["certificate", "key_pem"]


def key_pem(key: Any, password: bytes | None = None) -> bytes:
    """A private key, encrypted if there is a password."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return pem


def certificate(key: Any, name: str = "signer", *, days: float = 1.0, serial: int = 7) -> bytes:
    """A certificate of this key, signed by itself, that is valid for some days from now."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), serial)
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, algorithm)
        .public_bytes(serialization.Encoding.PEM)
    )

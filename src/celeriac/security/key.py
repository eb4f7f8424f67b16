"""The private key that signs: RSA as Celery has it, or Ed25519, which is faster and has shorter signatures.

`signing` asks it for signatures, `certificate` for the algorithm of a digest's name. Whatever is wrong with a key, its
password or a digest ends in `ImproperlyConfigured` or `SecurityError`, with no part of the key in the text.
"""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from celeriac.errors import ImproperlyConfigured, SecurityError, near_match

__all__ = ["UNREADABLE", "PrivateKey", "digest_of", "pss"]

#: What `cryptography` raises for keys and certificates that are damaged, or of kinds that it doesn't know.
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, InternalError, x509.InvalidVersion)

#: Digests by the names of `security_digest`. Those for which collisions can be made are not among them.
DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3_256": hashes.SHA3_256(),
    "sha3_512": hashes.SHA3_512(),
}


def digest_of(name: str) -> hashes.HashAlgorithm:
    """The digest of this name.

    Raises:
        ImproperlyConfigured: It is unknown, or too weak.
    """
    found = DIGESTS.get(str(name).lower())
    if found is None:
        hint = near_match(str(name), DIGESTS)
        raise ImproperlyConfigured(f"security_digest is one of {', '.join(DIGESTS)}, not {name!r}.{hint}")
    return found


def pss(digest: hashes.HashAlgorithm) -> padding.PSS:
    """The padding of RSA signatures, as Celery has it."""
    return padding.PSS(padding.MGF1(digest), padding.PSS.MAX_LENGTH)


class PrivateKey:
    """A private key.

    Args:
        key: The key in PEM format.
        password: What it is encrypted with, if it is.

    Raises:
        SecurityError: It can't be read, or is no RSA or Ed25519 key.
    """

    def __init__(self, key: str | bytes, password: str | bytes | None = None) -> None:
        self._key = _loaded(_bytes(key), None if password is None else _bytes(password))

    @property
    def public_key(self) -> Any:
        """The other half of the pair, as an object of the `cryptography` package."""
        return self._key.public_key()

    def sign(self, data: bytes, digest: hashes.HashAlgorithm) -> bytes:
        """The signature of `data`. Ed25519 has a digest of its own and does not use `digest`."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, pss(digest), digest)


def _loaded(pem: bytes, password: bytes | None) -> rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError as exc:  # a password is missing, or is not needed
        needed = (
            "is encrypted: set security_key_password" if password is None else "is not encrypted, but has a password"
        )
        raise SecurityError(f"The private key {needed}.") from exc
    except UNREADABLE as exc:
        raise SecurityError(
            "The private key can't be read: it is no key in PEM format, or its password is wrong."
        ) from exc
    if not isinstance(key, (rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise SecurityError(f"The private key is RSA or Ed25519, not {type(key).__name__}.")
    return key


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value

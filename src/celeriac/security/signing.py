"""The signed form of a body, as Celery writes it: signer, signature, content type, content encoding and body in base64.

`setup` registers `SecureSerializer.serialize` and `deserialize` as the serializer `auth`. Only the body is signed, and it is
not encrypted. Invariant: nothing of a body is decoded before its signature was verified, and then only by a serializer
that this process has allowed: a trusted signer can't make it read pickle.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from celeriac import codec
from celeriac.errors import SecurityError
from celeriac.security.certificate import Certificate, CertStore, FSCertStore
from celeriac.security.key import PrivateKey, digest_of

__all__ = ["SecureSerializer", "register_auth"]

SEPARATOR = b"\x00\x01"
CONTENT_TYPE = "application/data"


class SecureSerializer:
    """Signs values, and reads signed ones.

    Args:
        key: Signs; None for a process that only reads.
        cert: The certificate of `key`, which tells readers who has signed.
        cert_store: Whom to trust.
        digest: Name of the digest of RSA signatures.
        serializer: Name of the serializer of what is signed.
        allowed: Names of further serializers that may be inside a message.
    """

    def __init__(
        self,
        key: PrivateKey | None = None,
        cert: Certificate | None = None,
        cert_store: CertStore | None = None,
        digest: str = "sha256",
        serializer: str = "json",
        allowed: Iterable[str] = (),
    ) -> None:
        self._key = key
        self._cert = cert
        self._store = cert_store
        self._digest = digest_of(digest)
        self._serializer = serializer
        self._accept = codec.accept_types({serializer, *allowed} - {"auth"})

    def serialize(self, data: Any) -> str:
        """The signed form of a value.

        Raises:
            SecurityError: There is no key and certificate to sign with.
            EncodeError: The value has no form in the inner serializer.
        """
        if self._key is None or self._cert is None:
            raise SecurityError("Signing takes a private key and its certificate.")
        content_type, content_encoding, body = codec.dumps(data, self._serializer)
        fields = [
            base64.b64encode(self._cert.get_id().encode()),
            base64.b64encode(self._key.sign(body, self._digest)),
            content_type.encode(),
            content_encoding.encode(),
            body,
        ]
        return base64.b64encode(SEPARATOR.join(fields)).decode()

    def deserialize(self, data: str | bytes) -> Any:
        """The value in a signed form.

        Raises:
            SecurityError: It is not signed, its signer is unknown, its certificate has expired, or the signature is wrong.
            ContentDisallowed: What is inside is of a type that is not allowed here.
            DecodeError: What is inside can't be decoded.
        """
        if self._store is None:
            raise SecurityError("Reading signed messages takes a store of certificates.")
        signer, signature, content_type, content_encoding, body = _fields(data)
        self._store[signer].verify(body, signature, self._digest)
        if content_type == CONTENT_TYPE:
            raise SecurityError("a signed message is inside a signed message")
        return codec.loads(body, content_type, content_encoding, self._accept)


def _fields(data: str | bytes) -> tuple[str, bytes, str, str, bytes]:
    try:
        fields = base64.b64decode(data).split(SEPARATOR, 4)
        if len(fields) == 5:
            signer, signature = base64.b64decode(fields[0]).decode(), base64.b64decode(fields[1])
            return signer, signature, fields[2].decode(), fields[3].decode(), fields[4]
    except (binascii.Error, ValueError):
        pass
    raise SecurityError("the message is not signed")


def register_auth(
    key: str | bytes | None = None,
    key_password: str | bytes | None = None,
    cert: str | bytes | None = None,
    store: str | None = None,
    digest: str = "sha256",
    serializer: str = "json",
    allowed: Iterable[str] = (),
) -> None:
    """Make `auth` a serializer of this process. `key` and `cert` are texts in PEM format, `store` is a folder or pattern.

    Raises:
        SecurityError: A key or certificate can't be read, or they are no pair.
    """
    private = PrivateKey(key, key_password) if key is not None else None
    certificate = Certificate(cert) if cert is not None else None
    if private is not None and certificate is not None and private.public_key != certificate.public_key:
        raise SecurityError("security_certificate is not the certificate of security_key.")
    signer = SecureSerializer(
        private, certificate, FSCertStore(store) if store is not None else None, digest, serializer, allowed
    )
    codec.register("auth", signer.serialize, signer.deserialize, CONTENT_TYPE, "utf-8")

"""Signed messages: the serializer `auth`.

`app.setup_security()` calls `setup_security`, which registers it in this process. A body is signed with this process's
private key and checked with the certificates that it trusts; `signing` has the layout, `certificate` what is trusted.
"""

from celeriac.security.certificate import Certificate, CertStore, FSCertStore
from celeriac.security.key import PrivateKey
from celeriac.security.setup import setup_security
from celeriac.security.signing import SecureSerializer, register_auth

__all__ = [
    "CertStore", "Certificate", "FSCertStore", "PrivateKey", "SecureSerializer", "register_auth", "setup_security",
]  # fmt: skip

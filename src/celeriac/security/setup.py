"""`app.setup_security()`: from settings to a process that signs what it sends and reads only what is signed.

What Celery documents: it holds for the whole process, and all other serializers are disabled but those that are named.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac import codec
from celeriac.current import get_current_app
from celeriac.errors import ImproperlyConfigured
from celeriac.security.signing import register_auth

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["setup_security"]


def setup_security(
    allowed_serializers: Iterable[str] | None = None,
    key: str | None = None,
    key_password: str | bytes | None = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
    app: Celeriac | None = None,
) -> None:
    """Sign messages with the serializer `auth`, and disable all other serializers that are not allowed.

    Args:
        allowed_serializers: Serializers that stay enabled, and that may be inside a signed message.
        key: File of the private key (default: the setting `security_key`).
        key_password: What it is encrypted with (`security_key_password`).
        cert: File of its certificate (`security_certificate`).
        store: Folder or pattern of the certificates that are trusted (`security_cert_store`).
        digest: Name of the digest (`security_digest`).
        serializer: Serializer of what is signed.

    Raises:
        ImproperlyConfigured: A setting is missing, or a file can't be read.
        SecurityError: A key or certificate is wrong.
    """
    conf = (app or get_current_app()).conf
    if conf.task_serializer != "auth" or list(conf.accept_content) != ["auth"]:
        raise ImproperlyConfigured(
            "setup_security() signs all messages: set task_serializer = 'auth' and accept_content = ['auth'], not"
            f" {conf.task_serializer!r} and {list(conf.accept_content)!r}."
        )
    files = {
        "security_key": key or conf.security_key,
        "security_certificate": cert or conf.security_certificate,
        "security_cert_store": store or conf.security_cert_store,
    }
    missing = [name for name, value in files.items() if not value]
    if missing:
        raise ImproperlyConfigured(f"setup_security() takes a file for each of {', '.join(files)}; missing: {missing}.")
    allowed = list(allowed_serializers or ())
    register_auth(
        _read("security_key", files["security_key"]),
        key_password if key_password is not None else conf.security_key_password,
        _read("security_certificate", files["security_certificate"]),
        str(files["security_cert_store"]),
        digest or conf.security_digest,
        serializer,
        allowed,
    )
    codec.disable_insecure_serializers([*allowed, "auth"])


def _read(name: str, path: str | None) -> bytes:
    try:
        return Path(str(path)).read_bytes()
    except OSError as exc:
        raise ImproperlyConfigured(f"{name} = {str(path)!r} can't be read: {exc.strerror or exc}.") from exc

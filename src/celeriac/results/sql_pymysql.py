"""PyMySQL's connection, which prepares TLS without certificates once per process.

`sql_engine` makes its connections with `connect`. PyMySQL encrypts where the server offers it and, if it is given no option of
TLS, verifies nobody; yet for each connection it loads all certificates of the system, 30 ms of CPU. Those that are given any
option are made as ever.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from pymysql.connections import Connection as PyMysqlConnection  # type: ignore[import-untyped]

__all__ = ["connect"]


class _Connection(PyMysqlConnection):  # type: ignore[misc]
    """PyMySQL's, with one context for all that verify nothing."""

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        if not sslp:
            return _UNVERIFIED
        context: ssl.SSLContext = super()._create_ssl_ctx(sslp)
        return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_UNVERIFIED = _unverified()


def connect(arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """A connection as `pymysql.connect` makes one."""
    return _Connection(*arguments, **options)

"""One memcached server: pymemcache's clients in a pool, with deadlines, and its errors told as ours.

The memcached store calls it with keys and values that are ready; which server has a key is the store's business. A client
is never shared between threads or over a fork. pymemcache has no verb for several compare-and-swaps, and one round trip
each is too long a way for a batch of outcomes; so a batch is sent without waiting for answers, and then read back.

Invariant: whoever fails with a client gives it up, so no answer is ever taken for that of a later command.
"""

from __future__ import annotations

import contextlib
import os
import select
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from pymemcache.client.base import Client  # type: ignore[import-untyped]
from pymemcache.exceptions import (  # type: ignore[import-untyped]
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)
from pymemcache.pool import ObjectPool  # type: ignore[import-untyped]

from celeriac.errors import CeleriacError, MessageTooLarge, OperationalError
from celeriac.timing import Deadline

__all__ = ["Address", "Change", "Node", "Settings"]

#: (host, port), or the path of a Unix socket.
Address = tuple[str, int] | str
#: Keys in one command.
STEP = 500
#: Seconds after which an idle connection is not used again: firewalls forget those that are silent for long.
IDLE = 60
#: Bytes up to which it is cheaper to read a value back than to wait for the answer to its swap.
SMALL = 16 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to all nodes.

    Attributes:
        timeout: Seconds that a batch may take.
        connect_timeout: Seconds that connecting may take.
        tls: For servers that want TLS, or None.
    """

    timeout: float = 4.0
    connect_timeout: float = 4.0
    tls: ssl.SSLContext | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A value to write if the one that is there still has this version.

    Attributes:
        expire: The server's `exptime`.
        version: What `gets` told, or None if there must be no value yet.
    """

    value: bytes
    expire: int
    version: bytes | None


class Node:
    """One server."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self.name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self._settings = settings
        self._client = partial(
            Client,
            _numeric(address) if settings.tls is None else address,
            connect_timeout=settings.connect_timeout,
            timeout=settings.timeout,
            no_delay=True,
            default_noreply=False,
            tls_context=settings.tls,
        )
        self._renew()

    def gets(self, keys: Sequence[str]) -> dict[str, tuple[bytes, bytes]]:
        """Values and their versions, by key, of those keys that there are."""
        found: dict[str, tuple[bytes, bytes]] = {}
        with self._leased() as (client, deadline):
            for step in _steps(keys):
                _limit(client, deadline)
                found |= client.gets_many(step)
        return found

    def swap(self, changes: Mapping[str, Change], *, together: bool) -> set[str]:
        """Write what has still the version that it had; returns the keys for which that is certain.

        With `together`, small values are sent at once and read back. A key that was written, but changed again by another
        or refused by the server until then, is not among those returned: look, and swap again, not together.
        """
        small = [key for key, change in changes.items() if together and len(change.value) <= SMALL]
        batch = dict.fromkeys(small if len(small) > 1 else ())
        with self._leased() as (client, deadline):
            done = {key for step in _steps(list(batch)) for key in _swap_batch(client, deadline, step, changes)}
            for key, change in changes.items():
                if key not in batch:
                    _limit(client, deadline)
                    if _swap_one(client, key, change):
                        done.add(key)
        return done

    def set(self, key: str, value: bytes, expire: int) -> None:
        """Write a value, whatever was there."""
        with self._leased() as (client, _):
            client.set(key, value, expire)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete values."""
        with self._leased() as (client, deadline):
            for step in _steps(keys):
                _limit(client, deadline)
                client.delete_many(step)

    def stats(self) -> dict[bytes, Any]:
        """What the server tells about itself."""
        with self._leased() as (client, _):
            found: dict[bytes, Any] = client.stats()
            return found

    def close(self) -> None:
        """Close idle connections; those in use are closed when they come back."""
        pool, is_ours = self._pool, self._pid == os.getpid()
        self._renew()
        for _ in pool.free if is_ours else ():
            pool.destroy(pool.get())

    # clients

    def _renew(self) -> None:
        self._pool = ObjectPool(self._client, after_remove=Client.close, idle_timeout=IDLE)
        self._pid = os.getpid()  # last: another thread that sees it takes the pool

    @contextlib.contextmanager
    def _leased(self) -> Iterator[tuple[Any, Deadline]]:
        """A client for this thread, and until when its commands must be answered; given up if the block raises."""
        if self._pid != os.getpid():  # after a fork: the parent goes on using its connections
            self._renew()
        pool = self._pool
        client = pool.get()
        try:
            with self._mapped():
                if _has_ended(client):
                    client.close()  # it connects again by itself
                deadline = Deadline(self._settings.timeout)
                _limit(client, deadline)
                yield client, deadline
        except BaseException:  # a kill of the greenlet too: an answer may be on its way
            pool.destroy(client)
            raise
        if pool is self._pool:
            pool.release(client)
        else:
            pool.destroy(client)

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MemcacheUnexpectedCloseError) as exc:
            raise OperationalError(f"memcached at {self.name} can't be reached: {_reason(exc)}.") from exc
        except (MemcacheUnknownError, ValueError, KeyError) as exc:
            raise OperationalError(f"{self.name} does not answer as a memcached server does.") from exc
        except MemcacheError as exc:
            raise self._refusal(exc) from exc

    def _refusal(self, exc: MemcacheError) -> CeleriacError:
        said = exc.args[0] if exc.args else ""
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        if isinstance(exc, MemcacheServerError) and "too large" in text:
            return MessageTooLarge(f"A result is larger than memcached at {self.name} takes (its option -I): {text}.")
        return OperationalError(f"memcached at {self.name} refuses: {text}.")


def _swap_one(client: Any, key: str, change: Change, *, noreply: bool = False) -> bool:
    if change.version is None:
        return bool(client.add(key, change.value, change.expire, noreply))
    return bool(client.cas(key, change.value, change.version, change.expire, noreply))


def _swap_batch(client: Any, deadline: Deadline, keys: Sequence[str], changes: Mapping[str, Change]) -> set[str]:
    """Swap without waiting for answers; the keys whose value is ours afterwards. The server keeps the order of commands."""
    _limit(client, deadline)
    for key in keys:
        _swap_one(client, key, changes[key], noreply=True)
    _limit(client, deadline)
    found = client.get_many(keys)
    return {key for key in keys if found.get(key) == changes[key].value}


def _limit(client: Any, deadline: Deadline) -> None:
    """Let the client's next waits end with the deadline."""
    left = deadline.left()
    if not left:
        raise TimeoutError
    client.timeout = left  # of a connection that it makes
    if client.sock is not None:
        client.sock.settimeout(left)


def _has_ended(client: Any) -> bool:
    """Whether the server has closed the connection meanwhile, or said something that nobody asked for."""
    if client.sock is None:
        return False
    poll = select.poll()
    poll.register(client.sock, select.POLLIN)
    return bool(poll.poll(0))


def _reason(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, MemcacheUnexpectedCloseError):
        return "it closed the connection"
    return getattr(exc, "strerror", None) or str(exc)


def _numeric(address: Address) -> Address:
    """The same, for a client that tries only the first address of a name: localhost's is often ::1, where few listen."""
    return ("127.0.0.1", address[1]) if isinstance(address, tuple) and address[0] == "localhost" else address


def _steps(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + STEP] for start in range(0, len(keys), STEP))

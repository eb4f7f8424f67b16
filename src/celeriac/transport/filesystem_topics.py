"""Bindings of exchanges, and broadcasts, in the control folder of the filesystem transport.

A binding is one small file, so declaring it twice changes nothing. A subscriber has a folder under each topic; who
broadcasts puts a file into each of these. Folders of subscribers that show no sign of life are cleared away.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import threading
import time
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from celeriac.routing import Queue
from celeriac.timing import Deadline
from celeriac.transport.binding import Binding, bindings_of, expired
from celeriac.transport.filesystem_files import Files, listed, mapped_errors, read, removed

__all__ = ["Bindings", "FilesystemSubscription", "broadcast"]

#: Seconds without a sign of life after which a subscriber counts as dead; it gives one every `SIGN`.
DEAD_AFTER, SIGN = 120.0, 20.0
#: Letters that may wait for one subscriber.
LETTERS = 10_000
_ALIVE = ".alive"
_numbers = itertools.count()


class Bindings:
    """Which queues are bound to which exchange."""

    def __init__(self, control: str, files: Files) -> None:
        self._folder = os.path.join(control, "celeriac-bindings")
        self._temporary = os.path.join(control, "celeriac-tmp")
        self._files = files

    def declare(self, queues: Sequence[Queue], now: float) -> set[str]:
        """Write bindings down; returns the queues that have expired. The default exchange needs no bindings."""
        files, old, over = [], [], set()
        for queue in queues:
            for exchange, binding in bindings_of(queue, now):
                content = msgspec.json.encode(binding, order="sorted")
                name = hashlib.sha256(content).hexdigest()[:32]
                place = os.path.join(self._folder, _safe(exchange), name)
                if not os.path.exists(place):
                    files.append((place, content))
                if queue.life is not None:
                    found = self._read(_safe(exchange))
                    old += [path for path, each in found if each.queue == queue.name and path != place]
                    over |= expired((each for _, each in found if each.queue != queue.name), now)
        if files:
            self._files.put(files, self._temporary)
        new = {place for place, _ in files}
        for path in old:  # the new ones are there: at no moment is the queue unbound
            if path not in new:
                removed(path)
        return over

    def of(self, exchange: str) -> list[Binding]:
        """The bindings of an exchange."""
        return [binding for _, binding in self._read(_safe(exchange))]

    def _read(self, exchange: str) -> list[tuple[str, Binding]]:
        found = []
        for name in sorted(listed(os.path.join(self._folder, exchange))):
            path = os.path.join(self._folder, exchange, name)
            content = read(path)
            if content is not None:
                with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
                    found.append((path, msgspec.json.decode(content, type=Binding)))
        return found

    def forget(self, queue: str) -> None:
        """Remove a queue's bindings."""
        for exchange in listed(self._folder):
            for path, binding in self._read(exchange):
                if binding.queue == queue:
                    removed(path)


def _topic_folder(control: str, topic: str) -> str:
    return os.path.join(control, "celeriac-topics", _safe(topic))


def _safe(name: str) -> str:
    """A name as one that a folder can have."""
    text = "=" + quote(name, safe="")  # so that "." and ".." are harmless
    return text if len(text) < 200 else "sha256-" + hashlib.sha256(name.encode()).hexdigest()


def broadcast(control: str, files: Files, topic: str, payload: bytes) -> None:
    """Put a payload into the folder of each subscriber that lives."""
    folder = _topic_folder(control, topic)
    letters = []
    for subscriber in listed(folder):
        inbox = os.path.join(folder, subscriber)
        if not _is_alive(inbox):
            shutil.rmtree(inbox, ignore_errors=True)
        elif len(listed(inbox)) <= LETTERS:
            letters.append((os.path.join(inbox, f"{time.time_ns():020d}-{next(_numbers):09d}"), payload))
    if letters:
        files.put(letters, os.path.join(control, "celeriac-tmp"))


def _is_alive(inbox: str) -> bool:
    try:
        return os.stat(os.path.join(inbox, _ALIVE)).st_mtime > time.time() - DEAD_AFTER
    except OSError:
        return False


class FilesystemSubscription:
    """A listener. One thread polls it; any may interrupt or close."""

    def __init__(self, control: str, topics: Sequence[str], url: str, longest_pause: float) -> None:
        self._url = url
        self._longest_pause = longest_pause
        name = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._inboxes = {topic: os.path.join(_topic_folder(control, topic), name) for topic in topics}
        self._changed = threading.Condition()
        self._interrupted = False
        self._closed = False
        self._signed_at = float("-inf")
        with mapped_errors(url):
            self._sign()

    def _sign(self) -> None:
        """Show that we are alive; makes folders that somebody has cleared away."""
        if time.monotonic() < self._signed_at + SIGN:
            return
        for inbox in self._inboxes.values():
            os.makedirs(inbox, exist_ok=True)
            with open(os.path.join(inbox, _ALIVE), "wb"):
                os.utime(os.path.join(inbox, _ALIVE))
        self._signed_at = time.monotonic()

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was sent since the last poll; waits for the first."""
        deadline = Deadline(max(0.0, wait))
        pause = 0.002
        while not self._closed:
            with mapped_errors(self._url):
                self._sign()
                letters = self._read()
            with self._changed:
                if letters or self._interrupted or deadline.passed():
                    self._interrupted = False
                    return letters
                self._changed.wait(min(deadline.left() or 0.0, pause))
            pause = min(pause * 1.3, self._longest_pause)
        return []

    def _read(self) -> list[tuple[str, bytes]]:
        found = []
        for topic, inbox in self._inboxes.items():
            for name in listed(inbox):
                path = os.path.join(inbox, name)
                payload = read(path) if name != _ALIVE else None
                if payload is not None and removed(path):
                    found.append((name, topic, payload))
        return [(topic, payload) for _, topic, payload in sorted(found)]

    def interrupt(self) -> None:
        """Make a poll that waits return."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self.interrupt()
        for inbox in self._inboxes.values():
            shutil.rmtree(inbox, ignore_errors=True)

"""Tells other workers that this node is here, and warns of a second worker with the same node name.

One subscriber thread listens to the topic "celeriac.presence". A worker says hello when it starts; one that has the same
name answers, and both warn.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
import warnings

import msgspec

from celeriac.errors import DuplicateNodenameWarning, OperationalError
from celeriac.log import get_logger
from celeriac.timing import backoff
from celeriac.transport.base import Subscription, Transport

__all__ = ["Presence"]

logger = get_logger("celeriac.worker.presence")

TOPIC = "celeriac.presence"


class _Word(msgspec.Struct, frozen=True):
    """What nodes tell each other.

    Attributes:
        word: "hello" of one that has just come, "here" of one that has heard it.
    """

    word: str
    node: str
    instance: str
    pid: int


_decoder = msgspec.json.Decoder(_Word)


class Presence:
    """This node among others."""

    def __init__(self, transport: Transport, node: str) -> None:
        self._transport = transport
        self._node = node
        self._instance = uuid.uuid4().hex
        self._has_warned = False
        self._stop = threading.Event()
        self._subscription: Subscription | None = None
        self._thread = threading.Thread(target=self._run, name="celeriac-presence", daemon=True)

    def start(self) -> None:
        """Say hello and listen, if the broker can broadcast."""
        if self._transport.capabilities.broadcast:
            self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._stop.set()
        if self._subscription is not None:
            self._subscription.interrupt()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._listen()
                return
            except OperationalError as exc:
                failures += 1
                logger.debug("presence: %s", exc)
                self._stop.wait(backoff(failures))

    def _listen(self) -> None:
        subscription = self._subscription = self._transport.subscribe([TOPIC])
        try:
            self._say("hello")
            while not self._stop.is_set():
                for _topic, payload in subscription.poll(60.0):
                    with contextlib.suppress(
                        msgspec.MsgspecError, UnicodeDecodeError, RecursionError
                    ):  # not one of ours
                        self._hear(_decoder.decode(payload))
        finally:
            subscription.close()

    def _say(self, word: str) -> None:
        about = _Word(word, self._node, self._instance, os.getpid())
        self._transport.broadcast(TOPIC, msgspec.json.encode(about))

    def _hear(self, about: _Word) -> None:
        if about.node != self._node or about.instance == self._instance:
            return
        if about.word == "hello":
            self._say("here")
        if not self._has_warned:
            self._has_warned = True
            text = f"another worker (pid {about.pid}) has the node name {self._node}, too: give each its own with -n"
            logger.warning("%s", text)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.warn(DuplicateNodenameWarning(text), stacklevel=1)

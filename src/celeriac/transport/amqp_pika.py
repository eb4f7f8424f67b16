"""pika, adapted: its connection hands whole deliveries to our channels, its stream reads in large pieces, any thread may write.

Made by `amqp_connection`, and called in the connection's own thread, `write` excepted: frames go to the socket in the thread
that has them, since to wake another one for that costs as much as the rest of a call. pika cuts frame by frame off what has
come, copies the rest each time, and puts the three frames of a message together again: three times the CPU. What is not a
delivery in three whole frames goes pika's way.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Any

from pika import SelectConnection  # type: ignore[import-untyped]
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter  # type: ignore[import-untyped]
from pika.frame import Header, Method  # type: ignore[import-untyped]
from pika.spec import BasicProperties  # type: ignore[import-untyped]
from pika.spec import Channel as ChannelMethods

from celeriac.transport.amqp_frame import DELIVER, FRAME_END, HEAD, Deliver, read_deliver

__all__ = ["PikaConnection", "RawProperties", "Services"]

#: Bytes that one read takes at most.
_PIECE = 65_536
_SIZE = struct.Struct(">xxxxQ")
_BODY_FRAME = 3


class RawProperties(BasicProperties):  # type: ignore[misc]
    """Properties that stay encoded on pika's way: its own tables can't hold fractions (a time limit of 1.5 s)."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw  # the single properties are not used by pika


class Services(SelectorIOServicesAdapter):  # type: ignore[misc]
    """pika's I/O services, which keep the stream at hand: an ended connection is cut whatever pika waits for.

    The stream reads in larger pieces than pika's own: each system call has the interpreter's lock to get back.
    """

    stream: Any = None
    sock: Any = None

    def create_streaming_connection(
        self, protocol_factory: Any, sock: Any, on_done: Any, ssl_context: Any = None, server_hostname: Any = None
    ) -> Any:
        """Remember the socket, and the stream once it stands."""
        self.sock = sock

        def done(result: Any) -> None:
            if isinstance(result, tuple):
                self.stream = result[0]
                self.stream._MAX_RECV_BYTES = _PIECE
                if ssl_context is None:
                    # One read each time: it takes what is there, and to hear that there is no more costs another call.
                    self.stream._MAX_CONSUME_BYTES = 1
            on_done(result)

        return super().create_streaming_connection(protocol_factory, sock, done, ssl_context, server_hostname)


class PikaConnection(SelectConnection):  # type: ignore[misc]
    """pika's connection, which leaves the properties of messages to us and takes in deliveries whole.

    Args:
        receivers: Who takes the deliveries of a channel, by its number: called with method, header and body.
        on_read: Called when all that has come is taken in.
        on_channel_close: Called with a channel's number before the server's wish to close it is answered.
        soon: Has the connection's thread call something.

    Invariant: `_writing` guards the order of bytes. What the socket does not take at once waits in `_waiting`, goes into
    pika's buffer in the connection's thread, and nothing passes it.
    """

    def __init__(
        self, *args: Any, receivers: dict[int, Callable[[Deliver, bytes, bytes], None]], on_read: Callable[[], None],
        on_channel_close: Callable[[int], None], soon: Callable[[Callable[[], None]], None], **kwargs: Any,
    ) -> None:  # fmt: skip
        self._receivers = receivers
        self._on_read = on_read
        self._on_channel_close = on_channel_close
        self._soon = soon
        self._writing = threading.Lock()
        self._waiting: list[bytes] = []
        super().__init__(*args, **kwargs)

    def write(self, frames: bytes, sock: Any) -> None:
        """Send frames; may be called from any thread.

        Args:
            sock: Where they may be written to at once; None with TLS, whose state only the connection's thread may touch.
        """
        with self._writing:
            transport = self._transport
            if sock is not None and not self._waiting and transport and not transport.get_write_buffer_size():
                try:
                    sent = sock.send(frames)
                except OSError:  # it takes nothing now; if it is broken, pika will see it
                    sent = 0
                if sent == len(frames):
                    return
                frames = frames[sent:]
            self._waiting.append(frames)
        self._soon(self._flush)

    def _flush(self) -> None:
        if not self.is_closed:
            self._output_marshaled_frames([])

    def _output_marshaled_frames(self, marshaled_frames: Any) -> None:
        with self._writing:
            waiting, self._waiting = self._waiting, []
            super()._output_marshaled_frames([*waiting, *marshaled_frames])

    def _process_frame(self, frame_value: Any) -> None:
        if isinstance(frame_value, Method) and isinstance(frame_value.method, ChannelMethods.Close):
            self._on_channel_close(frame_value.channel_number)
        super()._process_frame(frame_value)

    @property
    def longest_body(self) -> int:
        """Bytes of body that a frame takes."""
        return int(self._body_max_length)

    def _on_data_available(self, data_in: bytes) -> None:
        data: bytes = self._frame_buffer + data_in
        at = 0
        while at < len(data):
            size = self._take_delivery(data, at)
            if size is None:
                break
            if not size:
                self._frame_buffer: bytes = data[at:]
                size, frame = self._read_frame()
                if not frame:
                    break
                self._process_frame(frame)
            at += size
        self._frame_buffer = data[at:]
        self.bytes_received += at
        self._on_read()

    def _take_delivery(self, data: bytes, at: int) -> int | None:
        """Hand the delivery that stands at `at` to its channel.

        Returns:
            Its size; 0 if something else stands there, or its body has several frames or none; None if it is cut off.
        """
        if data[at : at + 1] != b"\x01" or data[at + 7 : at + 11] != DELIVER:
            return 0
        try:
            _kind, number, size = HEAD.unpack_from(data, at)
            header: int = at + size + 8
            body: int = header + HEAD.unpack_from(data, header)[2] + 8
            length = _SIZE.unpack_from(data, header + 7)[0]
            kind, _number, size = HEAD.unpack_from(data, body)
        except struct.error:
            return None
        end: int = body + size + 8
        receiver = self._receivers.get(number)
        if kind != _BODY_FRAME or size != length or receiver is None:
            return 0
        if len(data) < end:
            return None
        if not data[header - 1] == data[body - 1] == data[end - 1] == FRAME_END:
            return 0  # pika will complain
        self.frames_received += 3
        receiver(read_deliver(data, at + 11), data[header + 7 : body - 1], data[body + 7 : end - 1])
        return end - at

    def _read_frame(self) -> Any:
        buffer = self._frame_buffer
        if buffer[:1] != b"\x02" or len(buffer) < 7:
            return super()._read_frame()
        _kind, channel, size = HEAD.unpack_from(buffer)
        end = size + 8
        if len(buffer) < end or buffer[end - 1] != FRAME_END:
            return super()._read_frame()  # wait for the rest, or complain
        raw = buffer[7 : end - 1]
        return end, Header(channel, _SIZE.unpack_from(raw)[0], RawProperties(raw))

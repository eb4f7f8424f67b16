"""Golden messages and results, recorded from a stock Celery: how the tests read them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from celeriac.message import Message

FOLDER = Path(__file__).parent / "vectors"


def load(folder: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / folder / f"{name}.json").read_text())
    return found


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / folder).glob("*.json"))


def to_bytes(value: Any) -> bytes:
    """Text as it stands, or `{"b64": …}` where it was not UTF-8."""
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def from_envelope(envelope: dict[str, Any]) -> Message:
    """The message in a Redis envelope, as the Redis driver would build it."""
    properties = envelope.get("properties") or {}
    headers = envelope.get("headers") or {}
    body = envelope["body"]
    return Message(
        id=headers.get("id") or properties.get("correlation_id") or "",
        headers=headers,
        body=base64.b64decode(body) if properties.get("body_encoding") == "base64" else body.encode(),
        content_type=envelope.get("content-type") or "",
        content_encoding=envelope.get("content-encoding") or "",
        priority=properties.get("priority"),
        reply_to=properties.get("reply_to") or "",
        transient=properties.get("delivery_mode") == 1,
    )


def from_amqp(recorded: dict[str, Any]) -> Message:
    properties = recorded["properties"]
    headers = properties.get("application_headers") or {}
    return Message(
        id=headers.get("id") or properties.get("correlation_id") or "",
        headers=headers,
        body=base64.b64decode(recorded["body_b64"]),
        content_type=properties["content_type"],
        content_encoding=properties["content_encoding"],
        priority=properties.get("priority"),
        reply_to=properties.get("reply_to") or "",
        transient=properties.get("delivery_mode") == 1,
    )


def messages(name: str) -> list[Message]:
    """All messages of a recording, over both brokers."""
    recorded = load("messages", name)
    return [from_envelope(item["envelope"]) for item in recorded.get("redis", ())] + [
        from_amqp(item) for item in recorded.get("amqp", ())
    ]

"""The dead letters of the filesystem transport: putting aside, listing, replaying and discarding.

A dead letter is the message's file, unchanged, and beside it a file with the reason. The reason is written first, and
found by the message: so a crash between the two leaves a reason that nobody reads, never a letter without one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from celeriac.message import DeadLetter
from celeriac.transport.filesystem_files import Files, listed, moved, read, removed
from celeriac.transport.filesystem_name import Name, new_name, parse_due
from celeriac.transport.redis_envelope import decode

__all__ = ["DeadLetters"]

_REASON = ".reason"


class DeadLetters:
    """The folder of dead letters.

    A letter's file is named `<died_at in us>.<message's name>`; its key is those digits and the message's id.
    """

    def __init__(self, folder: str, data_folder: str, temporary: str, files: Files) -> None:
        self._folder = folder
        self._data_folder = data_folder
        self._temporary = temporary
        self._files = files

    def bury(self, path: str, name: Name, reason: str, now: float) -> bool:
        """Move a message's file here; False if it has gone."""
        place = os.path.join(self._folder, f"{int(now * 1e6):018d}.{name}")
        self._files.put([(place + _REASON, reason.encode(errors="replace"))], self._temporary)
        if moved(path, place):
            return True
        removed(place + _REASON)
        return False

    def _letters(self) -> list[tuple[str, int, Name]]:
        """File, moment and name of each, newest first."""
        found = [(text, parse_due(text)) for text in listed(self._folder)]
        return [(text, due[0], due[1]) for text, due in sorted(found, reverse=True) if due is not None]

    def _read(self, text: str, died_us: int, name: Name) -> DeadLetter | None:
        content = read(os.path.join(self._folder, text))
        if content is None:
            return None
        reason = read(os.path.join(self._folder, text + _REASON)) or b""
        return DeadLetter(
            key=_key(died_us, name), message=decode(content, name.queue)[0], queue=name.queue,
            reason=reason.decode(errors="replace"), died_at=died_us / 1e6, deliveries=name.deliveries, starts=name.starts,
        )  # fmt: skip

    def listed(self, limit: int, queue: str | None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        wanted = [each for each in self._letters() if queue is None or each[2].queue == queue]
        found = (self._read(*each) for each in wanted[:limit])
        return [letter for letter in found if letter is not None]

    def found(self, key: str) -> DeadLetter | None:
        """The dead letter with this key, else the newest one of this task id."""
        texts = self._matching([key])
        return self._read(*texts[0]) if texts else None

    def _matching(self, keys: Sequence[str]) -> list[tuple[str, int, Name]]:
        """Letters with one of these keys or, where there is none, with this task id."""
        letters = self._letters()
        found: dict[str, tuple[str, int, Name]] = {}
        for key in keys:
            exact = [each for each in letters if _key(each[1], each[2]) == key]
            for each in exact or [each for each in letters if self._task_id(*each) == key]:
                found[each[0]] = each
        return list(found.values())

    def _task_id(self, text: str, died_us: int, name: Name) -> str:
        letter = self._read(text, died_us, name)
        return letter.message.id if letter is not None else ""

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back with counts at zero; returns how many there were."""
        count = 0
        for text, _, name in reversed(self._matching(keys)):
            fresh = new_name(name.queue, 255 - int(name.order[:3]))
            if moved(os.path.join(self._folder, text), os.path.join(self._data_folder, str(fresh))):
                removed(os.path.join(self._folder, text + _REASON))
                count += 1
        self._files.sync([self._folder, self._data_folder])
        return count

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters; returns how many there were."""
        count = 0
        for text, _, _ in self._matching(keys):
            count += removed(os.path.join(self._folder, text))
            removed(os.path.join(self._folder, text + _REASON))
        return count


def _key(died_us: int, name: Name) -> str:
    return f"{died_us}-{name.id}"

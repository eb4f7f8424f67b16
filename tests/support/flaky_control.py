"""Flaky drivers in a process that the test did not start itself as Python: the switch is a file.

The test makes a `FlakyControl`, gives its `env` to the worker, and puts `flaky://` before the URL of a real broker or result
store (`flaky://sqlite:////tmp/x/results.db`). The scheme is made known as any third party's is, by an entry point, so it
works in the supervisor too, which does not import the app. At every call the control file is read, and the call recorded
beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from celeriac.results.open import open_store
from celeriac.transport.open import open_transport
from tests.support.files import Ledger
from tests.support.flaky import Fault, FlakyStore, FlakyTransport

__all__ = ["CONTROL_VARIABLE", "FileGate", "FlakyControl", "open_flaky_store", "open_flaky_transport"]

#: Environment variable with the path of the control file.
CONTROL_VARIABLE = "CELERIAC_TEST_FLAKY"


class _Order(msgspec.Struct, frozen=True):
    """The control file: what happens to which verbs (none: all). No file, no fault."""

    kind: str
    verbs: list[str]
    error: str


class FlakyControl:
    """The test's end: switches faults on and off for all processes that have `env`. Keeps its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "flaky.json"
        self._calls = Ledger(_calls_path(self._file))
        self.env = {CONTROL_VARIABLE: str(self._file), "PYTHONPATH": str(_install_entry_points(folder / "flaky"))}

    def fail(self, *verbs: str, error: str = "the test lets this call fail") -> None:
        """Let calls fail until healed."""
        self._write(_Order("fail", list(verbs), error))

    def lose_replies(self, *verbs: str, error: str = "the test loses this reply") -> None:
        """Let calls be made and then fail, until healed."""
        self._write(_Order("lose reply", list(verbs), error))

    def heal(self) -> None:
        """No more faults."""
        self._file.unlink(missing_ok=True)

    def calls(self) -> list[str]:
        """Verbs in the order in which they were called; one that failed reads `store!`."""
        return self._calls.lines()

    def _write(self, order: _Order) -> None:
        # Renamed into place, so that a reader sees the old order or the new one.
        temporary = self._file.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(order))
        temporary.replace(self._file)


class FileGate:
    """The worker's end: reads the control file before each call."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._calls = Ledger(_calls_path(file))

    def enter(self, verb: str) -> Fault | None:
        """Record the call and tell what is to go wrong with it."""
        try:
            order = msgspec.json.decode(self._file.read_bytes(), type=_Order)
        except FileNotFoundError:
            order = None
        hit = order is not None and (not order.verbs or verb in order.verbs)
        self._calls.append(f"{verb}!" if hit else verb)
        return Fault(order.kind, order.error) if order is not None and hit else None


def open_flaky_store(url: str, options: Mapping[str, Any]) -> FlakyStore:
    """Factory for the scheme `flaky` of result stores."""
    return FlakyStore(open_store(_inner(url), dict(options)), _gate())


def open_flaky_transport(url: str, options: Mapping[str, Any]) -> FlakyTransport:
    """Factory for the scheme `flaky` of transports."""
    return FlakyTransport(open_transport(_inner(url), dict(options)), _gate())


def _install_entry_points(folder: Path) -> Path:
    """Make `folder` a place on the import path where a distribution offers the scheme `flaky`; returns it."""
    distribution = folder / "celeriac_flaky-1.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: celeriac-flaky\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(
        f"[celeriac.results]\nflaky = {__name__}:open_flaky_store\n"
        f"[celeriac.transports]\nflaky = {__name__}:open_flaky_transport\n"
    )
    return folder


def _inner(url: str) -> str:
    return url.removeprefix("flaky://")


def _gate() -> FileGate:
    return FileGate(Path(os.environ[CONTROL_VARIABLE]))


def _calls_path(control: Path) -> Path:
    return control.with_suffix(".calls")

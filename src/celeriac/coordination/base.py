"""The port of coordination: claims with a lease and rate buckets that all workers and clients share.

Concurrency limits, unique tasks and paused queues are claims; a rate limit for all workers is a bucket. The worker's gate,
`unique` and `celeriac queue` call it. Drivers are synchronous, may be called from several threads, and each verb is one
atomic step. Invariant: of one name, never more than `limit` holders have a claim at one moment, and one that is not renewed
is over when its seconds are, by the clock of the server.

`RowCoordination` is all of a driver but its storage, for those that keep rows: the decision is the pure function `decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from celeriac.rates import Taken, take, tolerance_of

__all__ = ["FOREVER", "Claim", "Coordination", "Rows", "RowCoordination", "decide"]

T = TypeVar("T")
#: Names to their holders to the moments at which these end; `None` deletes.
Rows = Mapping[str, Mapping[str, float]]
Changes = dict[tuple[str, str], float | None]

#: Seconds of a claim that is given back only by hand: 3000 years. Not every database knows infinity.
FOREVER = 1e11


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to hold something for a while.

    Attributes:
        name: Of what is held.
        holder: Who holds it. The same holder may claim again, which renews it.
        seconds: How long, counted from the call.
        limit: How many may hold it at one moment; 0 for any number.
        replaces: Take it away from all others.
    """

    name: str
    holder: str
    seconds: float
    limit: int = 1
    replaces: bool = False


class Coordination(Protocol):
    """A place that all workers and clients of an app share."""

    @property
    def url(self) -> str:
        """Where it is, with secrets masked."""

    def acquire(self, claims: Sequence[Claim]) -> list[str]:
        """Claim, or renew. For each claim "" if it is held now, or who is in the way.

        Raises:
            OperationalError: The server can't be reached.
        """

    def release(self, claims: Sequence[Claim]) -> None:
        """Give back what these holders have of these names; it is no error if that is nothing."""

    def holders(self, name: str) -> dict[str, float]:
        """Who holds it, and until when (seconds since 1970)."""

    def take(self, bucket: str, interval: float, wanted: int) -> Taken:
        """Up to `wanted` starts from a rate bucket whose starts are `interval` seconds apart."""

    def close(self) -> None:
        """Release connections."""


def decide(claims: Sequence[Claim], rows: Rows, now: float) -> tuple[list[str], Changes]:
    """Which claims are granted at `now`, given what is held, and what is to be written for it."""
    state = {name: {holder: at for holder, at in held.items() if at > now} for name, held in rows.items()}
    answers = []
    for claim in claims:
        held = state.setdefault(claim.name, {})
        others = [holder for holder in held if holder != claim.holder]
        is_mine = claim.holder in held
        if claim.replaces:
            for holder in others:
                del held[holder]
        elif not is_mine and claim.limit and len(others) >= claim.limit:
            answers.append(min(others, key=held.__getitem__))
            continue
        held[claim.holder] = now + claim.seconds
        answers.append("")
    return answers, _changes(rows, state)


def _changes(before: Rows, after: Rows) -> Changes:
    changes: Changes = {}
    for name, held in before.items():
        changes |= {(name, holder): None for holder in held if holder not in after.get(name, {})}
    for name, held in after.items():
        old = before.get(name, {})
        changes |= {(name, holder): at for holder, at in held.items() if old.get(holder) != at}
    return changes


class RowCoordination:
    """Everything but the storage, for drivers that keep rows of name, holder and end."""

    def change(self, names: Sequence[str], work: Callable[[Rows, float], tuple[T, Changes]]) -> T:
        """Call `work` with the rows of these names and the server's time, and write what it says, as one atomic step."""
        raise AssertionError("said by the driver's own class")

    def acquire(self, claims: Sequence[Claim]) -> list[str]:
        """Claim, or renew."""
        if not claims:
            return []
        return self.change([claim.name for claim in claims], lambda rows, now: decide(claims, rows, now))

    def release(self, claims: Sequence[Claim]) -> None:
        """Give back."""

        def work(rows: Rows, now: float) -> tuple[None, Changes]:
            return None, {(c.name, c.holder): None for c in claims if c.holder in rows.get(c.name, {})}

        if claims:
            self.change([claim.name for claim in claims], work)

    def holders(self, name: str) -> dict[str, float]:
        """Who holds it."""

        def work(rows: Rows, now: float) -> tuple[dict[str, float], Changes]:
            return {holder: at for holder, at in rows.get(name, {}).items() if at > now}, {}

        return self.change([name], work)

    def take(self, bucket: str, interval: float, wanted: int) -> Taken:
        """Starts from a bucket: a row whose end is the bucket's next start."""

        def work(rows: Rows, now: float) -> tuple[Taken, Changes]:
            next_at = rows.get(bucket, {}).get("next", 0.0)
            taken = take(next_at, now, interval, tolerance_of(interval), wanted)
            return taken, {(bucket, "next"): taken.next_at}

        return self.change([bucket], work)

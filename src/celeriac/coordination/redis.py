"""Coordination in Redis: a sorted set for each name, with holders and their ends; a string for each rate bucket.

Each verb is one script, by the server's clock. Keys of what nobody holds any more are deleted by the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.coordination.base import Claim
from celeriac.rates import Taken, tolerance_of
from celeriac.results.drivers import split_query
from celeriac.results.redis_connection import Argument, Script, Server
from celeriac.results.redis_url import parse_url

__all__ = ["RedisCoordination"]

_NOW = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local function text(number) return string.format('%.17g', number) end
"""

#: KEYS: of the claims. ARGV: for each claim holder, seconds, limit, whether it replaces. Returns who is in the way, or "".
_ACQUIRE = Script(
    _NOW
    + """
local answers = {}
for n = 1, #KEYS do
  local key, at = KEYS[n], 4 * n - 3
  local holder, seconds, limit = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
  answers[n] = ''
  if ARGV[at + 3] == '1' then
    redis.call('DEL', key)
  elseif limit > 0 and not redis.call('ZSCORE', key, holder) and redis.call('ZCARD', key) >= limit then
    answers[n] = redis.call('ZRANGE', key, 0, 0)[1]
  end
  if answers[n] == '' then
    redis.call('ZADD', key, text(now + seconds), holder)
    local last = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
    redis.call('PEXPIREAT', key, string.format('%.0f', last * 1000 + 1000))
  end
end
return answers
"""
)

#: KEYS: of the claims. ARGV: their holders.
_RELEASE = Script("for n = 1, #KEYS do redis.call('ZREM', KEYS[n], ARGV[n]) end")

#: KEYS: a claim's. Returns holders and ends in turn.
_HOLDERS = Script(_NOW + "return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf', 'WITHSCORES')")

#: KEYS: the bucket. ARGV: interval, tolerance, how many are wanted. Returns how many, seconds to wait, the bucket.
#: The same as `rates.take`.
_TAKE = Script(
    _NOW
    + """
local interval, tolerance, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local next_at = math.min(tonumber(redis.call('GET', KEYS[1]) or '0'), now + interval)
local start, free = math.max(next_at, now - tolerance), 0
if start <= now then free = math.floor((now - start) / interval) + 1 end
local granted = math.min(math.max(0, wanted), free)
if granted > 0 then
  next_at = start + granted * interval
  redis.call('SET', KEYS[1], text(next_at), 'PX', string.format('%.0f', (interval + 1) * 1000))
end
return {granted, text(math.max(0, next_at - now)), text(next_at)}
"""
)


class RedisCoordination:
    """Sorted sets. See `base.Coordination` for the verbs."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        known = {*(options or {}), *split_query(url)[1]}  # the transport or the store has checked them
        settings, own = parse_url(url, options or {}, known)
        given = str(own.get("global_keyprefix") or "")
        self._prefix = f"{{{settings.tag}}}:{given}" if settings.tag else given
        self._server = Server(settings)
        self.url = settings.url

    def _key(self, name: str) -> str:
        return f"{self._prefix}celeriac:claim:{name}"

    def acquire(self, claims: Sequence[Claim]) -> list[str]:
        """Claim, or renew."""
        if not claims:
            return []
        args: list[Argument] = []
        for claim in claims:
            args += (claim.holder, repr(claim.seconds), claim.limit, int(claim.replaces))
        answers = self._server.run(_ACQUIRE, [self._key(claim.name) for claim in claims], args)
        return [answer.decode() for answer in answers]

    def release(self, claims: Sequence[Claim]) -> None:
        """Give back."""
        if claims:
            self._server.run(_RELEASE, [self._key(claim.name) for claim in claims], [claim.holder for claim in claims])

    def holders(self, name: str) -> dict[str, float]:
        """Who holds it."""
        reply = self._server.run(_HOLDERS, [self._key(name)], ())
        return {holder.decode(): float(at) for holder, at in zip(reply[::2], reply[1::2], strict=True)}

    def take(self, bucket: str, interval: float, wanted: int) -> Taken:
        """Starts from a bucket."""
        args = (repr(interval), repr(tolerance_of(interval)), wanted)
        granted, wait, next_at = self._server.run(_TAKE, [f"{self._prefix}celeriac:rate:{bucket}"], args)
        return Taken(int(granted), float(wait), float(next_at))

    def close(self) -> None:
        """Close idle connections."""
        self._server.close()

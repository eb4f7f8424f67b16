r"""The Lua of storing results: `PUT` is also part of the transport's commit, so that an outcome is stored in the same step.

A stored value is Celery's task meta. When it is JSON it ends with `"celeriac": [retries, deliveries, expires_ms]`, a key
that stock readers ignore; else a companion key `<key>:celeriac` beside it holds
`<length of the value> <retries> <deliveries> <state>\n<record>`. From these the script knows which execution wrote it.

Invariant: which record may replace which is decided in the script that writes, so no two writers both believe they won.
"""

from __future__ import annotations

from celeriac.results.redis_connection import Script

__all__ = ["JOIN", "PUT", "STORE"]

#: put(key, value, companion, expires, retries, deliveries) -> whether it was stored.
#: `expires`: "" for never, "gone" if over already, else milliseconds since 1970.
PUT = r"""
local READY = {SUCCESS = true, FAILURE = true, REVOKED = true}

-- State, retries and deliveries of what is stored; state nil if nothing is.
local function stored(key)
  local value = redis.call('GET', key)
  if not value then return nil end
  local retries, deliveries = string.match(string.sub(value, -80), '"celeriac": %[(%d+), (%d+), %d+%]}$')
  local state = string.match(string.sub(value, 1, 80), '^{"status": "([^"]*)"')
  if retries then return state or '', tonumber(retries), tonumber(deliveries) end
  local companion = redis.call('GET', key .. ':celeriac')
  if companion then
    local length, r, d, s = string.match(companion, '^(%d+) (%d+) (%d+) ([^\n]*)\n')
    if tonumber(length) == #value then return s, tonumber(r), tonumber(d) end
  end
  -- A stock worker wrote it. Other formats than JSON show a success at their beginning, too.
  if not state and string.find(string.sub(value, 1, 80), 'SUCCESS', 1, true) then state = 'SUCCESS' end
  return state or '', 0, 0
end

local function is_refused(key, retries, deliveries)
  local state, r, d = stored(key)
  if not state then return false end
  if state == 'SUCCESS' then return true end
  if retries ~= r then return retries < r end
  return deliveries < d or (deliveries == d and READY[state] == true)
end

local function write(key, value, expires)
  if expires == '' then redis.call('SET', key, value) else redis.call('SET', key, value, 'PXAT', expires) end
end

local function put(key, value, companion, expires, retries, deliveries)
  if is_refused(key, tonumber(retries), tonumber(deliveries)) then return false end
  if expires == 'gone' then
    redis.call('DEL', key, key .. ':celeriac')
  else
    write(key, value, expires)
    if companion ~= '' then write(key .. ':celeriac', companion, expires) end
    redis.call('PUBLISH', key, value)
  end
  return true
end
"""

#: ARGV: for each record key, value, companion, expires, retries, deliveries. Returns the numbers (1, …) of those refused.
STORE = Script(
    PUT
    + r"""
local refused = {}
for n = 1, #ARGV, 6 do
  if not put(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3], ARGV[n + 4], ARGV[n + 5]) then
    refused[#refused + 1] = (n + 5) / 6
  end
end
return refused
"""
)

#: KEYS: the set of ended parts. ARGV: index, seconds to keep it. Returns how many different parts have ended.
JOIN = Script(
    r"""
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('SCARD', KEYS[1])
"""
)

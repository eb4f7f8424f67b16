r"""The Lua of storing results: `PUT` is also part of the transport's commit, so that an outcome is stored in the same step.

A stored value is Celery's task meta. When it is JSON it ends with `"celeriac": [retries, deliveries, expires_ms]`, a key
that stock readers ignore; else a companion key `<key>:celeriac` beside it holds
`<length of the value> <retries> <deliveries> <state>\n<record>`. From these the script knows which execution wrote it.

Invariant: which record may replace which is decided in the script that writes, so no two writers both believe they won.
"""

from __future__ import annotations

from celeriac.results.redis_connection import Script

__all__ = ["ENDED", "GROW", "JOIN", "OVER", "PARTS", "PUT", "QUIET", "START", "STORE"]

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

#: A chord's keys, as stock workers use them: members of its parts (sorted set, or list), further parts, size, parts that
#: were counted, the header's result, and who sends the body; and the sorted set of all chords begun here. KEYS: these seven.
#: ARGV: "1" for a sorted set, seconds to keep it, seconds that who is the last has for the body, the size where no key tells it,
#: the chord's id, the present moment, then task id, score and member of each part. Returns the task id of the part that is to
#: send the body, "" if none is.
JOIN = Script(
    r"""
local members, more, size, counted, header, claim, begun = unpack(KEYS)
local is_sorted, kept, patience, known_size, group, now = unpack(ARGV, 1, 6)
if redis.call('GET', claim) == 'done' then return '' end
redis.call('ZADD', begun, 'XX', now, group)
local kind = redis.call('TYPE', members).ok
if kind ~= 'none' then is_sorted = kind == 'zset' else is_sorted = is_sorted == '1' end
local here, last = {}, nil
for n = 7, #ARGV, 3 do
  local id, score, member = ARGV[n], ARGV[n + 1], ARGV[n + 2]
  here[id], last = true, id
  if redis.call('SADD', counted, id .. ':' .. score) == 1 then
    if is_sorted then redis.call('ZADD', members, score, member) else redis.call('RPUSH', members, member) end
  end
end
for n = 1, 5 do redis.call('EXPIRE', KEYS[n], kept) end
local total = tonumber(redis.call('GET', size) or known_size) + tonumber(redis.call('GET', more) or 0)
if total < 1 or redis.call(is_sorted and 'ZCARD' or 'LLEN', members) < total then return '' end
-- Whose claim has run out may have died; who asks again may be the one who has it.
local claimed = redis.call('GET', claim)
if claimed and here[claimed] then
  redis.call('DEL', claim)
  last = claimed
end
return redis.call('SET', claim, last, 'NX', 'EX', patience) and last or ''
"""
)

#: KEYS: those of JOIN. ARGV: size, the moment at which it expires (milliseconds; "" for never), the chord's id, the present
#: moment. A chord that is begun again while it runs keeps its counts, and who sends its body.
START = Script(
    r"""
local size, claim, begun = KEYS[3], KEYS[6], KEYS[7]
if redis.call('GET', claim) == 'done' then redis.call('DEL', claim) end
if ARGV[2] == '' then redis.call('SET', size, ARGV[1]) else redis.call('SET', size, ARGV[1], 'PXAT', ARGV[2]) end
redis.call('ZADD', begun, ARGV[4], ARGV[3])
"""
)

#: KEYS: those of JOIN. Returns what stands in the fourth, `<task id>:<index>` of each part; nothing while not all have ended.
PARTS = Script(
    r"""
local members, more, size, counted = unpack(KEYS)
local total = redis.call('GET', size)
local is_list = redis.call('TYPE', members).ok == 'list'
if not total or redis.call(is_list and 'LLEN' or 'ZCARD', members) < total + (redis.call('GET', more) or 0) then return {} end
return redis.call('SMEMBERS', counted)
"""
)

#: KEYS: those of JOIN. Returns the indexes of the parts that were counted: by stock workers, too, as their scores say it. Of
#: parts in a list they stand in the fourth only, and nil is returned if not all do.
ENDED = Script(
    r"""
local members, more, size, counted = unpack(KEYS)
local found = {}
local kind = redis.call('TYPE', members).ok
if kind == 'zset' then
  local pairs = redis.call('ZRANGE', members, 0, -1, 'WITHSCORES')
  for n = 2, #pairs, 2 do found[#found + 1] = pairs[n] end
elseif kind == 'list' then
  if redis.call('LLEN', members) ~= redis.call('SCARD', counted) then return nil end
  for _, part in ipairs(redis.call('SMEMBERS', counted)) do found[#found + 1] = string.match(part, '[^:]*$') end
end
return found
"""
)

#: KEYS: the sorted set of chords begun here. ARGV: from when on they are not quiet, the present moment, how many at most.
QUIET = Script(
    r"""
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, group in ipairs(found) do redis.call('ZADD', KEYS[1], ARGV[2], group) end
return found
"""
)

#: KEYS: members that were added to a group, with their places; further parts, which JOIN expects; and its size. ARGV: task
#: id, seconds to keep it, 1 if it is a part of a chord. Returns the place of the member.
GROW = Script(
    r"""
local added, more, size = unpack(KEYS)
local id, kept, is_part = unpack(ARGV)
local place = redis.call('HLEN', added) + (redis.call('GET', size) or 0)
if redis.call('HSETNX', added, id, place) == 1 and is_part == '1' then
  redis.call('INCR', more)
  redis.call('EXPIRE', more, kept)
end
redis.call('EXPIRE', added, kept)
return tonumber(redis.call('HGET', added, id))
"""
)

#: KEYS: those of JOIN. ARGV: seconds for which a part that is told late is to see that the chord is over, the chord's id, and
#: the key of the members that were added.
OVER = Script(
    r"""
local is_chord = redis.call('EXISTS', KEYS[1], KEYS[6]) > 0
redis.call('DEL', ARGV[3], unpack(KEYS, 1, 5))
if is_chord then redis.call('SET', KEYS[6], 'done', 'EX', ARGV[1]) end
redis.call('ZREM', KEYS[7], ARGV[2])
"""
)

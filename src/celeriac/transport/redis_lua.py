r"""The Lua of the Redis transport. Every verb that changes a message is one script, so no process can die in between.

Keys (after `global_keyprefix`), besides kombu's lists, `unacked` and `unacked_index`:

    celeriac:odd             hash   token → element, for elements on lease that stock workers could not restore
    celeriac:leases:<queue>  zset   token → end of its lease
    celeriac:delayed:<queue> zset   "<token>\n<element>" → moment from which it may be delivered
    celeriac:agenda          zset   "l<queue>" and "d<queue>" → a moment not after the first one in the two above
    celeriac:dead            zset   "<number>:<task id>" → number
    celeriac:letters         hash   number → "<died at>\n<deliveries> <starts>\n<head>\n<element>"
    celeriac:letter_number   string the last number

Moments are milliseconds by the server's clock, but the scores of `unacked_index` seconds, as stock writes them.

A *token* names one lease: "<random>-<number>:<list>", with "!" in front if the element is in `celeriac:odd`. In `unacked`
it stands where stock has the delivery tag, which is a key to it and no more. The value is `[element, "", queue]`: a stock
worker that restores it puts it back on the queue it came from. A lease is held while its token is in the hash.

An *element* is kombu's envelope. One that comes again ends with the counts `"celeriac": [deliveries, starts]`: so they
travel with the message, also through stock workers, and nothing has to be cleaned up. In a list no counts mean none yet,
on lease the first delivery.
"""

from __future__ import annotations

from celeriac.results.redis_connection import Script
from celeriac.results.redis_lua import PUT

__all__ = ["COMMIT", "DELETE", "EXTEND", "FETCH", "PURGE", "REPLAY", "RESTORE", "SIZE", "START"]

#: KEYS 1-4: unacked, unacked_index, odd, agenda. ARGV 1: prefix of all keys.
_COMMON = r"""
local UNACKED, INDEX, ODD, AGENDA = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local PREFIX = ARGV[1]
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function leases(queue) return PREFIX .. 'celeriac:leases:' .. queue end
local function delayed(queue) return PREFIX .. 'celeriac:delayed:' .. queue end
local function address(queue) return ', "", ' .. cjson.encode(queue) .. ']' end
local function list_of(token) return PREFIX .. string.match(token, '^[^:]*:(.*)$') end
local function hash_of(token) if string.byte(token) == 33 then return ODD else return UNACKED end end

-- Deliveries and starts that an element tells; nil if it tells none. (Searching near its end costs less than cutting.)
local function counts(element)
  if not string.find(element, ', "celeriac": [', -60, true) then return nil end
  local deliveries, starts = string.match(string.sub(element, -60), ', "celeriac": %[(%d+), (%d+)%]}$')
  if deliveries then return tonumber(deliveries), tonumber(starts) end
end

-- Whether there is a place for counts: it looks like a JSON object.
local function is_object(element)
  return #element > 2 and string.byte(element) == 123 and string.byte(element, -1) == 125
end

-- An element without counts.
local function bare(element)
  if not counts(element) then return element end
  local tail = string.sub(element, -60)
  return string.sub(element, 1, #element - #tail + string.find(tail, ', "celeriac": [', 1, true) - 1) .. '}'
end

-- The same element with these counts, if it has a place for them.
local function recount(element, deliveries, starts)
  if not is_object(element) then return element end
  return string.sub(bare(element), 1, -2) .. ', "celeriac": [' .. deliveries .. ', ' .. starts .. ']}'
end

-- The element of a lease, if it is still held. Without counts it is on its first delivery.
local function held(token, queue)
  local element = redis.call('HGET', hash_of(token), token)
  if element and string.byte(token) ~= 33 then element = string.sub(element, 2, -#address(queue) - 1) end
  return element
end

local function flag(text, last)
  local comma = string.sub(text, last + 1, last + 1) == '}' and '' or ', '
  return string.sub(text, 1, last) .. '"redelivered": true' .. comma .. string.sub(text, last + 1)
end

-- The element as stock marks one that comes again. Inside of JSON texts quotes are escaped, so what is found is a key;
-- the envelope's own headers come first, its delivery_info last.
local function redelivered(element)
  if string.sub(element, 1, 10) ~= '{"body": "' or string.find(element, '"redelivered": true', 1, true) then
    return element
  end
  local _, last = string.find(element, '.*"delivery_info": {')
  if last then element = flag(element, last) end
  _, last = string.find(element, '"headers": {', 1, true)
  if last then element = flag(element, last) end
  return element
end

local function remind(kind, queue, moment) redis.call('ZADD', AGENDA, 'LT', moment, kind .. queue) end

-- Leases that are over: back to the head of their lists.
local function recover(queue)
  local tokens = redis.call('ZRANGEBYSCORE', leases(queue), '-inf', NOW, 'LIMIT', 0, 200)
  for n = #tokens, 1, -1 do
    local token = tokens[n]
    local element = held(token, queue)
    if element then
      local deliveries, starts = counts(element)
      redis.call('RPUSH', list_of(token), redelivered(recount(element, deliveries or 1, starts or 0)))
      redis.call('HDEL', hash_of(token), token)
    end
    redis.call('ZREM', leases(queue), token)
    redis.call('ZREM', INDEX, token)
  end
  return #tokens
end

-- Delayed messages that are due: to the head of their lists, the earliest first in turn.
local function promote(queue)
  local members = redis.call('ZRANGEBYSCORE', delayed(queue), '-inf', NOW, 'LIMIT', 0, 1000)
  for n = #members, 1, -1 do
    local token, element = string.match(members[n], '^([^\n]*)\n(.*)$')
    redis.call('RPUSH', list_of(token), element)
  end
  if #members > 0 then redis.call('ZREMRANGEBYRANK', delayed(queue), 0, #members - 1) end
  return #members
end

local function follow_agenda()
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', AGENDA, '-inf', NOW, 'LIMIT', 0, 16)) do
    local kind, queue = string.sub(entry, 1, 1), string.sub(entry, 2)
    local key = delayed(queue)
    if kind == 'l' then recover(queue); key = leases(queue) else promote(queue) end
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then redis.call('ZADD', AGENDA, first[2], entry) else redis.call('ZREM', AGENDA, entry) end
  end
end
"""

#: A full server refuses what takes memory, unless the script has written before. What keeps leases alive and lets workers
#: empty the queues must go on then: so these scripts begin with a write that does nothing.
_GOES_ON = "redis.call('ZREM', INDEX, '')\n"

#: A *wish* for messages, in ARGV: random part of the tokens, limit, how many of these may come from the lists, milliseconds of
#: the lease, number of queues, whether queues share ("1") or come in strict order, the queues, the moment after which nobody
#: waits for the answer. Its lists are KEYS 5…, all queues of the most urgent step first.
#: The answer is milliseconds until the agenda's next entry (-1: none; -2: it was too late), then token, element, token, …
_WISH = r"""
local random, left, lease, queues, shares, names, from_lists, in_time = '', 0, 0, 0, false, 0, 0, true
local answer = {-1}

-- Returns where it ends.
local function read_wish(at)
  random, left, from_lists = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  lease, queues, shares, names = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), ARGV[at + 5] == '1', at + 5
  in_time = NOW <= tonumber(ARGV[names + queues + 1])
  return names + queues + 2
end

-- Types first: an error must not come when an element is out of its list already.
local function check_types()
  redis.call('HLEN', UNACKED); redis.call('HLEN', ODD); redis.call('ZCARD', INDEX)
  for q = 1, queues do redis.call('ZCARD', leases(ARGV[names + q])) end
end

-- Whether a stock worker can restore this element. What begins and ends as kombu writes it is taken for whole.
local function is_sound(element)
  if string.sub(element, 1, 10) == '{"body": "' and string.find(element, '"delivery_tag": "', -150, true) then return true end
  local ok, value = pcall(cjson.decode, element)
  return ok and type(value) == 'table' and type(value.headers) == 'table' and type(value.properties) == 'table'
    and type(value.properties.delivery_info) == 'table'
end

-- The element with this delivery counted. A first one, by far the most frequent, is told by the absence of counts.
local function counted(element)
  local deliveries, starts = counts(element)
  if deliveries then return recount(element, deliveries + 1, starts) end
  -- A stock worker had it before: its mark is in delivery_info, near the end, as well as in the headers.
  if string.find(element, '"redelivered": true', -400, true) then return recount(element, 2, 0) end
  return element
end

local function lease_all(elements, key, queue)
  local name, ending, ends_at = string.sub(key, #PREFIX + 1), address(queue), NOW + lease
  local whole, odd, index, ends = {}, {}, {}, {}
  for _, element in ipairs(elements) do
    local token = random .. '-' .. (#answer + 1) .. ':' .. name
    element = counted(element)
    if is_object(element) and is_sound(element) then
      whole[#whole + 1] = token
      whole[#whole + 1] = '[' .. element .. ending
      index[#index + 1] = ends_at / 1000
      index[#index + 1] = token
    else
      token = '!' .. token
      odd[#odd + 1] = token
      odd[#odd + 1] = element
    end
    ends[#ends + 1] = ends_at
    ends[#ends + 1] = token
    answer[#answer + 1] = token
    answer[#answer + 1] = element
  end
  if #whole > 0 then
    redis.call('HSET', UNACKED, unpack(whole))
    redis.call('ZADD', INDEX, unpack(index))
  end
  if #odd > 0 then redis.call('HSET', ODD, unpack(odd)) end
  redis.call('ZADD', leases(queue), unpack(ends))
  remind('l', queue, ends_at)
  left = left - #elements
end

-- From the lists: `from_lists` at most.
local function take_all()
  local may = math.min(left, from_lists)
  local function take(key, queue, want)
    local elements = want > 0 and redis.call('RPOP', key, want)
    if elements and #elements > 0 then
      lease_all(elements, key, queue)
      may = may - #elements
    end
  end
  for first = 5, #KEYS, math.max(queues, 1) do
    local share = shares and math.ceil(may / queues) or may
    for round = 1, 2 do
      for q = 1, queues do
        if may > 0 then take(KEYS[first + q - 1], ARGV[names + q], math.min(share, may)) end
      end
      share = may
      if queues == 1 or may == 0 then break end
    end
    if may == 0 then break end
  end
end
"""

#: ARGV 2…: a wish. Returns its answer.
FETCH = Script(
    _COMMON
    + _GOES_ON
    + _WISH
    + r"""
read_wish(2)
if not in_time then return {-2} end
check_types()
follow_agenda()
take_all()
local following = redis.call('ZRANGE', AGENDA, 0, 0, 'WITHSCORES')
if following[2] then answer[1] = math.max(0, tonumber(following[2]) - NOW) end
return answer
"""
)

#: ARGV 2…: "1" and a wish, or "0"; then for each commit token, queue, action (a, r, d, x), starts, moment or head, number of
#: arguments of the record (0 or 6), these, number of commands, and each as number of its words and the words. Returns the
#: numbers (1, …) of lost leases and the wish's answer. What is sent to an empty queue that is wished for is leased at once: so
#: the next step of a chain needs no other call, and nobody's bell rings in vain.
COMMIT = Script(
    _COMMON
    + PUT
    + _WISH
    + r"""
local at = 3
if ARGV[2] == '1' then
  at = read_wish(3)
  if not in_time or not pcall(check_types) then left, from_lists = 0, 0 end
end

-- Queues by their lists, as long as these are empty.
local empty
local function empty_lists()
  if not empty then
    empty = {}
    if #KEYS < 1000 and redis.call('EXISTS', unpack(KEYS, 5)) == 0 then -- unpack has a limit
      for n = 5, #KEYS do empty[KEYS[n]] = ARGV[names + (n - 5) % queues + 1] end
    end
  end
  return empty
end

-- LPUSH, or a lease of its own.
local function push(key, first, last)
  local queue = left > 0 and empty_lists()[key]
  if queue and last - first < left then
    lease_all({unpack(ARGV, first, last)}, key, queue)
  else
    if queue then empty = {} end
    redis.call('LPUSH', key, unpack(ARGV, first, last))
  end
end

local function word() local value = ARGV[at]; at = at + 1; return value end

local function skip_or_do(does)
  for _ = 1, tonumber(word()) do
    local words = tonumber(word())
    if does then
      if ARGV[at] == 'LPUSH' then push(ARGV[at + 1], at + 2, at + words - 1) else redis.call(unpack(ARGV, at, at + words - 1)) end
    end
    at = at + words
  end
end

local function bury(element, starts, about)
  local deliveries, counted = counts(element)
  local number = redis.call('INCR', PREFIX .. 'celeriac:letter_number')
  local id, head = string.match(about, '^([^\n]*)\n(.*)$')
  redis.call('ZADD', PREFIX .. 'celeriac:dead', number, number .. ':' .. id)
  redis.call('HSET', PREFIX .. 'celeriac:letters', number, NOW .. '\n' .. (deliveries or 1) .. ' ' ..
    math.max(counted or 0, starts) .. '\n' .. head .. '\n' .. bare(element))
end

local function dispose(token, queue, action, starts, about)
  local element = held(token, queue)
  if action == 'x' then return bury(element, starts, about) end
  element = redelivered(recount(element, counts(element) or 1, starts))
  if action == 'r' then
    redis.call('RPUSH', list_of(token), element)
  else
    redis.call('ZADD', delayed(queue), about, string.gsub(token, '^!', '') .. '\n' .. element)
    remind('d', queue, about)
  end
end

-- Tokens whose lease has ended, by queue: they leave the tables all at once.
local ended, tokens = {}, {}
local function leave(token, queue)
  ended[queue] = ended[queue] or {}
  table.insert(ended[queue], token)
  table.insert(tokens, token)
end

local lost, number = {}, 0
while at <= #ARGV do
  number = number + 1
  local token, queue, action, starts, about = word(), word(), word(), tonumber(word()), word()
  -- Without a token nothing is settled: a task is recorded and sent, be its record refused or not.
  local is_new = token == ''
  local is_held = is_new or redis.call('HEXISTS', hash_of(token), token) == 1
  local does = is_held
  if tonumber(word()) > 0 then
    local key, value, companion, expires, retries, deliveries = word(), word(), word(), word(), word(), word()
    -- A refused record means that a newer execution has told the outcome, and published what follows.
    does = is_held and (put(key, value, companion, expires, retries, deliveries) or is_new)
  end
  skip_or_do(does)
  if is_new then
    -- nothing was held
  elseif is_held then
    if action ~= 'a' then dispose(token, queue, action, starts, about) end
    redis.call('HDEL', hash_of(token), token)
  else
    lost[#lost + 1] = number
  end
  if not is_new then leave(token, queue) end
end
for queue, gone in pairs(ended) do redis.call('ZREM', leases(queue), unpack(gone)) end
if #tokens > 0 then redis.call('ZREM', INDEX, unpack(tokens)) end
if from_lists > 0 then
  follow_agenda()
  take_all()
end
return {lost, answer}
"""
)

#: ARGV 2…: milliseconds, then token and queue of each lease. Returns the numbers (1, …) of those that are lost.
EXTEND = Script(
    _COMMON
    + _GOES_ON
    + r"""
local lost, ends = {}, NOW + tonumber(ARGV[2])
for n = 3, #ARGV, 2 do
  local token, queue = ARGV[n], ARGV[n + 1]
  if redis.call('HEXISTS', hash_of(token), token) == 1 then
    redis.call('ZADD', leases(queue), ends, token)
    redis.call('ZADD', INDEX, 'XX', ends / 1000, token)
    remind('l', queue, ends)
  else
    redis.call('ZREM', leases(queue), token)
    lost[#lost + 1] = (n - 1) / 2
  end
end
return lost
"""
)

#: ARGV 2…: token, queue and starts of each lease whose execution has begun. Returns nothing.
START = Script(
    _COMMON
    + _GOES_ON
    + r"""
for n = 2, #ARGV, 3 do
  local token, queue = ARGV[n], ARGV[n + 1]
  local element = held(token, queue)
  if element then
    element = recount(element, counts(element) or 1, tonumber(ARGV[n + 2]))
    if string.byte(token) ~= 33 then element = '[' .. element .. address(queue) end
    redis.call('HSET', hash_of(token), token, element)
  end
end
"""
)

#: KEYS 5…: the queue's lists. ARGV 2: the queue. Returns how many are ready, delayed, on lease.
SIZE = Script(
    _COMMON
    + r"""
local queue, ready = ARGV[2], 0
for n = 5, #KEYS do ready = ready + redis.call('LLEN', KEYS[n]) end
for _, key in ipairs({leases(queue), delayed(queue)}) do ready = ready + redis.call('ZCOUNT', key, '-inf', NOW) end
local later = '(' .. NOW
return {ready, redis.call('ZCOUNT', delayed(queue), later, '+inf'), redis.call('ZCOUNT', leases(queue), later, '+inf')}
"""
)

_PURGE = r"""
local queue, count = ARGV[2], 0
while recover(queue) == 200 do end
for n = 5, #KEYS do
  count = count + redis.call('LLEN', KEYS[n])
  redis.call('UNLINK', KEYS[n])
end
count = count + redis.call('ZCARD', delayed(queue))
redis.call('UNLINK', delayed(queue))
redis.call('ZREM', AGENDA, 'd' .. queue)
"""

#: KEYS 5…: the queue's lists. ARGV 2: the queue. Returns how many messages were deleted; those on lease stay.
PURGE = Script(_COMMON + _PURGE + "return count\n")

#: The same, and those on lease go, too.
DELETE = Script(
    _COMMON
    + _PURGE
    + r"""
for _, token in ipairs(redis.call('ZRANGE', leases(queue), 0, -1)) do
  count = count + redis.call('HDEL', hash_of(token), token)
  redis.call('ZREM', INDEX, token)
end
redis.call('UNLINK', leases(queue))
redis.call('ZREM', AGENDA, 'l' .. queue)
return count
"""
)

#: ARGV 2…: tag, element, number of lists, and these, for each message that a stock worker left behind. Puts those that
#: are still there back at the head of the lists. Returns how many.
RESTORE = Script(
    _COMMON
    + r"""
local count, at = 0, 2
while at <= #ARGV do
  local tag, element, lists = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if redis.call('ZREM', INDEX, tag) == 1 and redis.call('HDEL', UNACKED, tag) == 1 then
    for n = 1, lists do redis.call('RPUSH', ARGV[at + 2 + n], element) end
    count = count + 1
  end
  at = at + 3 + lists
end
return count
"""
)

#: ARGV 2…: number, member of `celeriac:dead`, list and element of each dead letter; without a list it is only deleted.
#: Returns how many there were.
REPLAY = Script(
    _COMMON
    + r"""
local count = 0
for n = 2, #ARGV, 4 do
  if redis.call('HDEL', PREFIX .. 'celeriac:letters', ARGV[n]) == 1 then
    count = count + 1
    if ARGV[n + 2] ~= '' then
      redis.call('LPUSH', ARGV[n + 2], recount(ARGV[n + 3], 0, 0))
    end
  end
  redis.call('ZREM', PREFIX .. 'celeriac:dead', ARGV[n + 1])
end
return count
"""
)

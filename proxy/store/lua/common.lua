-- Shared by every script: it is put in front of each. Commands of Redis 6.2 only.
--
-- All keys of one team share the hash tag {team}, so a cluster keeps them together. ARGV[1] is their
-- common beginning, KEYS[1] one of them; the others are built here, in the same slot.
--   epoch            random, made with the team's first admission
--   owners           sidecars with open holds, by the time of their last heartbeat
--   holds:OWNER      hold id -> "mask|claims" of what it took
--   tombs:OWNER      the same for holds that were booked in full because their owner died, for a day
--   done:ID          a hold that was settled although nothing of it was here
--   c:KIND:KEY       a counter: u booked (or a meter's level), a the meter's time, h held
--   w:OWNER          number of the owner's last batch of settlements
--   usage:MONTH      the ledger's rows
local RATE, TOKENS, SLOTS, QUOTA, MONEY = 1, 2, 3, 4, 5
local NAMES = {'rate', 'tokens', 'slots', 'quota', 'money'}
local SLACK = 1e-6
local DEAD = 15000000          -- microseconds without a heartbeat
local DAY = 86400
local base = ARGV[1]

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function int(n) return string.format('%.0f', n) end

-- A claim is {kind, key, amount, limit or -1, window in microseconds, enforce, above or -1, time to live in ms}.
local function counter_key(claim) return base .. 'c:' .. NAMES[claim[1]] .. ':' .. claim[2] end

local function load(key)
  local row = redis.call('HMGET', key, 'u', 'a', 'h')
  return {used = tonumber(row[1] or 0), at = tonumber(row[2] or now), held = tonumber(row[3] or 0)}
end

-- Bring a meter to now. A clock that ran backwards leaks nothing, and goes on from where it is.
local function leak(counter, limit, window)
  if limit > 0 and window > 0 and counter.used > 0 and now > counter.at then
    counter.used = math.max(0, counter.used - (now - counter.at) * limit / window)
  end
  counter.at = now
end

local function save(key, kind, counter, ttl)
  if counter.held < 0 then counter.held = 0 end
  if kind == SLOTS then
    if counter.held == 0 then redis.call('DEL', key) else redis.call('HSET', key, 'h', int(counter.held)) end
    return
  end
  if kind == RATE or kind == TOKENS then
    redis.call('HSET', key, 'u', string.format('%.9f', counter.used), 'a', int(counter.at), 'h', int(counter.held))
  else
    redis.call('HSET', key, 'u', int(counter.used), 'h', int(counter.held))
  end
  redis.call('PEXPIRE', key, ttl)
end

-- Book what a hold's claim came to: give back `held`, add `booked`.
local function book(claim, held, booked)
  local kind, key = claim[1], counter_key(claim)
  local counter = load(key)
  counter.held = counter.held - held
  if kind == TOKENS then leak(counter, claim[4], claim[5]) end
  counter.used = math.max(0, counter.used + booked)
  save(key, kind, counter, claim[8])
end

local function unpack_hold(value)
  local bar = string.find(value, '|', 1, true)
  return string.sub(value, 1, bar - 1), cjson.decode(string.sub(value, bar + 1))
end

-- Book the holds of sidecars that died in full, and keep their ids for a day so that a late settlement corrects.
local function bury()
  local owners = base .. 'owners'
  for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', owners, '(' .. int(now + 1000000), '+inf')) do
    redis.call('ZADD', owners, int(now), ahead)  -- the clock ran backwards
  end
  for _, owner in ipairs(redis.call('ZRANGEBYSCORE', owners, '-inf', '(' .. int(now - DEAD), 'LIMIT', 0, 4)) do
    local holds, tombs = base .. 'holds:' .. owner, base .. 'tombs:' .. owner
    local all = redis.call('HGETALL', holds)
    for i = 1, #all, 2 do
      local mask, claims = unpack_hold(all[i + 1])
      for n, claim in ipairs(claims) do
        if string.byte(mask, n) == 49 then
          local amount = claim[3]
          book(claim, amount, claim[1] == SLOTS and 0 or amount)
        end
      end
      redis.call('HSET', tombs, all[i], all[i + 1])
    end
    if #all > 0 then redis.call('EXPIRE', tombs, DAY) end
    redis.call('DEL', holds)
    redis.call('ZREM', owners, owner)
  end
end

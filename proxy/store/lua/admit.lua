-- Take all of a hold's claims or none (`peek`: look only).
-- KEYS[1] epoch. ARGV: base, owner, hold id, a fresh epoch, claims as JSON, "1" to take.
-- Returns {epoch, first refused or -1} and six numbers a claim:
--   0 taken, 1 refused, 2 not taken and not refused; remaining; used; held; wait and reset in microseconds.
local owner, id, take = ARGV[2], ARGV[3], ARGV[6] == '1'
local claims = cjson.decode(ARGV[5])

local epoch = redis.call('GET', KEYS[1])
if take then
  bury()
  -- A release that overtook its own admission, which had been given up as lost.
  if redis.call('EXISTS', base .. 'done:' .. id) == 1 then return {'', -2} end
  if not epoch then
    epoch = ARGV[4]
    redis.call('SET', KEYS[1], epoch)
  end
end

local counters, before, keys, flags, waits = {}, {}, {}, {}, {}
local refused, booked, holding = -1, 0, false
for i, claim in ipairs(claims) do
  local kind, amount, limit, window = claim[1], claim[3], claim[4], claim[5]
  local key = counter_key(claim)
  local counter = counters[key]
  if not counter then
    counter = load(key)
    counters[key] = counter
  end
  keys[i], waits[i] = key, 0
  local meter = kind == RATE or kind == TOKENS
  if meter then
    if take and counter.at > now then  -- the clock ran backwards: the meter goes on from here, refused or not
      redis.call('HSET', key, 'a', int(now))
    end
    leak(counter, limit, window)
  elseif kind ~= SLOTS then
    booked = counter.used
  end
  if not before[key] then before[key] = {used = counter.used, at = counter.at, held = counter.held} end
  if claim[7] >= 0 and booked < claim[7] then
    flags[i] = 2
  elseif limit >= 0 and counter.used + counter.held + amount > limit + (meter and SLACK or 0) then
    flags[i] = 1
    if kind == SLOTS then
      waits[i] = 1000000
    elseif meter then
      local room = limit - counter.held - amount
      if limit == 0 then
        waits[i] = window
      elseif room < 0 then
        waits[i] = math.max(1000000, counter.used * window / limit)
      else
        waits[i] = (counter.used - room) * window / limit
      end
    end
    if claim[6] == 1 and refused < 0 then refused = i - 1 end
  else
    flags[i] = 0
    if kind == RATE then
      counter.used = counter.used + amount
    else
      counter.held = counter.held + amount
      holding = true
    end
  end
end

if refused >= 0 or not take then
  counters = before
else
  local mask = {}
  for i, claim in ipairs(claims) do
    mask[i] = flags[i] == 0 and claim[1] ~= RATE and '1' or '0'
    if flags[i] == 0 and counters[keys[i]] and not counters[keys[i]].saved then
      counters[keys[i]].saved = true
      save(keys[i], claim[1], counters[keys[i]], claim[8])
    end
  end
  if holding then
    redis.call('ZADD', base .. 'owners', int(now), owner)
    redis.call('HSET', base .. 'holds:' .. owner, id, table.concat(mask) .. '|' .. ARGV[5])
  end
end

local reply = {epoch or '', refused}
for i, claim in ipairs(claims) do
  local kind, limit, window, counter = claim[1], claim[4], claim[5], counters[keys[i]]
  local used, reset = counter.used, 0
  if kind == RATE or kind == TOKENS then
    if limit > 0 then reset = (used + counter.held) * window / limit end
    used = math.ceil(used - SLACK)
  end
  local remaining = limit < 0 and 0 or math.max(0, math.floor(limit - counter.used - counter.held + SLACK))
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = flags[i], remaining, used + counter.held
  reply[n + 4], reply[n + 5], reply[n + 6] = counter.held, math.ceil(waits[i]), math.ceil(reset)
end
return reply

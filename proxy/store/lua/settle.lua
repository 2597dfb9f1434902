-- Book a batch of settlements and ledger rows of one sidecar and team, once.
-- KEYS[1] the owner's batch number. ARGV: base, owner, batch number, batch as JSON:
--   settle  {{id, epoch, claims, actuals, mask}, …}
--   book    {{claim, amount}, …}: truths of calls that were never admitted here
--   usage   {{month, row, {{sum, amount}, …}}, …}, and keep: the ledger's time to live in seconds
local owner, number = ARGV[2], tonumber(ARGV[3])
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) >= number then return 0 end
local batch = cjson.decode(ARGV[4])
local holds, tombs = base .. 'holds:' .. owner, base .. 'tombs:' .. owner
local epoch = redis.call('GET', base .. 'epoch')

for _, item in ipairs(batch.settle) do
  local id, claims, actuals = item[1], item[3], item[4]
  local value = redis.call('HGET', holds, id)
  if value then
    redis.call('HDEL', holds, id)
    local mask = unpack_hold(value)
    for n, claim in ipairs(claims) do
      if string.byte(mask, n) == 49 then book(claim, claim[3], claim[1] == SLOTS and 0 or actuals[n]) end
    end
  else
    value = redis.call('HGET', tombs, id)
    if value then
      redis.call('HDEL', tombs, id)
      local mask = unpack_hold(value)
      for n, claim in ipairs(claims) do
        local more = actuals[n] - claim[3]
        -- A meter may have leaked what was booked: giving it back could be giving it twice.
        if string.byte(mask, n) == 49 and claim[1] ~= SLOTS and (more > 0 or claim[1] ~= TOKENS) then
          book(claim, 0, more)
        end
      end
    elseif item[2] ~= epoch and redis.call('SET', base .. 'done:' .. id, '1', 'NX', 'EX', DAY) then
      for n, claim in ipairs(claims) do
        if string.byte(item[5], n) == 49 and claim[1] ~= RATE and claim[1] ~= SLOTS and actuals[n] > 0 then
          book(claim, 0, actuals[n])
        end
      end
    end
  end
end
for _, item in ipairs(batch.book) do book(item[1], 0, item[2]) end
for _, item in ipairs(batch.usage) do
  local key = base .. 'usage:' .. item[1]
  for _, sum in ipairs(item[3]) do redis.call('HINCRBY', key, item[2] .. sum[1], int(sum[2])) end
  redis.call('EXPIRE', key, batch.keep)
end
if redis.call('HLEN', holds) == 0 then redis.call('ZREM', base .. 'owners', owner) end
redis.call('SET', KEYS[1], int(number), 'EX', 2 * DAY)
return 1

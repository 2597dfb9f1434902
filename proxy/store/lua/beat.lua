-- Say that a sidecar with open holds is alive, and bury those that are not. KEYS[1] owners. ARGV: base, owner.
if redis.call('EXISTS', base .. 'holds:' .. ARGV[2]) == 1 then redis.call('ZADD', KEYS[1], int(now), ARGV[2]) end
bury()
return 1

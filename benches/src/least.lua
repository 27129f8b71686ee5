-- The least that one could do for a queue with a limit of requests and one of open calls, in one call: requests join a sorted set, and the
-- heads go while both limits have room. Nothing is safe here: a lost answer loses calls, a dead instance keeps them, windows jump.
-- KEYS: queue, requests in this window, open calls. ARGV: limit of requests, of calls, calls that ended, then a name for each new request.
local queue, window, open = KEYS[1], KEYS[2], KEYS[3]
redis.call('DECRBY', open, ARGV[3])
for i = 4, #ARGV do
  redis.call('ZADD', queue, i, ARGV[i])
end
local requests = tonumber(redis.call('GET', window) or 0)
local calls = tonumber(redis.call('GET', open) or 0)
local granted = {}
for _ = 4, #ARGV do
  if requests >= tonumber(ARGV[1]) or calls >= tonumber(ARGV[2]) then
    break
  end
  granted[#granted + 1] = redis.call('ZPOPMIN', queue)[1]
  requests = redis.call('INCR', window)
  calls = redis.call('INCR', open)
end
redis.call('EXPIRE', window, 60)
return granted

-- KEYS: the session. ARGV: id, what the keys of indexes begin with, the channel.
local user = redis.call('HGET', KEYS[1], 'user')
redis.call('DEL', KEYS[1])
if user then
    redis.call('ZREM', ARGV[2] .. user, ARGV[1])
end
redis.call('PUBLISH', ARGV[3], 's:' .. ARGV[1])

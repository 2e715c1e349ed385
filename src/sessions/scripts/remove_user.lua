-- KEYS: the user's index. ARGV: user, what the keys of sessions begin with, the channel.
local ended = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if redis.call('DEL', ARGV[2] .. id) == 1 then
        table.insert(ended, id)
    end
    redis.call('PUBLISH', ARGV[3], 's:' .. id)
end
redis.call('DEL', KEYS[1])
-- For sessions that the index has lost, and that a gateway may remember.
redis.call('PUBLISH', ARGV[3], 'u:' .. ARGV[1])
return ended

-- KEYS: the user's index. ARGV: what the keys of sessions begin with, the channel.
local ended = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if redis.call('DEL', ARGV[1] .. id) == 1 then
        table.insert(ended, id)
    end
    redis.call('PUBLISH', ARGV[2], id)
end
redis.call('DEL', KEYS[1])
return ended

-- KEYS: sessions. ARGV: inactivity, margin, then when each was seen. What is not there is not made, but returned by its
-- place among the keys.
local missing = {}
for place, key in ipairs(KEYS) do
    local seen = tonumber(ARGV[place + 2])
    local session = redis.call('HMGET', key, 'seen', 'expires')
    if not session[1] then
        table.insert(missing, place)
    elseif tonumber(session[1]) < seen then
        redis.call('HSET', key, 'seen', ARGV[place + 2])
        local left = math.min(tonumber(session[2]) - seen, tonumber(ARGV[1]))
        redis.call('PEXPIRE', key, string.format('%.0f', left + tonumber(ARGV[2])))
    end
end
return missing

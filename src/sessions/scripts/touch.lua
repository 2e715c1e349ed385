-- KEYS: a session. ARGV: inactivity, margin, when it was seen. Says whether it is there; what is not is not made.
local seen = tonumber(ARGV[3])
local session = redis.call('HMGET', KEYS[1], 'seen', 'expires')
if not session[1] then
    return 0
end
if tonumber(session[1]) < seen then
    redis.call('HSET', KEYS[1], 'seen', ARGV[3])
    local left = math.min(tonumber(session[2]) - seen, tonumber(ARGV[1]))
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left + tonumber(ARGV[2])))
end
return 1

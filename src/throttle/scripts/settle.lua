-- KEYS: meters. ARGV: of each, `clear` to forgive everything, or `one` or `all` to take one failure back or as many as the
-- last `clear` forgave; the beginning of the window in which that holds, and the times of the failure and of the one before.
local forgiven = 1
for place, key in ipairs(KEYS) do
    local how, window, last, before = unpack(ARGV, 4 * place - 3, 4 * place)
    local record = redis.call('HMGET', key, 'first', 'failures', 'last')
    local failures = tonumber(record[2]) or 0
    if how == 'clear' then
        forgiven = math.max(failures, 1)
        redis.call('DEL', key)
    elseif record[1] == window and failures > 0 then
        local less = how == 'all' and forgiven or 1
        redis.call('HINCRBY', key, 'failures', -math.min(less, failures))
        if record[3] == last then
            redis.call('HSET', key, 'last', before)
        end
    end
end

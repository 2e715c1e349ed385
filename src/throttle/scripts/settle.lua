-- KEYS: meters. ARGV: of each, `all` to forgive everything, or the window in which one failure is taken back.
for place, key in ipairs(KEYS) do
    if ARGV[place] == 'all' then
        redis.call('DEL', key)
    else
        local record = redis.call('HMGET', key, 'first', 'failures')
        if record[1] == ARGV[place] and tonumber(record[2]) > 0 then
            redis.call('HINCRBY', key, 'failures', -1)
        end
    end
end

-- KEYS: meters. ARGV: now, then of each meter how many failures are too many, within what time, and for how long.
-- Gives how long to wait, or nothing to wait for and the beginning of each meter's window.
local now = tonumber(ARGV[1])
local meters, wait = {}, 0
for place, key in ipairs(KEYS) do
    local record = redis.call('HMGET', key, 'first', 'last', 'failures')
    local meter = {
        first = tonumber(record[1]) or now,
        last = tonumber(record[2]) or now,
        failures = tonumber(record[3]) or 0,
        most = tonumber(ARGV[3 * place - 1]),
        find = tonumber(ARGV[3 * place]),
        ban = tonumber(ARGV[3 * place + 1]),
    }
    -- A clock that was set back makes nothing older.
    local since_first, since_last = math.max(now - meter.first, 0), math.max(now - meter.last, 0)
    if meter.failures >= meter.most then
        wait = math.max(wait, meter.ban - since_last)
        meter.over = since_last >= meter.ban
    else
        meter.over = meter.failures == 0 or since_first > meter.find
    end
    meters[place] = meter
end
if wait > 0 then
    return {wait, {}}
end
local windows = {}
for place, key in ipairs(KEYS) do
    local meter = meters[place]
    if meter.over then
        meter.first, meter.failures = now, 0
    end
    redis.call('HSET', key, 'first', string.format('%.0f', meter.first), 'last', ARGV[1], 'failures', meter.failures + 1)
    redis.call('PEXPIRE', key, math.max(meter.find, meter.ban) + 1)
    windows[place] = meter.first
end
return {0, windows}

-- KEYS: meters. ARGV: now, or less than nothing for the server's own time; of each meter how many arguments follow, whether
-- its waits rise ('r') or a ban forgives ('w'), how long few failures count and how long many do, then pairs of how many
-- failures are too many and for how long.
-- Gives the place of the meter with the longest wait and that wait, or nothing to wait for, and of each meter the beginning of its window,
-- this failure's time and that of the one before.
local now = tonumber(ARGV[1])
if now < 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local meters, longest, wait, at = {}, 0, 0, 2
for place, key in ipairs(KEYS) do
    local record = redis.call('HMGET', key, 'first', 'last', 'failures')
    local meter = {
        first = tonumber(record[1]) or now,
        last = tonumber(record[2]) or now,
        failures = tonumber(record[3]) or 0,
        few = tonumber(ARGV[at + 2]),
        many = tonumber(ARGV[at + 3]),
        too_many = tonumber(ARGV[at + 4]),
    }
    local rises, ends, step = ARGV[at + 1] == 'r', at + tonumber(ARGV[at]), 0
    for pair = at + 4, ends, 2 do
        if meter.failures >= tonumber(ARGV[pair]) then
            step = tonumber(ARGV[pair + 1])
        end
    end
    -- A clock that was set back makes nothing older.
    local since_first, since_last = math.max(now - meter.first, 0), math.max(now - meter.last, 0)
    if step - since_last > wait then
        longest, wait = place, step - since_last
    end
    if meter.failures >= meter.too_many then
        meter.over = since_last >= meter.many
    elseif rises then
        meter.over = meter.failures == 0 or since_last >= meter.few
    else
        meter.over = meter.failures == 0 or since_first > meter.few
    end
    meters[place], at = meter, ends + 1
end
if wait > 0 then
    return {longest, wait, {}}
end
local windows = {}
for place, key in ipairs(KEYS) do
    local meter = meters[place]
    if meter.over then
        meter.first, meter.last, meter.failures = now, now, 0
    end
    local first, failures = string.format('%.0f', meter.first), meter.failures + 1
    redis.call('HSET', key, 'first', first, 'last', string.format('%.0f', now), 'failures', failures)
    local lasts = failures >= meter.too_many and meter.many or meter.few
    redis.call('PEXPIRE', key, lasts + 1)
    windows[place] = {meter.first, now, meter.last}
end
return {0, 0, windows}

-- KEYS: a user's index. Removes it, and with that all sessions in it, and says which they were.
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
return ids

-- KEYS: a session. Removes it and says whose it was.
local user = redis.call('HGET', KEYS[1], 'user')
redis.call('DEL', KEYS[1])
return user

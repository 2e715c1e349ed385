-- KEYS: the session. ARGV: id, what the keys of indexes begin with.
local session = redis.call('HMGET', KEYS[1], 'user', 'record', 'seen', 'expires')
-- A session that its user's index does not know could not be ended together with the others: it is none.
if not session[1] or not redis.call('ZSCORE', ARGV[2] .. session[1], ARGV[1]) then
    return false
end
return session

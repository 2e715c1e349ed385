-- KEYS: the session, the user's index. ARGV: id, user, record, last seen, end, how long the session is worth keeping,
-- how long the index is.
redis.call('HSET', KEYS[1], 'user', ARGV[2], 'record', ARGV[3], 'seen', ARGV[4], 'expires', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
-- The index must outlive each session in it.
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[7]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
end

-- KEYS: a session. ARGV: user, record, last seen, end, sealed generation, how long the session is worth keeping.
redis.call('HSET', KEYS[1], 'user', ARGV[1], 'record', ARGV[2], 'seen', ARGV[3], 'expires', ARGV[4], 'generation', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])

-- How far users are with their first device. Whoever has finished a login has begun one, at an instant that was not noted.
ALTER TABLE users ADD COLUMN first_login_at BIGINT;
UPDATE users SET first_login_at = last_login_at;
ALTER TABLE users ADD COLUMN qr_seen_at BIGINT;
ALTER TABLE users ADD COLUMN skips BIGINT NOT NULL DEFAULT 0;

-- In which browser a login was begun, and when: absent for one that an older gateway has begun.
ALTER TABLE pending_logins ADD COLUMN browser BLOB;
ALTER TABLE pending_logins ADD COLUMN begun_at BIGINT NOT NULL DEFAULT 0;

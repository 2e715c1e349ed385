CREATE TABLE pending_logins (
    id_hash BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    record BLOB NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX pending_logins_user ON pending_logins (user_id);

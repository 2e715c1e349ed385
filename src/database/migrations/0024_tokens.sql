-- Tokens of machines. Of a name, one row is the current one; others have been replaced and may still be good for a while.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- 1, or absent.
    is_current BIGINT,
    hash BLOB NOT NULL,
    -- Whom it is for: a user, or a service of this name.
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    service TEXT,
    scope TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT,
    UNIQUE (name, is_current)
);
CREATE INDEX tokens_by_user ON tokens (user_id);

-- Links in mail, by the hash of what the link carries. One whose user has another name or password than when it was made is void.
CREATE TABLE links (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose TEXT NOT NULL,
    user_name TEXT NOT NULL,
    -- 0: there was none.
    password_set_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX links_user ON links (user_id);
CREATE INDEX links_expires_at ON links (expires_at);

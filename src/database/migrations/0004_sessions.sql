-- What listing and expiry need stands outside `record`, which is sealed.
CREATE TABLE sessions (
    id BLOB PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL,
    record BLOB NOT NULL,
    last_seen BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX sessions_by_user ON sessions (user_id);

-- What ended sessions there are that Redis, which may lose what it was told last, must not bring back.
CREATE TABLE ended_sessions (
    id TEXT PRIMARY KEY,
    until BIGINT NOT NULL
);

-- How often all sessions of a user were ended at once: those of an earlier generation are over.
CREATE TABLE session_generations (
    user_id TEXT PRIMARY KEY,
    generation BIGINT NOT NULL
);

-- Of which generation a session is: how often all sessions of its user, and those of everybody, had been ended before.
ALTER TABLE sessions ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
UPDATE sessions SET generation =
    COALESCE((SELECT g.generation FROM session_generations g WHERE g.user_id = sessions.user_id), 0);

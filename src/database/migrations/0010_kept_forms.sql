-- Forms that came just after their user's session had run out. `record` is sealed, and empty once it is of no use.
CREATE TABLE kept_forms (
    id TEXT PRIMARY KEY,
    browser BLOB NOT NULL,
    user_id TEXT NOT NULL,
    record BLOB NOT NULL,
    size BIGINT NOT NULL,
    kept_at BIGINT NOT NULL,
    taken_at BIGINT
);
CREATE INDEX kept_forms_by_user ON kept_forms (user_id);

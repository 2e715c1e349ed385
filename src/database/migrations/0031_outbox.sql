-- Mail on its way. Whoever sends one moves due_at ahead first, so that nobody else takes it meanwhile.
CREATE TABLE outbox (
    -- Also in its Message-ID, so that it is the same at every attempt.
    id TEXT PRIMARY KEY,
    -- What it is about, and whom: limits count by these.
    kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    recipient TEXT NOT NULL,
    -- Sealed, since it may have a link that opens something; empty once it has been sent or given up.
    letter BLOB NOT NULL,
    -- waiting, sent or failed.
    state TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    -- Given up then.
    until BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    last_error TEXT
);
CREATE INDEX outbox_due ON outbox (state, due_at);
CREATE INDEX outbox_recipient ON outbox (recipient, made_at);
CREATE INDEX outbox_made ON outbox (made_at);

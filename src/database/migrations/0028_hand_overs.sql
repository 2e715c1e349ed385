-- On their way from one site to another: who is signed in there, and gets in here without a page.
CREATE TABLE hand_overs (
    -- The hash of the code, which the browser carries.
    id TEXT PRIMARY KEY,
    -- The hash of what the browser has had since it asked.
    browser TEXT NOT NULL,
    site TEXT NOT NULL,
    -- The session's token and the page asked for, sealed with a key that takes the code.
    record BLOB NOT NULL,
    made_at BIGINT NOT NULL
);
-- Where else a session has been used than where it was begun.
CREATE TABLE session_sites (
    session_id TEXT NOT NULL,
    site TEXT NOT NULL,
    since BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (session_id, site)
);

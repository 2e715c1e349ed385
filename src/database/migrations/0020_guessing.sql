-- Failures by whom or what is limited, under keyed digests. Few, and forgotten soon.
CREATE TABLE failed_logins (
    name BLOB PRIMARY KEY,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX failed_logins_expires_at ON failed_logins (expires_at);

-- Wrong passwords by strangers since the last login.
ALTER TABLE passwords ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;

-- Recovery codes have a count of their own.
ALTER TABLE second_factors ADD COLUMN recovery_failures BIGINT NOT NULL DEFAULT 0;

-- What somebody is told at the next login, by the network that it came from.
CREATE TABLE wrong_tries (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    network TEXT NOT NULL,
    passwords BIGINT NOT NULL,
    codes BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, network)
);

-- The keys of the signed assertion. `secret` is sealed for its own row; the public part is derived from it.
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    secret BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    signs_from BIGINT NOT NULL,
    -- Set when the key is given up for compromised: from then on it neither signs nor is published.
    retired_at BIGINT
);

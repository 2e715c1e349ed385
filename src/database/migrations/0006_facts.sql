CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
);

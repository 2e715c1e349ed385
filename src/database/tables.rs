//! Every table and column that `copy` copies and operators are told of.
//!
//! Without the change feed: a follower of another store starts afresh. A test compares it with the schema.

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Text(&'static str),
    Number(&'static str),
    Bytes(&'static str),
}

impl Column {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text(name) | Self::Number(name) | Self::Bytes(name) => name,
        }
    }
}

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// How many of the columns, from the first on, are the key.
    pub(super) key: usize,
    pub(super) columns: &'static [Column],
}

use Column::{Bytes, Number, Text};

/// In an order in which no table refers to a later one.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "users",
        key: 1,
        columns: &[
            Text("id"),
            Text("name"),
            Text("email"),
            Text("display_name"),
            Text("group_names"),
            Number("disabled"),
            Number("created_at"),
            Number("last_login_at"),
            Number("first_login_at"),
            Number("qr_seen_at"),
            Number("skips"),
        ],
    },
    Table {
        name: "passwords",
        key: 1,
        columns: &[Text("user_id"), Text("hash"), Number("set_at"), Number("failures")],
    },
    Table {
        name: "devices",
        key: 1,
        columns: &[
            Text("id"),
            Text("user_id"),
            Text("name"),
            Bytes("secret"),
            Number("drift"),
            Number("created_at"),
            Number("last_used_at"),
        ],
    },
    Table {
        name: "second_factors",
        key: 1,
        columns: &[
            Text("user_id"),
            Number("failures"),
            Number("last_step"),
            Bytes("unseen_codes"),
            Number("unseen_since"),
            Number("recovery_failures"),
        ],
    },
    Table { name: "recovery_codes", key: 2, columns: &[Text("user_id"), Text("hash")] },
    Table {
        name: "sessions",
        key: 1,
        columns: &[
            Bytes("id"),
            Text("user_id"),
            Bytes("record"),
            Number("last_seen"),
            Number("expires_at"),
            Number("generation"),
        ],
    },
    Table {
        name: "pending_logins",
        key: 1,
        columns: &[
            Bytes("id_hash"),
            Text("user_id"),
            Bytes("record"),
            Number("expires_at"),
            Bytes("browser"),
            Number("begun_at"),
        ],
    },
    Table { name: "facts", key: 1, columns: &[Text("name"), Bytes("value")] },
    Table {
        name: "signing_keys",
        key: 1,
        columns: &[
            Text("kid"),
            Bytes("secret"),
            Number("created_at"),
            Number("signs_from"),
            Number("retired_at"),
        ],
    },
    Table {
        name: "kept_forms",
        key: 1,
        columns: &[
            Text("id"),
            Bytes("browser"),
            Text("user_id"),
            Bytes("record"),
            Number("size"),
            Number("kept_at"),
            Number("taken_at"),
        ],
    },
    Table { name: "ended_sessions", key: 1, columns: &[Text("id"), Number("until")] },
    Table { name: "session_generations", key: 1, columns: &[Text("user_id"), Number("generation")] },
    Table {
        name: "failed_logins",
        key: 1,
        columns: &[
            Bytes("name"),
            Number("first_at"),
            Number("last_at"),
            Number("failures"),
            Number("expires_at"),
        ],
    },
    Table {
        name: "wrong_tries",
        key: 2,
        columns: &[
            Text("user_id"),
            Text("network"),
            Number("passwords"),
            Number("codes"),
            Number("first_at"),
            Number("last_at"),
        ],
    },
    Table {
        name: "tokens",
        key: 1,
        columns: &[
            Text("id"),
            Text("name"),
            Number("is_current"),
            Bytes("hash"),
            Text("user_id"),
            Text("service"),
            Text("scope"),
            Number("created_at"),
            Number("expires_at"),
            Number("revoked_at"),
            Number("last_used_at"),
        ],
    },
    Table {
        name: "hand_overs",
        key: 1,
        columns: &[Text("id"), Text("browser"), Text("site"), Bytes("record"), Number("made_at")],
    },
    Table {
        name: "session_sites",
        key: 2,
        columns: &[Text("session_id"), Text("site"), Number("since"), Number("expires_at")],
    },
    Table {
        name: "outbox",
        key: 1,
        columns: &[
            Text("id"),
            Text("kind"),
            Text("subject_id"),
            Text("recipient"),
            Bytes("letter"),
            Text("state"),
            Number("made_at"),
            Number("due_at"),
            Number("until"),
            Number("attempts"),
            Text("last_error"),
        ],
    },
    Table {
        name: "links",
        key: 1,
        columns: &[
            Text("id"),
            Text("user_id"),
            Text("purpose"),
            Text("user_name"),
            Number("password_set_at"),
            Number("expires_at"),
        ],
    },
];

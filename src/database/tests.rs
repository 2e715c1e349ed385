//! The durable store on both kinds of database: its feed, its migrations, and its failures.

use std::time::Duration;

use futures_util::{
    FutureExt as _,
    future::{join_all, try_join_all},
};
use sqlx::Row as _;

use super::{
    Change, Config, CopyError, Database, DatabaseError,
    postgres::{self, Host},
    sealed::SEALED,
    tables::{Column, TABLES},
    test_database::{On, TestDatabase, config, on_each_database},
    test_server::PostgresServer,
};
use crate::{clock::Timestamp, secret::TokenHash};

const NOW: Timestamp = Timestamp::from_unix_seconds(100);

on_each_database![
    another_process_reads_what_was_announced,
    a_feed_that_went_back_changes_everything,
    many_that_start_at_once_migrate_once,
    a_schema_newer_than_this_program_is_refused,
    a_change_of_which_a_part_was_refused_is_not_kept,
    everything_is_copied_or_nothing_is,
];

async fn another_process_reads_what_was_announced(on: On) {
    let (store, writer) = TestDatabase::new(on).await;
    let reader = store.open().await;
    let start = reader.latest_change().await.unwrap();
    let session = Change::Session(TokenHash::from_bytes([7; 32]));
    let announced = [Change::User("u1".into()), session, Change::SigningKeys, Change::All];
    let mut transaction = writer.write().await.unwrap();
    for change in &announced {
        writer.announce(&mut transaction, change, NOW).await.unwrap();
    }
    assert_eq!(reader.changes_after(start).await.unwrap(), (start, Vec::new()));
    transaction.commit().await.unwrap();

    let newest = reader.latest_change().await.unwrap();
    assert_eq!(reader.changes_after(start).await.unwrap(), (newest, announced.to_vec()));
    assert_eq!(reader.changes_after(newest).await.unwrap(), (newest, Vec::new()));
    writer.forget_changes(Timestamp::from_unix_seconds(200)).await.unwrap();
    assert_eq!(reader.changes_after(newest).await.unwrap(), (newest, Vec::new()));
}

/// Two concurrent writers: the one that began first commits last.
#[tokio::test(flavor = "multi_thread")]
async fn no_announcement_is_missed_when_commits_overtake_each_other() {
    let (store, slow) = TestDatabase::new(On::Postgres).await;
    let (quick, reader) = (store.open().await, store.open().await);
    let start = reader.latest_change().await.unwrap();
    let mut first = slow.write().await.unwrap();
    slow.announce(&mut first, &Change::User("slow".into()), NOW).await.unwrap();
    let overtaking = tokio::spawn(async move {
        let mut second = quick.write().await.unwrap();
        quick.announce(&mut second, &Change::User("quick".into()), NOW).await.unwrap();
        second.commit().await.unwrap();
    });
    // Either it has overtaken the first one, or it waits for it in the server.
    let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while !overtaking.is_finished()
        && sqlx::query(waiting).fetch_one(&reader).await.unwrap().get::<i64, _>(0) == 0
    {
        tokio::task::yield_now().await;
    }
    let (position, mut users) = reader.changes_after(start).await.unwrap();
    first.commit().await.unwrap();
    overtaking.await.unwrap();
    users.extend(reader.changes_after(position).await.unwrap().1);
    users.sort_by_key(|change| format!("{change:?}"));
    assert_eq!(users, ["quick", "slow"].map(|user| Change::User(user.into())));
}

async fn a_feed_that_went_back_changes_everything(on: On) {
    let (_store, database) = TestDatabase::new(on).await;
    for _ in 0..3 {
        let mut transaction = database.write().await.unwrap();
        database.announce(&mut transaction, &Change::All, NOW).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let newest = database.latest_change().await.unwrap();
    // As in a stand-by that took over and lacked the last ones.
    sqlx::query("DELETE FROM changes WHERE id > $1").bind(newest - 2).execute(&database).await.unwrap();
    assert_eq!(database.changes_after(newest).await.unwrap(), (newest - 2, vec![Change::All]));
    assert_eq!(database.changes_after(newest - 2).await.unwrap(), (newest - 2, Vec::new()));
}

async fn many_that_start_at_once_migrate_once(on: On) {
    let store = TestDatabase::empty(on);
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let config = store.config.clone();
        opening.spawn(async move { Database::open(&config).await.unwrap() });
    }
    let opened = opening.join_all().await;
    let (theirs, ours) = opened[0].versions().await.unwrap();
    assert_eq!(theirs, ours);
    // Numbers may be skipped; the table's key ensures that none was applied twice.
    let newest =
        sqlx::query("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&opened[1]).await.unwrap();
    assert_eq!(newest.get::<i64, _>(0), ours);
}

async fn a_schema_newer_than_this_program_is_refused(on: On) {
    let (store, database) = TestDatabase::new(on).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 SELECT 9999, description, success, checksum, execution_time FROM _sqlx_migrations \
                 WHERE version = 1";
    sqlx::query(newer).execute(&database).await.unwrap();
    let refused = Database::open(&store.config).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Newer { theirs: 9999, .. }), "{refused}");
    assert!(refused.to_string().contains("newer program"));
}

async fn a_change_of_which_a_part_was_refused_is_not_kept(on: On) {
    let (_store, database) = TestDatabase::new(on).await;
    let mut transaction = database.write().await.unwrap();
    database.announce(&mut transaction, &Change::All, NOW).await.unwrap();
    let refused =
        sqlx::query("INSERT INTO facts (name, value) VALUES (NULL, NULL)").execute(&mut *transaction);
    assert!(refused.await.is_err());
    assert!(matches!(transaction.commit().await, Err(DatabaseError::Aborted)));
    assert_eq!(database.latest_change().await.unwrap(), 0);
    // An unfinished transaction changes nothing either, and the store still works.
    let mut transaction = database.write().await.unwrap();
    database.announce(&mut transaction, &Change::All, NOW).await.unwrap();
    drop(transaction);
    assert_eq!(database.latest_change().await.unwrap(), 0);
    let mut transaction = database.write().await.unwrap();
    database.announce(&mut transaction, &Change::All, NOW).await.unwrap();
    transaction.commit().await.unwrap();
}

/// The message when the store cannot be opened: the whole chain of errors.
async fn complaint(config: postgres::Config) -> String {
    let error = Database::open(&Config::Postgres(config)).await.unwrap_err();
    crate::errors::Chain(&error).to_string()
}

#[tokio::test]
async fn what_is_wrong_with_the_server_is_said_with_what_to_do_and_without_the_password() {
    let server = PostgresServer::start(&["password_encryption=scram-sha-256"]);
    server.sql("postgres", "CREATE ROLE gate LOGIN PASSWORD 'sesame'");
    server.require_passwords();
    let name = server.create_database();
    let right = postgres::Config {
        user: "gate".into(),
        password: Some("sesame".into()),
        ..config(&[&server], name.clone())
    };
    let wrong = postgres::Config { password: Some("hunter2".into()), ..right.clone() };
    let nowhere = postgres::Config { name: "nowhere".into(), ..right.clone() };
    let dead = postgres::Config { hosts: vec![Host { name: "127.0.0.1".into(), port: 1 }], ..right.clone() };
    let encrypted = postgres::Config { tls: "verify-full".into(), ..right.clone() };
    for (config, advice) in [
        (&wrong, "set storage.password or storage.password_file"),
        (&nowhere, "createdb --owner=gate nowhere"),
        (&dead, "is PostgreSQL running"),
        (&encrypted, "storage.ca"),
        // From version 15 on only the owner may.
        (&right, "GRANT CREATE ON SCHEMA public TO gate"),
    ] {
        let said = complaint(config.clone()).await;
        assert!(said.contains(advice), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("sesame"), "{said}");
    }
    server.sql(&name, "GRANT CREATE ON SCHEMA public TO gate");
    Database::open(&Config::Postgres(right)).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn tls_is_checked_against_a_private_authority() {
    let server = PostgresServer::start_encrypted();
    let name = server.create_database();
    let encrypted = postgres::Config {
        hosts: vec![Host { name: "localhost".into(), port: server.port() }],
        tls: "verify-full".into(),
        ca: Some(server.folder().join("ca.pem")),
        ..config(&[&server], name)
    };
    let database = Database::open(&Config::Postgres(encrypted.clone())).await.unwrap();
    let row = sqlx::query("SELECT CAST(ssl AS INT) FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert_eq!(row.fetch_one(&database).await.unwrap().get::<i32, _>(0), 1);
    let elsewhere = Host { name: "127.0.0.1".into(), port: server.port() };
    for wrong in [
        postgres::Config { ca: None, ..encrypted.clone() },
        postgres::Config { hosts: vec![elsewhere], ..encrypted },
    ] {
        let said = complaint(wrong).await;
        assert!(said.contains("storage.ca"), "{said}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_an_error_in_time_and_no_connection_of_it_is_used_again() {
    let server = PostgresServer::start(&[]);
    let hanging = Config::Postgres(config(&[&server], server.create_database()));
    let database = Database::open(&hanging).await.unwrap();
    let mut begun = database.write().await.unwrap();
    server.freeze();
    let start = tokio::time::Instant::now();
    let bound = postgres::PATIENCE + Duration::from_millis(500);
    assert!(sqlx::query("SELECT 1").execute(&mut *begun).await.is_err());
    assert!(start.elapsed() < bound);
    assert!(begun.commit().await.is_err());
    let start = tokio::time::Instant::now();
    let all = join_all((0..20).map(|_| database.ping())).await;
    assert!(all.iter().all(Result::is_err));
    assert!(start.elapsed() < bound, "{:?}", start.elapsed());
    server.thaw();
    back_within_a_second(&database).await;
}

async fn back_within_a_second(database: &Database) {
    let start = tokio::time::Instant::now();
    while database.ping().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
}

/// Errors of the embedded store name its file and give their reason once: locked, read-only, broken, full, gone.
#[tokio::test]
async fn what_is_wrong_with_the_file_is_said_with_its_name() {
    let (store, database) = TestDatabase::new(On::Sqlite).await;
    let file = store.config.file().unwrap().to_owned();
    let says = |error: &(dyn std::error::Error + 'static), reason: &str| {
        let said = crate::errors::Chain(error).to_string();
        assert!(said.contains(&file.display().to_string()), "{said}");
        assert_eq!(said.matches(reason).count(), 1, "{said}");
    };
    let change = "INSERT INTO facts (name, value) VALUES ('x', x'00')";
    let mut own = database.acquire().await.unwrap();
    for (pragma, back, reason) in [
        ("PRAGMA query_only = 1", "PRAGMA query_only = 0", "attempt to write a readonly database"),
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000", "database or disk is full"),
    ] {
        sqlx::query(pragma).execute(&mut own).await.unwrap();
        // Larger than the remaining space.
        let change = change.replace("x'00'", "zeroblob(1000000)");
        says(&sqlx::query(sqlx::AssertSqlSafe(change)).execute(&mut own).await.unwrap_err(), reason);
        sqlx::query(back).execute(&mut own).await.unwrap();
    }
    sqlx::query("PRAGMA busy_timeout = 0").execute(&mut own).await.unwrap();
    let lock = database.write().await.unwrap();
    says(&sqlx::query(change).execute(&mut own).await.unwrap_err(), "database is locked");
    lock.rollback().await.unwrap();
    sqlx::query("PRAGMA busy_timeout = 5000").execute(&mut own).await.unwrap();
    drop(own);
    // The violation of a constraint says nothing about the file.
    database.note_fact("x", b"1").await.unwrap();
    let twice = sqlx::query(change).execute(&database).await.unwrap_err();
    assert!(twice.as_database_error().unwrap().is_unique_violation());
    assert!(!twice.to_string().contains("portcullis.db"), "{twice}");

    database.close().await;
    std::fs::write(&file, "no database at all, but a text").unwrap();
    says(&Database::open(&store.config).await.unwrap_err(), "file is not a database");
    std::fs::remove_file(&file).unwrap();
    says(&Database::existing(&store.config).await.unwrap_err(), "there is no database");
}

/// A copy of the file of a stopped gateway is complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_is_one_file() {
    for _ in 0..20 {
        let (store, database) = TestDatabase::new(On::Sqlite).await;
        let held = join_all((0..3).map(|_| database.acquire())).await;
        assert!(held.iter().all(Result::is_ok));
        // Some come back before, one was abandoned, and one comes back while the store is closed.
        let mut held = held.into_iter().map(Result::unwrap);
        let (mut first, last) = (held.next().unwrap(), held.next().unwrap());
        let _ = sqlx::query("SELECT 1").execute(&mut first).now_or_never();
        drop((first, held));
        tokio::join!(database.close(), async {
            tokio::task::yield_now().await;
            drop(last);
        });
        let file = store.config.file().unwrap();
        let files = std::fs::read_dir(file.parent().unwrap()).unwrap();
        let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files, [file]);
    }
}

/// A file deleted under a gateway is not made again, empty.
#[tokio::test]
async fn a_file_that_is_gone_is_not_made_anew() {
    let (store, database) = TestDatabase::new(On::Sqlite).await;
    let held = database.acquire().await.unwrap();
    let file = store.config.file().unwrap();
    std::fs::rename(file, file.with_extension("elsewhere")).unwrap();
    let error = database.acquire().await.unwrap_err();
    let said = crate::errors::Chain(&error).to_string();
    assert!(said.contains("unable to open database file") && said.contains("portcullis.db"), "{said}");
    assert!(!file.exists());
    drop(held);
}

#[tokio::test]
async fn a_server_that_is_gone_is_an_error_at_once_that_names_it() {
    let server = PostgresServer::start(&[]);
    let gone = Config::Postgres(config(&[&server], server.create_database()));
    let database = Database::open(&gone).await.unwrap();
    let table = sqlx::query("SELECT * FROM nowhere").execute(&database).await.unwrap_err();
    assert!(table.to_string().contains(&format!("(PostgreSQL at 127.0.0.1:{})", server.port())), "{table}");
    server.kill();
    assert!(database.ping().await.is_err());
    for _ in 0..20 {
        // Less than the wait for a connection.
        let answer = tokio::time::timeout(Duration::from_secs(1), database.ping()).await;
        let error = answer.expect("at once").unwrap_err();
        let said = crate::errors::Chain(&error).to_string();
        assert!(said.contains(&format!("127.0.0.1:{}", server.port())), "{said}");
        assert_eq!(said.matches("refused").count(), 1, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_to_the_stand_by_is_survived_and_the_old_primary_never_asked_again() {
    let primary = PostgresServer::start(&[]);
    let name = primary.create_database();
    let stand_by = PostgresServer::follow(&primary);
    // In the order in which the wrong one comes first.
    let both = postgres::Config { max_connections: 4, ..config(&[&stand_by, &primary], name.clone()) };
    let database = Database::open(&Config::Postgres(both)).await.unwrap();
    database.note_fact("before", b"1").await.unwrap();
    // All connections except the listening one are to the old server.
    let sessions = database.for_sessions();
    let held = try_join_all((0..3).map(|_| sessions.acquire())).await.unwrap();
    drop(held);
    let replayed = "SELECT COUNT(*) FROM facts WHERE name = 'before'";
    while !stand_by.says(&name, replayed, "1") {
        tokio::task::yield_now().await;
    }

    primary.kill();
    assert!(database.note_fact("half", b"1").await.is_err(), "a stand-by takes no changes");
    assert_eq!(stand_by.sql(&name, "SELECT pg_promote()"), "t\n");
    let promoted = tokio::time::Instant::now();
    while database.note_fact("after", b"1").await.is_err() {}
    assert!(promoted.elapsed() < Duration::from_secs(4), "{:?}", promoted.elapsed());
    let facts = stand_by.sql(&name, "SELECT name FROM facts ORDER BY name");
    assert_eq!(facts, "after\nbefore\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_hung_is_not_listened_to_when_it_wakes() {
    let primary = PostgresServer::start(&[]);
    let name = primary.create_database();
    let stand_by = PostgresServer::follow(&primary);
    let both = Config::Postgres(config(&[&primary, &stand_by], name.clone()));
    let database = Database::open(&both).await.unwrap();
    while !stand_by.says(&name, "SELECT COUNT(*) FROM pg_class WHERE relname = 'facts'", "1") {
        tokio::task::yield_now().await;
    }
    drop(try_join_all((0..4).map(|_| database.acquire())).await.unwrap());
    primary.freeze();
    assert_eq!(stand_by.sql(&name, "SELECT pg_promote()"), "t\n");
    let start = tokio::time::Instant::now();
    while database.note_fact("new", b"1").await.is_err() {}
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    primary.thaw();
    for _ in 0..20 {
        assert!(database.fact("new").await.unwrap().is_some());
    }
    assert_eq!(primary.sql(&name, "SELECT COUNT(*) FROM facts"), "0\n");
}

/// Whoever adds a column has to say that it is copied.
#[tokio::test]
async fn every_column_of_the_schema_is_known_to_the_copy() {
    let (_store, database) = TestDatabase::new(On::Sqlite).await;
    let query = "SELECT m.name || '.' || c.name || ' ' || c.type AS line \
                 FROM sqlite_schema m, pragma_table_info(m.name) c \
                 WHERE m.type = 'table' AND m.name NOT IN ('changes', '_sqlx_migrations', 'sqlite_sequence')";
    let rows = sqlx::query(query).fetch_all(&database).await.unwrap();
    let mut schema: Vec<String> = rows.iter().map(|row| row.get("line")).collect();
    let mut known: Vec<String> = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().map(move |column| (table.name, column)))
        .map(|(table, column)| {
            let kind = match column {
                Column::Text(_) => "TEXT",
                Column::Number(_) => "BIGINT",
                Column::Bytes(_) => "BLOB",
            };
            format!("{table}.{} {kind}", column.name())
        })
        .collect();
    schema.sort();
    known.sort();
    assert_eq!(known, schema);
}

/// More rows than one batch, with every kind of value, also NULL.
async fn filled(database: &Database) {
    for number in 0..450_i64 {
        let statement = "INSERT INTO users VALUES ($1, $1, $1, 'Ä', 'a,b', 0, $2, $2, $2, NULL, 3)";
        sqlx::query(statement).bind(format!("u{number}")).bind(number).execute(database).await.unwrap();
        let statement = "INSERT INTO second_factors VALUES ($1, 3, $2, NULL, NULL, 0)";
        sqlx::query(statement).bind(format!("u{number}")).bind(number).execute(database).await.unwrap();
        for code in ["a", "b"] {
            let statement = "INSERT INTO recovery_codes VALUES ($1, $2)";
            sqlx::query(statement).bind(format!("u{number}")).bind(code).execute(database).await.unwrap();
        }
    }
    database.note_fact("bytes", &(0..=255).collect::<Vec<u8>>()).await.unwrap();
}

async fn everything_is_copied_or_nothing_is(on: On) {
    let (_source, source) = TestDatabase::new(On::Sqlite).await;
    filled(&source).await;
    let (_target, target) = TestDatabase::new(on).await;
    // A caller stops waiting half-way.
    let batches = std::sync::atomic::AtomicU32::new(0);
    let stopped = source.copy_into(&target, |_| {
        if batches.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 6 {
            std::panic::panic_any("the end of the process");
        }
    });
    let stopped = std::panic::AssertUnwindSafe(stopped);
    assert!(futures_util::FutureExt::catch_unwind(stopped).await.is_err());
    assert!(target.rows().await.unwrap().iter().all(|table| table.rows == 0));

    let copied = source.copy_into(&target, |_| ()).await.unwrap();
    assert_eq!(target.rows().await.unwrap(), source.rows().await.unwrap());
    assert!(copied.iter().all(|table| table.copied == table.rows));
    assert_eq!(copied.iter().find(|table| table.table == "recovery_codes").unwrap().rows, 900);
    assert_eq!(target.fact("bytes").await.unwrap(), source.fact("bytes").await.unwrap());
    let query = "SELECT last_step FROM second_factors WHERE user_id = 'u449' AND unseen_codes IS NULL";
    assert_eq!(sqlx::query(query).fetch_one(&target).await.unwrap().get::<i64, _>(0), 449);

    let again = source.copy_into(&target, |_| ()).await.unwrap_err();
    assert!(matches!(again, CopyError::NotEmpty { table: "users", rows: 450 }), "{again}");
    assert_eq!(target.rows().await.unwrap(), source.rows().await.unwrap());
}

/// Whoever adds a column of bytes has to say whether it is sealed: a key is removed only when no record needs it.
#[test]
fn every_column_of_bytes_is_sealed_or_known_not_to_be() {
    const NOT_SEALED: &[&str] = &[
        "sessions.id",
        "pending_logins.id_hash",
        "pending_logins.browser",
        "kept_forms.browser",
        "failed_logins.name",
        "tokens.hash",
        // With a key derived from its code.
        "hand_overs.record",
    ];
    for table in TABLES {
        for column in table.columns.iter().filter(|column| matches!(column, Column::Bytes(_))) {
            let name = format!("{}.{}", table.name, column.name());
            let sealed = SEALED.iter().any(|sealed| format!("{}.{}", sealed.table, sealed.column) == name);
            assert!(sealed != NOT_SEALED.contains(&&*name), "{name}");
        }
    }
}

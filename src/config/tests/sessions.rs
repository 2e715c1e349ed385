//! `[sessions]`: lifetimes, stores and limits.

use std::time::Duration;

use super::{LEAST, expect_faults_in, load};
use crate::{sessions::WhenFull, web::path::PathPattern};

#[test]
fn to_be_remembered_prolongs_a_session_and_never_shortens_it() {
    let sessions = |lines: &str| load(&format!("{LEAST}[sessions]\n{lines}")).map(|config| config.sessions);
    let day = Duration::from_hours(24);
    let kept = sessions("remember_me = \"30d\"\n").unwrap();
    assert_eq!((kept.remember_me, kept.expiration), (Some(30 * day), day / 2));
    let config = load(&format!("{LEAST}[sessions]\nremember_me = \"24h\"\n")).unwrap();
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    expect_faults_in(
        "[sessions]\nremember_me = \"11h\"",
        &[("sessions.remember_me", 2, "must not be shorter than `expiration` (12h)")],
    );
}

#[test]
fn passive_paths_and_what_happens_when_full_are_read_as_they_are_written() {
    let config = |lines: &str| load(&format!("{LEAST}[sessions]\n{lines}")).unwrap();
    let said =
        config("passive_paths = [\"/api/poll\", \"/comms/*\"]\nmax_per_user = 2\nwhen_full = \"refuse\"\n");
    assert_eq!(
        said.passive_paths,
        [PathPattern::Exact("/api/poll".into()), PathPattern::Below("/comms/".into())]
    );
    assert_eq!((said.sessions.max_per_user, said.sessions.when_full), (Some(2), WhenFull::Refuse));
    assert!(said.warnings.is_empty());
    let without = config("when_full = \"refuse\"\n");
    assert!(without.warnings.to_string().contains("no effect without `sessions.max_per_user`"));
    expect_faults_in(
        "[sessions]\npassive_paths = [\"poll\"]\nwhen_full = \"ask\"",
        &[
            ("sessions.passive_paths[0]", 2, "a path such as `/logout` or `/auth/*`"),
            ("sessions.when_full", 3, "`end_oldest` or `refuse`"),
        ],
    );
}

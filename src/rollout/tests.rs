//! Dates, waves, grace, skips and stages.

use super::*;

fn user(name: &str, groups: &[&str], first_login_at: Option<Timestamp>, skips: u32) -> User {
    let groups = groups.iter().map(|&group| group.to_owned()).collect();
    User { groups, first_login_at, skips, ..User::named(name) }
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_unix_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

#[test]
fn the_instant_itself_is_already_mandatory() {
    let from = Timestamp::from_unix_seconds(1000);
    let rollout = Config { mandatory_from: Some(from), ..Config::default() };
    let ada = user("ada", &[], None, 0);
    let before = from.minus(Duration::from_millis(1));
    let invite = Requirement::Invite {
        due: DueDate { at: from, offset: Offset::UTC },
        days_left: 0,
        skips_left: None,
    };
    assert_eq!(rollout.requirement(&ada, before), invite);
    assert_eq!(rollout.requirement(&ada, from), Requirement::Demand);
    assert_eq!(Config::default().requirement(&ada, before), Requirement::Demand);
}

#[test]
fn days_are_those_of_the_calendar_where_the_date_was_written() {
    for (hours, from, now, days) in [
        (1, "2027-03-02T00:00:00+01:00", "2026-12-01T00:00:00+01:00", 91),
        (1, "2027-03-02T00:00:00+01:00", "2026-12-01T23:59:59+01:00", 91),
        // In UTC it is still the day before.
        (1, "2027-03-02T00:00:00+01:00", "2026-11-30T23:30:00Z", 91),
        (1, "2027-03-02T00:00:00+01:00", "2027-03-01T22:59:59Z", 1),
        (-10, "2027-03-02T00:00:00-10:00", "2027-03-01T23:00:00Z", 1),
        (-10, "2027-03-02T00:00:00-10:00", "2027-03-02T09:59:59Z", 1),
        (14, "2027-03-02T00:00:00+14:00", "2027-02-28T09:59:59Z", 2),
        (0, "2027-03-02T09:00:00Z", "2027-03-02T00:00:00Z", 0),
        (0, "2027-03-02T09:00:00Z", "2027-03-01T23:59:59Z", 1),
        (0, "2028-03-01T00:00:00Z", "2028-02-28T12:00:00Z", 2),
    ] {
        let rollout =
            Config { mandatory_from: Some(at(from)), offset: jiff::tz::offset(hours), ..Config::default() };
        let Requirement::Invite { days_left, .. } = rollout.requirement(&user("ada", &[], None, 0), at(now))
        else {
            panic!("{from} {now}")
        };
        assert_eq!(days_left, days, "{from} {now}");
    }
}

const HOUR: Duration = Duration::from_hours(1);

fn start() -> Timestamp {
    at("2027-01-01T00:00:00Z")
}

fn waves() -> Config {
    let wave = |of, days: u32| Wave { of, from: start().plus(24 * days * HOUR), offset: Offset::UTC };
    Config {
        mandatory_from: Some(start().plus(24 * 60 * HOUR)),
        waves: vec![
            wave(WaveUsers::Groups(vec!["ops".to_owned(), "admins".to_owned()]), 10),
            wave(WaveUsers::Percent(30), 30),
        ],
        ..Config::default()
    }
}

#[test]
fn of_several_dates_a_users_is_the_earliest() {
    let rollout = waves();
    let days = |name: &str, groups: &[&str]| {
        let user = user(name, groups, None, 0);
        let due = rollout.due(&user.id, &user.groups, start()).unwrap();
        due.at.since(start()).as_secs() / 86_400
    };
    let (early, late): (Vec<_>, Vec<_>) =
        (0..200).map(|number| format!("u{number}")).partition(|name| days(name, &[]) == 30);
    assert!((40..=80).contains(&early.len()), "about 30 of a hundred, not {} of 200", early.len());
    assert!(late.iter().all(|name| days(name, &["sales"]) == 60));
    assert!(early.iter().chain(&late).all(|name| days(name, &["sales", "ops"]) == 10));
    assert!(
        early.iter().chain(&late).all(|name| days(name, &["OPS"]) != 10),
        "groups are told by their case"
    );
}

#[test]
fn a_smaller_share_is_part_of_a_larger_one_and_all_are_everybody() {
    let ids: Vec<UserId> = (0..500).map(|number| UserId::of(&format!("u{number}"))).collect();
    let of = |share| ids.iter().filter(|id| WaveUsers::Percent(share).has(id, &[])).collect::<Vec<_>>();
    assert!(of(0).is_empty());
    assert_eq!(of(100).len(), 500);
    assert!(of(10).iter().all(|id| of(30).contains(id)));
}

#[test]
fn the_grace_runs_from_the_first_login_once_and_no_further_than_the_date() {
    let date = start().plus(240 * HOUR);
    let grace = Some(48 * HOUR);
    let until_the_date = Config { mandatory_from: Some(date), grace, ..Config::default() };
    let alone = Config { grace, ..Config::default() };
    for (rollout, first_login, ends) in [
        (&until_the_date, start(), start().plus(48 * HOUR)),
        (&until_the_date, start().plus(230 * HOUR), date),
        (&until_the_date, date.plus(HOUR), date),
        (&alone, start().plus(230 * HOUR), start().plus(278 * HOUR)),
    ] {
        let ada = user("ada", &[], Some(first_login), 0);
        let is_invited = |now| rollout.requirement(&ada, now) != Requirement::Demand;
        assert!(!is_invited(ends) && !is_invited(ends.plus(1000 * HOUR)), "{first_login}");
        assert!(is_invited(ends.minus(Duration::from_millis(1))), "{first_login}");
    }
    // It has not begun before the first login.
    assert!(alone.requirement(&user("ada", &[], None, 0), date) != Requirement::Demand);
}

#[test]
fn who_has_skipped_as_often_as_allowed_skips_no_more() {
    let rollout = Config { skips: Some(2), ..waves() };
    for (skips, left) in [(0, Some(2)), (1, Some(1)), (2, None), (3, None), (u32::MAX, None)] {
        let found = match rollout.requirement(&user("ada", &[], Some(start()), skips), start()) {
            Requirement::Invite { skips_left, .. } => skips_left,
            Requirement::Demand => None,
        };
        assert_eq!(found, left, "{skips}");
    }
}

#[test]
fn stages_are_told_apart_and_their_sum_is_everybody() {
    let rollout = Config { skips: Some(2), ..waves() };
    let (some, now) = (Some(start()), start());
    let seen = |user: User| User { qr_seen_at: some, ..user };
    let mut counts = StageCounts::default();
    for (user, devices, stage, is_blocked) in [
        (user("a", &[], None, 0), 0, Stage::NotStarted, false),
        (user("b", &[], some, 0), 0, Stage::PasswordKnown, false),
        (seen(user("c", &[], some, 0)), 0, Stage::QrSeen, false),
        (seen(user("d", &[], some, 1)), 0, Stage::PutOff, false),
        (seen(user("e", &[], some, 2)), 0, Stage::PutOff, true),
        (seen(user("f", &[], some, 2)), 1, Stage::DeviceSaved, false),
        // From elsewhere, with a device.
        (user("g", &[], None, 0), 2, Stage::DeviceSaved, false),
    ] {
        let standing = Standing::of(&user, devices, &rollout, now).unwrap();
        assert_eq!(standing, Standing { stage, is_blocked }, "{:?}", user.name);
        counts.add(standing);
    }
    assert_eq!((counts.users(), counts.blocked, counts.at(Stage::PutOff)), (7, 1, 2));
    let later = Standing::of(&user("a", &["ops"], None, 0), 0, &rollout, start().plus(240 * HOUR));
    assert!(later.unwrap().is_blocked, "whoever has not started needs a device from the date on as well");
}

#[test]
fn a_date_is_said_as_it_was_written() {
    for (written, said) in [
        ("2027-03-02T00:00:00+01:00", "2 March 2027"),
        ("2027-03-02T00:00:00Z", "2 March 2027"),
        ("2027-01-01T00:00:00-11:00", "1 January 2027"),
        ("2027-03-02T09:00:00+01:00", "2 March 2027 at 09:00 (UTC+1)"),
        ("2027-03-01T23:59:59Z", "1 March 2027 at 23:59 (UTC)"),
        ("2027-03-02T00:30:00-03:30", "2 March 2027 at 00:30 (UTC−3:30)"),
        ("2027-03-02T12:00:00+05:45", "2 March 2027 at 12:00 (UTC+5:45)"),
    ] {
        let instant: jiff::Timestamp = written.parse().unwrap();
        let offset = jiff::fmt::temporal::Pieces::parse(written).unwrap().to_numeric_offset().unwrap();
        let due = DueDate { at: Timestamp::from_unix_millis(instant.as_millisecond()), offset };
        assert_eq!(due.in_words(), said, "{written}");
    }
}

//! Codes of devices and recovery codes, correct and wrong, concurrent and in a row.

use secrecy::ExposeSecret as _;

use super::*;
use crate::{
    clock::Timestamp,
    credentials::{
        EnrolmentScope,
        tests::{Fixture, STEP},
    },
    database::test_database::{On, on_each_database},
    random::OsRandom,
};

on_each_database![
    a_code_is_accepted_once,
    no_code_counts_while_times_are_shown_that_have_been_before,
    the_code_of_the_enrolment_is_spent,
    only_this_step_and_the_one_before_count,
    a_device_known_to_be_ahead_may_be_a_step_ahead,
    any_device_will_do_and_a_wrong_code_is_one_attempt,
    a_code_with_leading_zeros_is_text,
    nobody_logs_in_with_the_code_of_somebody_else,
    secrets_swapped_between_users_open_for_nobody,
    one_secret_that_does_not_open_denies_every_code,
    of_200_posts_of_one_code_one_is_accepted,
    of_200_posts_of_one_recovery_code_one_is_accepted,
    parallel_guesses_all_count_and_the_101st_right_code_fails,
    devices_that_are_off_come_back_by_enrolling_anew_alone,
    success_forgives_and_the_hundredth_try_may_still_be_right,
    a_check_that_breaks_off_changes_nothing,
    a_hundred_wrong_codes_of_one_kind_leave_the_other_as_it_was,
    a_code_sent_twice_is_no_failure,
    a_code_before_the_password_is_used_up_by_being_right_and_counts_nowhere_when_wrong,
];

fn accepted(user: &UserId, kind: CodeKind) -> CodeCheck {
    CodeCheck::Accepted(VerifiedCode::new(user.clone(), kind))
}

/// Runs 200 checks at once and returns how many were accepted, wrong and blocked.
async fn at_once<F>(fixture: &Fixture, check: impl Fn(SecondFactor) -> F) -> [usize; 3]
where
    F: Future<Output = Result<CodeCheck, CredentialsError>> + Send + 'static,
{
    let mut checks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        checks.spawn(check(fixture.second_factor()));
    }
    let mut counts = [0; 3];
    for verdict in checks.join_all().await {
        counts[match verdict.unwrap() {
            CodeCheck::Accepted(_) => 0,
            CodeCheck::Wrong | CodeCheck::Used => 1,
            CodeCheck::Off => 2,
        }] += 1;
    }
    counts
}

async fn a_code_is_accepted_once(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let second_factor = fixture.second_factor();
    let code = phone.code_at(fixture.clock.now());
    let first = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(first, accepted(&fixture.ada, CodeKind::Totp));
    for _ in 0..2 {
        assert_eq!(second_factor.verify_code(&fixture.ada, &code).await.unwrap(), CodeCheck::Used);
        // Still in its window, and still used up.
        fixture.clock.advance(STEP);
    }
    // A clock that jumps back does not restore it either.
    fixture.clock.set(fixture.clock.now().minus(4 * STEP));
    for _ in 0..6 {
        let verdict = second_factor.verify_code(&fixture.ada, &code).await;
        let refused =
            matches!(verdict, Err(CredentialsError::SetBack(_)) | Ok(CodeCheck::Wrong | CodeCheck::Used));
        assert!(refused, "{verdict:?}");
        fixture.clock.advance(STEP);
    }
    let next = phone.code_at(fixture.clock.now());
    let next = second_factor.verify_code(&fixture.ada, &next).await.unwrap();
    assert_eq!(next, accepted(&fixture.ada, CodeKind::Totp));
}

async fn no_code_counts_while_times_are_shown_that_have_been_before(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let (second_factor, hour) = (fixture.second_factor(), 120 * STEP);
    let recovery = fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().unwrap();
    fixture.clock.advance(hour);
    let never_used = phone.code_at(fixture.clock.now());
    fixture.clock.advance(hour);
    assert_eq!(second_factor.verify_code(&fixture.ada, "000000").await.unwrap(), CodeCheck::Wrong);

    fixture.clock.set(fixture.clock.now().minus(hour));
    let refused = second_factor.verify_code(&fixture.ada, &never_used).await;
    assert!(matches!(refused, Err(CredentialsError::SetBack(behind)) if behind == hour), "{refused:?}");
    let secret = TotpSecret::generate(&OsRandom);
    let code = secret.code_at(fixture.clock.now());
    let devices = fixture.devices();
    let refused = devices.enrol(&fixture.bob, &secret, &code, "Phone", EnrolmentScope::FirstDevice).await;
    assert!(matches!(refused, Err(CredentialsError::SetBack(_))), "{refused:?}");
    assert_eq!(fixture.number("SELECT MAX(failures) FROM second_factors").await, 1, "it is not their fault");
    // Codes without a time are not affected.
    let recovery = recovery[0].expose_secret();
    let redeemed = second_factor.redeem_recovery(&fixture.ada, recovery).await.unwrap();
    assert_eq!(redeemed, accepted(&fixture.ada, CodeKind::Recovery));

    fixture.clock.advance(hour);
    let code = phone.code_at(fixture.clock.now());
    let verdict = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Totp));
}

async fn the_code_of_the_enrolment_is_spent(on: On) {
    let fixture = Fixture::new(on).await;
    let secret = TotpSecret::generate(&OsRandom);
    let code = secret.code_at(fixture.clock.now());
    let devices = fixture.devices();
    let enrolled = devices.enrol(&fixture.ada, &secret, &code, "Phone", EnrolmentScope::FirstDevice).await;
    assert_eq!(enrolled.unwrap().unwrap(), VerifiedCode::new(fixture.ada.clone(), CodeKind::Totp));
    let again = fixture.second_factor().verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(again, CodeCheck::Used);
}

async fn only_this_step_and_the_one_before_count(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let second_factor = fixture.second_factor();
    for (offset, right) in [(-3, false), (-2, false), (-1, true), (0, true), (1, false), (2, false)] {
        fixture.clock.advance(10 * STEP);
        let shown_at = Timestamp::from_unix_seconds(fixture.clock.now().unix_seconds() + 30 * offset);
        let code = phone.code_at(shown_at);
        let verdict = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
        assert_eq!(matches!(verdict, CodeCheck::Accepted(_)), right, "{offset}");
    }
}

async fn a_device_known_to_be_ahead_may_be_a_step_ahead(on: On) {
    let fixture = Fixture::new(on).await;
    let ahead = TotpSecret::generate(&OsRandom);
    let code = ahead.code_at(fixture.clock.now().plus(STEP));
    let devices = fixture.devices();
    let enrolled = devices.enrol(&fixture.ada, &ahead, &code, "Fast", EnrolmentScope::FirstDevice).await;
    enrolled.unwrap().unwrap();
    let second_factor = fixture.second_factor();
    for (steps, right) in [(1, true), (2, false), (0, true)] {
        fixture.clock.advance(10 * STEP);
        let code = ahead.code_at(fixture.clock.now().plus(steps * STEP));
        let verdict = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
        assert_eq!(matches!(verdict, CodeCheck::Accepted(_)), right, "{steps}");
    }
}

async fn any_device_will_do_and_a_wrong_code_is_one_attempt(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let tablet = fixture.enrol(&fixture.ada, "Tablet").await;
    let second_factor = fixture.second_factor();
    assert_eq!(second_factor.verify_code(&fixture.ada, "12345").await.unwrap(), CodeCheck::Wrong);
    assert_eq!(fixture.number("SELECT failures FROM second_factors").await, 1);
    for device in [&tablet, &phone] {
        let code = device.code_at(fixture.clock.now());
        let spaced = format!(" {} {} ", &code[..3], &code[3..]);
        let verdict = second_factor.verify_code(&fixture.ada, &spaced).await.unwrap();
        assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Totp));
        fixture.clock.advance(STEP);
    }
    assert_eq!(fixture.number("SELECT failures FROM second_factors").await, 0);
    let used = fixture.devices().list(&fixture.ada).await.unwrap();
    assert!(used.iter().all(|device| device.last_used_at.is_some()));
}

async fn a_code_with_leading_zeros_is_text(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    while !phone.code_at(fixture.clock.now()).starts_with('0') {
        fixture.clock.advance(STEP);
    }
    let code = phone.code_at(fixture.clock.now());
    let second_factor = fixture.second_factor();
    let short = second_factor.verify_code(&fixture.ada, code.trim_start_matches('0')).await.unwrap();
    assert_eq!(short, CodeCheck::Wrong);
    let whole = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(whole, accepted(&fixture.ada, CodeKind::Totp));
}

async fn nobody_logs_in_with_the_code_of_somebody_else(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    fixture.enrol(&fixture.bob, "Phone").await;
    let code = phone.code_at(fixture.clock.now());
    let second_factor = fixture.second_factor();
    assert_eq!(second_factor.verify_code(&fixture.bob, &code).await.unwrap(), CodeCheck::Wrong);
    let ada = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(ada, accepted(&fixture.ada, CodeKind::Totp));
}

async fn secrets_swapped_between_users_open_for_nobody(on: On) {
    let fixture = Fixture::new(on).await;
    let (ada, bob) = (fixture.enrol(&fixture.ada, "Phone").await, fixture.enrol(&fixture.bob, "Phone").await);
    fixture.tamper("CREATE TABLE before AS SELECT id, secret FROM devices").await;
    fixture
        .tamper("UPDATE devices SET secret = (SELECT secret FROM before WHERE before.id <> devices.id)")
        .await;
    for user in [&fixture.ada, &fixture.bob] {
        for device in [&ada, &bob] {
            let code = device.code_at(fixture.clock.now());
            let verdict = fixture.second_factor().verify_code(user, &code).await;
            assert!(matches!(verdict, Err(CredentialsError::Sealed(_))));
        }
    }
}

async fn one_secret_that_does_not_open_denies_every_code(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    fixture.enrol(&fixture.ada, "Tablet").await;
    fixture.tamper("UPDATE devices SET secret = substr(secret, 1, 1) WHERE name = 'Tablet'").await;
    let code = phone.code_at(fixture.clock.now());
    for typed in [code.as_str(), "000000"] {
        let verdict = fixture.second_factor().verify_code(&fixture.ada, typed).await;
        assert!(matches!(verdict, Err(CredentialsError::Sealed(_))));
    }
}

async fn of_200_posts_of_one_code_one_is_accepted(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let code = phone.code_at(fixture.clock.now());
    let user = fixture.ada.clone();
    let verdicts = at_once(&fixture, move |second_factor| {
        let (user, code) = (user.clone(), code.clone());
        async move { second_factor.verify_code(&user, &code).await }
    });
    // One success resets the counter; after it a hundred failures count, and the rest find the devices blocked.
    let [accepted, wrong, off] = verdicts.await;
    assert_eq!(accepted, 1);
    assert!(wrong >= 100 && off <= 99, "{wrong} wrong, {off} off");
}

async fn of_200_posts_of_one_recovery_code_one_is_accepted(on: On) {
    let fixture = Fixture::new(on).await;
    fixture.enrol(&fixture.ada, "Phone").await;
    let codes = fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().unwrap();
    let code = codes[3].expose_secret().to_owned();
    let user = fixture.ada.clone();
    let verdicts = at_once(&fixture, move |second_factor| {
        let (user, code) = (user.clone(), code.clone());
        async move { second_factor.redeem_recovery(&user, &code).await }
    });
    assert_eq!(verdicts.await[0], 1);
    assert_eq!(fixture.recovery_codes().remaining(&fixture.ada).await.unwrap(), 9);
}

async fn parallel_guesses_all_count_and_the_101st_right_code_fails(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let user = fixture.ada.clone();
    let verdicts = at_once(&fixture, move |second_factor| {
        let user = user.clone();
        async move {
            second_factor.verify_code(&user, "guess").await?;
            second_factor.redeem_recovery(&user, "guess").await
        }
    });
    verdicts.await;
    assert_eq!(fixture.number("SELECT failures FROM second_factors").await, MAX_FAILURES);
    let code = phone.code_at(fixture.clock.now());
    let second_factor = fixture.second_factor();
    assert_eq!(second_factor.verify_code(&fixture.ada, &code).await.unwrap(), CodeCheck::Off);
    let recovery = fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().unwrap();
    let recovery = second_factor.redeem_recovery(&fixture.ada, recovery[0].expose_secret()).await.unwrap();
    assert_eq!(recovery, CodeCheck::Off);
    assert_eq!(fixture.recovery_codes().remaining(&fixture.ada).await.unwrap(), 10);
}

async fn devices_that_are_off_come_back_by_enrolling_anew_alone(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    fixture.tamper("UPDATE second_factors SET failures = 100").await;
    let second_factor = fixture.second_factor();
    let tablet = fixture.enrol(&fixture.ada, "Tablet").await;
    for device in [&phone, &tablet] {
        let code = device.code_at(fixture.clock.now());
        assert_eq!(second_factor.verify_code(&fixture.ada, &code).await.unwrap(), CodeCheck::Off);
    }
    let devices = fixture.devices();
    for device in devices.list(&fixture.ada).await.unwrap() {
        let code = tablet.code_at(fixture.clock.now());
        assert_eq!(second_factor.verify_code(&fixture.ada, &code).await.unwrap(), CodeCheck::Off);
        assert!(devices.remove(&fixture.ada, &device.id).await.unwrap());
    }
    let renewed = fixture.enrol(&fixture.ada, "Phone").await;
    for (device, verdict) in [(&phone, CodeCheck::Wrong), (&renewed, accepted(&fixture.ada, CodeKind::Totp))]
    {
        let code = device.code_at(fixture.clock.now());
        assert_eq!(second_factor.verify_code(&fixture.ada, &code).await.unwrap(), verdict);
    }
}

async fn success_forgives_and_the_hundredth_try_may_still_be_right(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    fixture.tamper("UPDATE second_factors SET failures = 99").await;
    let code = phone.code_at(fixture.clock.now());
    let verdict = fixture.second_factor().verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Totp));
    assert_eq!(fixture.number("SELECT failures FROM second_factors").await, 0);
    fixture.tamper("UPDATE second_factors SET failures = 7, recovery_failures = 99").await;
    let codes = fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().unwrap();
    let verdict =
        fixture.second_factor().redeem_recovery(&fixture.ada, codes[9].expose_secret()).await.unwrap();
    assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Recovery));
    assert_eq!(fixture.number("SELECT failures * 1000 + recovery_failures FROM second_factors").await, 7000);
}

async fn a_hundred_wrong_codes_of_one_kind_leave_the_other_as_it_was(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let second_factor = fixture.second_factor();
    let codes = fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().unwrap();
    fixture.tamper("UPDATE second_factors SET failures = 100").await;
    let code = phone.code_at(fixture.clock.now());
    assert_eq!(second_factor.verify_code(&fixture.ada, &code).await.unwrap(), CodeCheck::Off);
    assert_eq!(second_factor.verify_first(Some(&fixture.ada), &code).await.unwrap(), FirstCode::Wrong);
    let verdict = second_factor.redeem_recovery(&fixture.ada, codes[0].expose_secret()).await.unwrap();
    assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Recovery));

    fixture.tamper("UPDATE second_factors SET failures = 0, recovery_failures = 100").await;
    let verdict = second_factor.redeem_recovery(&fixture.ada, codes[1].expose_secret()).await.unwrap();
    assert_eq!(verdict, CodeCheck::Off);
    let verdict = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Totp));
    // New ones are valid.
    fixture.recovery_codes().renew(&fixture.ada).await.unwrap();
    let codes = fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().unwrap();
    let verdict = second_factor.redeem_recovery(&fixture.ada, codes[1].expose_secret()).await.unwrap();
    assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Recovery));
}

async fn a_code_sent_twice_is_no_failure(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let second_factor = fixture.second_factor();
    let code = phone.code_at(fixture.clock.now());
    for _ in 0..110 {
        let _ = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
    }
    assert_eq!(fixture.number("SELECT failures FROM second_factors").await, 0);
}

async fn a_code_before_the_password_is_used_up_by_being_right_and_counts_nowhere_when_wrong(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    let second_factor = fixture.second_factor();
    let code = phone.code_at(fixture.clock.now());
    for (user, typed) in [
        (Some(&fixture.ada), "000000"),
        (Some(&fixture.ada), "x"),
        (Some(&fixture.bob), code.as_str()),
        (None, code.as_str()),
    ] {
        for _ in 0..30 {
            assert_eq!(second_factor.verify_first(user, typed).await.unwrap(), FirstCode::Wrong, "{typed}");
        }
    }
    assert_eq!(fixture.number("SELECT MAX(failures) FROM second_factors").await, 0);
    fixture.tamper("UPDATE second_factors SET failures = 42").await;
    assert_eq!(second_factor.verify_first(Some(&fixture.ada), &code).await.unwrap(), FirstCode::Right);
    assert_eq!(second_factor.verify_first(Some(&fixture.ada), &code).await.unwrap(), FirstCode::Used);
    assert_eq!(fixture.number("SELECT MAX(failures) FROM second_factors").await, 42);
    assert_eq!(second_factor.verify_code(&fixture.ada, &code).await.unwrap(), CodeCheck::Used);
}

async fn a_check_that_breaks_off_changes_nothing(on: On) {
    let fixture = Fixture::new(on).await;
    let phone = fixture.enrol(&fixture.ada, "Phone").await;
    fixture.break_off("UPDATE ON devices").await;
    let code = phone.code_at(fixture.clock.now());
    let second_factor = fixture.second_factor();
    assert!(second_factor.verify_code(&fixture.ada, &code).await.is_err());
    assert_eq!(fixture.number("SELECT failures FROM second_factors").await, 0);
    fixture.mend().await;
    let verdict = second_factor.verify_code(&fixture.ada, &code).await.unwrap();
    assert_eq!(verdict, accepted(&fixture.ada, CodeKind::Totp));
}

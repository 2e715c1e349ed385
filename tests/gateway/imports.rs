//! Users of other systems: imported as they are, they log in with their old password and their old authenticator.

use std::path::PathBuf;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    cli::{json as asked, portcullis},
    support::{ADA, Answer, Browser, TestGateway, phone::Phone},
};

const OLD: &str = "correct horse";
const BCRYPT: &str = "$2b$05$DZziMEjr0Eoxdhp7pB/FKeeN/45kD0BbuQsI9g89mwgseVJxQ2tAS";
const DJANGO: &str = "pbkdf2_sha256$1000$bcDKKvT8LOrZ$/eyOzslqV7vK6FNLAm7d5t0hYvnM+JjJ0wahoR/E/8E=";
const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

fn file(gateway: &TestGateway, name: &str, text: &str) -> PathBuf {
    let file = gateway.folder().join(name);
    std::fs::write(&file, text).unwrap();
    file
}

async fn import(gateway: &TestGateway, format: &str, text: &str) -> Value {
    let file = file(gateway, "users", text);
    asked(gateway, &["user", "import", file.to_str().unwrap(), "--format", format]).await
}

/// E-mail and the old password, up to the page after them.
async fn sign_in(browser: &Browser, email: &str) -> Answer {
    let page = browser.visit("/sims").await;
    browser.submit(&page, &[("email", email), ("password", OLD)]).await
}

/// All the way to the portal with the old password and the old authenticator.
async fn logs_in_as_before(gateway: &TestGateway, email: &str) {
    let browser = gateway.browser();
    let page = sign_in(&browser, email).await;
    assert_eq!(page.heading(), "Enter your code", "{email}: {}", page.text());
    let code = Phone::new(gateway.clock.clone(), SEED).code();
    let answer = browser.submit(&page, &[("code", &code)]).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (StatusCode::OK, "the portal: GET /sims\n"),
        "{email}"
    );
}

#[tokio::test]
async fn users_of_every_format_log_in_with_what_they_had() {
    let (gateway, _) = TestGateway::start().await;
    let csv = format!(
        "\u{feff}totp_seed,email,groups,password_hash,name,device_name,disabled\r\n\
         {SEED},csv@example.com,ops; sales,{BCRYPT},\"Ada \"\"the first\"\", Lovelace\",My phone,false\r\n\
         ,off@example.com,,{BCRYPT},,,yes"
    );
    let jsonl = json!({"email": "jsonl@example.com", "groups": ["ops"], "password_hash": BCRYPT, "disabled": false,
        "totp_seed": format!("otpauth://totp/Old:jsonl?secret={SEED}&issuer=Old")});
    let htpasswd = format!("# the old ones\n\nhtpasswd@example.com:{}\n", BCRYPT.replace("$2b", "$2y"));
    let django = json!([
        {"model": "auth.group", "pk": 3, "fields": {"name": "ops", "permissions": []}},
        {"model": "auth.user", "pk": 7, "fields": {"username": "dj", "email": "django@example.com", "password": DJANGO,
            "first_name": "D", "last_name": "J", "is_active": true, "groups": [3]}},
        {"model": "otp_totp.totpdevice", "pk": 1, "fields": {"user": 7, "name": "Old phone", "confirmed": true,
            "key": "3132333435363738393031323334353637383930", "step": 30, "digits": 6}},
    ]);
    let keycloak = json!({"realm": "r", "users": [{"username": "kc", "email": "keycloak@example.com", "enabled": true,
        "firstName": "K", "lastName": "C", "groups": ["/ops"], "credentials": [
            {"type": "password", "secretData": json!({"value": "FNh0matATNQttT8AEeiAEqlp2z6TRLlnUe1hYVNtFgU=",
                "salt": "KWUsBUBICQFA6D0nBOC8dw==", "additionalParameters": {}}).to_string(),
             "credentialData": json!({"hashIterations": 1000, "algorithm": "pbkdf2-sha256"}).to_string()},
            {"type": "otp", "userLabel": "Old phone", "secretData": json!({"value": "12345678901234567890"}).to_string(),
             "credentialData": json!({"subType": "totp", "digits": 6, "period": 30, "algorithm": "HmacSHA1"}).to_string()},
    ]}]});
    for (format, text, added) in [
        ("csv", csv, 2),
        ("jsonl", format!("{jsonl}\n"), 1),
        ("htpasswd", htpasswd, 1),
        ("django", django.to_string(), 1),
        ("keycloak", keycloak.to_string(), 1),
    ] {
        let fact = import(&gateway, format, &text).await;
        assert_eq!(fact, json!({"added": added, "existed": 0, "refused": [], "dry_run": false}), "{format}");
        // Once more changes nothing: a run that broke off is just repeated.
        let fact = import(&gateway, format, &text).await;
        assert_eq!((&fact["added"], &fact["existed"]), (&json!(0), &json!(added)), "{format}");
    }
    for format in ["csv", "jsonl", "django", "keycloak"] {
        let email = format!("{format}@example.com");
        let shown = asked(&gateway, &["user", "show", &email]).await;
        assert_eq!(shown["groups"][0], "ops", "{shown}");
        assert!(shown["devices"][0]["last_used_at"].is_null(), "{shown}");
        // A code is used up for one user alone.
        logs_in_as_before(&gateway, &email).await;
    }
    let shown = asked(&gateway, &["user", "show", "csv@example.com"]).await;
    assert_eq!(
        (&shown["name"], &shown["devices"][0]["name"]),
        (&json!("Ada \"the first\", Lovelace"), &json!("My phone"))
    );
    assert_eq!(shown["groups"], json!(["ops", "sales"]));
    // Without an authenticator the user enrols one, as anybody does.
    let page = sign_in(&gateway.browser(), "htpasswd@example.com").await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    let page = sign_in(&gateway.browser(), "off@example.com").await;
    assert_eq!(page.heading(), "Sign in", "who was disabled stays so");
}

#[tokio::test]
async fn an_old_hash_is_replaced_at_the_first_login() {
    let (gateway, _) = TestGateway::start().await;
    import(&gateway, "htpasswd", &format!("{ADA}:{BCRYPT}")).await;
    let stored = async || -> String {
        use sqlx::Row as _;
        let row =
            sqlx::query("SELECT hash FROM passwords").fetch_one(&gateway.stores().database).await.unwrap();
        row.try_get(0).unwrap()
    };
    gateway.browser().submit_password(ADA, "not the password").await;
    assert_eq!(stored().await, BCRYPT);
    sign_in(&gateway.browser(), ADA).await;
    assert!(stored().await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_eq!(sign_in(&gateway.browser(), ADA).await.heading(), "Set up your authenticator app");
}

#[tokio::test]
async fn every_fault_is_named_with_its_line_and_the_others_are_imported() {
    let (gateway, _) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let text = format!(
        "email,password_hash,totp_seed,groups\n\
         one@example.com,{BCRYPT},,\n\
         two@example.com,$apr1$RRJSunwr$ti.lOD0IapgL4iIyR5Mfd0,,\n\
         three@example.com,,0189 0189,\n\
         ,{BCRYPT},,\n\
         ONE@example.com,{BCRYPT},,\n\
         \"six@example.com\",{BCRYPT},,\"a,b\"\n\
         seven@example.com,{BCRYPT}\n\
         {ADA},{BCRYPT},,\n\
         last@example.com,\"{BCRYPT}\",{SEED},ops"
    );
    let users = file(&gateway, "users.csv", &text);
    let report = gateway.folder().join("report.csv");
    let arguments = ["user", "import", users.to_str().unwrap(), "--format", "csv"];
    let dry = portcullis(&gateway, &[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!(dry.code, 1, "{dry:?}");
    assert!(
        dry.out.contains("2 would be added, 1 already there and left as they are, 6 refused."),
        "{dry:?}"
    );
    assert_eq!(asked(&gateway, &["user", "list"]).await.as_array().unwrap().len(), 1);
    let real =
        portcullis(&gateway, &[&arguments[..], &["--report", report.to_str().unwrap()]].concat()).await;
    assert_eq!(real.code, 1, "{real:?}");
    for fault in [
        "line 3: two@example.com: the password: MD5-crypt is too weak",
        "line 4: three@example.com: the authenticator: the secret is not base32",
        "line 5: the e-mail is empty",
        "line 6: ONE@example.com: ONE@example.com is in line 2 already",
        "line 7: six@example.com: the group \"a,b\"",
        "line 8: has 2 columns; the header line has 4",
        "2 added, 1 already there and left as they are, 6 refused.",
    ] {
        assert!(real.out.contains(fault), "{fault}: {real:?}");
    }
    let written = std::fs::read_to_string(&report).unwrap();
    let became: Vec<_> = written.lines().skip(1).map(|line| line.split(',').nth(2).unwrap()).collect();
    assert_eq!(
        became,
        ["added", "refused", "refused", "refused", "refused", "refused", "refused", "existed", "added"]
    );
    // A report is never written over.
    let again =
        portcullis(&gateway, &[&arguments[..], &["--report", report.to_str().unwrap()]].concat()).await;
    assert!(again.code == 1 && again.err.contains("cannot make"), "{again:?}");
    logs_in_as_before(&gateway, "last@example.com").await;
}

#[tokio::test]
async fn a_file_of_another_form_is_refused_whole() {
    let (gateway, _) = TestGateway::start().await;
    for (format, text, words) in [
        ("csv", "", "no column `email`"),
        ("csv", "mail,name\na@example.com,A", "\"mail\" is none of them"),
        ("csv", "email,email\n", "there twice"),
        ("django", "[{]", "not what `manage.py dumpdata` writes"),
        ("keycloak", "[]", "not the export of a realm"),
    ] {
        let users = file(&gateway, "users", text);
        let refused =
            portcullis(&gateway, &["user", "import", users.to_str().unwrap(), "--format", format]).await;
        assert!(refused.code == 1 && refused.err.contains(words), "{format} {text}: {refused:?}");
    }
    assert_eq!(asked(&gateway, &["user", "list"]).await, json!([]));
}

#[tokio::test]
async fn generated_passwords_are_written_once_for_the_operator_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (gateway, _) = TestGateway::start().await;
    let users = file(&gateway, "users.csv", "email\na@example.com\nb@example.com\n");
    let passwords = gateway.folder().join("passwords.csv");
    let arguments = ["user", "import", users.to_str().unwrap(), "--format", "csv", "--generate-passwords"];
    let arguments = [&arguments[..], &[passwords.to_str().unwrap()]].concat();
    assert_eq!(portcullis(&gateway, &arguments).await.code, 0);
    assert_eq!(passwords.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let written = std::fs::read_to_string(&passwords).unwrap();
    for line in written.lines().skip(1) {
        let (email, password) = line.split_once(',').unwrap();
        let browser = gateway.browser();
        let page = browser.visit("/").await;
        let page = browser.submit(&page, &[("email", email), ("password", password)]).await;
        assert_eq!(page.heading(), "Set up your authenticator app", "{email}");
    }
    assert_eq!(written.lines().count(), 3);
    assert_eq!(portcullis(&gateway, &arguments).await.code, 1, "the file is never written over");
}

#[tokio::test]
async fn what_is_exported_is_imported_elsewhere() {
    let (here, _) = TestGateway::start().await;
    let (there, _) = TestGateway::start().await;
    for (name, groups) in [("a", "ops;a \"b\""), ("b", "")] {
        let user = json!({"email": format!("{name}@example.com"), "name": "Ä, \"Ö\"", "groups": groups, "disabled": name == "b"});
        import(&here, "jsonl", &user.to_string()).await;
    }
    let before = asked(&here, &["user", "list"]).await;
    for (format, flag) in [("csv", &[][..]), ("jsonl", &["--jsonl"][..])] {
        let exported = portcullis(&here, &[&["user", "export"], flag].concat()).await;
        let fact = import(&there, format, &exported.out).await;
        assert_eq!(fact["refused"], json!([]), "{exported:?}");
    }
    let after = asked(&there, &["user", "list"]).await;
    for (one, other) in before.as_array().unwrap().iter().zip(after.as_array().unwrap()) {
        for key in ["email", "name", "groups", "disabled"] {
            assert_eq!(one[key], other[key], "{key}");
        }
    }
}

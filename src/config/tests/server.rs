//! `server.forward_auth_listen`: the settings that it requires.

use super::{LEAST, load};

fn with(keys: &str) -> String {
    LEAST.replace("[portal]", &format!("{keys}\n[portal]"))
}

#[test]
fn proxies_are_told_where_to_ask_and_who_they_are() {
    let config =
        load(&with("forward_auth_listen = \"127.0.0.1:9191\"\ntrusted_proxies = \"127.0.0.1\"")).unwrap();
    assert_eq!(config.server.proxies_listen, Some("127.0.0.1:9191".parse().unwrap()));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let config =
        load(&with("forward_auth_listen = \"0.0.0.0:9191\"\ntrusted_proxies = \"10.0.0.0/8\"")).unwrap();
    assert!(config.warnings.to_string().contains("unencrypted"), "{}", config.warnings);
}

#[test]
fn what_proxies_need_is_a_fault_when_it_is_missing() {
    for (keys, says) in [
        ("forward_auth_listen = \"127.0.0.1:9191\"", "needs `server.trusted_proxies`"),
        ("forward_auth_listen = \"127.0.0.1:9180\"\ntrusted_proxies = \"127.0.0.1\"", "choose another port"),
        (
            "forward_auth_listen = \"127.0.0.1:9191\"\ntrusted_proxies = \"127.0.0.1\"\nclient_address = \"peer\"",
            "must not be `peer`",
        ),
    ] {
        let faults = load(&with(keys)).unwrap_err().to_string();
        assert!(faults.contains(says), "{faults}");
    }
}

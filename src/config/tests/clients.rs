//! Certificates of clients, as they are configured.

use super::{LEAST, load};
use crate::client_certificates::Role;

fn faults(clients: &str) -> Vec<String> {
    let text = format!("{LEAST}\n{clients}");
    match load(&text) {
        Ok(_) => Vec::new(),
        Err(problems) => {
            problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
        }
    }
}

const CA: &str = "tls.client_ca = \"ca.pem\"\n";

#[test]
fn each_fault_of_a_client_says_what_would_be_right() {
    let user = "user = \"ada@example.com\"";
    let san = "san = \"URI:urn:ci\"";
    for (clients, says) in [
        (format!("[[tls.clients]]\n{san}\nservice = \"ci\""), "needs `tls.client_ca`"),
        (CA.to_owned(), "needs `[[tls.clients]]`"),
        ("tls.client_crl = \"crl.pem\"".to_owned(), "needs `tls.client_ca`"),
        (format!("{CA}[[tls.clients]]\n{user}"), "either `san` or `fingerprint`"),
        (format!("{CA}[[tls.clients]]\n{san}"), "either `user` or `service`"),
        (format!("{CA}[[tls.clients]]\n{san}\n{user}\nservice = \"ci\""), "either `user` or `service`"),
        (format!("{CA}[[tls.clients]]\n{san}\nservice = \"CI\""), "lower-case"),
        (format!("{CA}[[tls.clients]]\n{san}\nservice = \"ci\"\nas = \"first_factor\""), "is for users"),
        (
            format!("{CA}[[tls.clients]]\n{san}\n{user}\nas = \"first_factor\"\npath = \"/a\""),
            "limits a machine",
        ),
        (format!("{CA}[[tls.clients]]\n{san}\n{user}\nas = \"admin\""), "`machine` or `first_factor`"),
        (format!("{CA}[[tls.clients]]\n{san}\n{user}\nsites = \"other.example\""), "no site of this gateway"),
        (format!("{CA}[[tls.clients]]\n{san}\n{user}\npath = []"), "is empty"),
        (format!("{CA}[[tls.clients]]\nsan = \"DNS:*.example.com\"\n{user}"), "without `*`"),
        (format!("{CA}[[tls.clients]]\nsan = \"CN=ada\"\n{user}"), "a name such as"),
        (format!("{CA}[[tls.clients]]\nfingerprint = \"ab:cd\"\n{user}"), "64 hexadecimal digits"),
        (format!("{CA}[[tls.clients]]\n{san}\n{user}\nmethods = \"get\""), "write `GET`"),
        (format!("{CA}[[tls.clients]]\n{san}\n{user}\nmethods = \"A!\""), "not a method"),
        (
            format!(
                "{CA}[[tls.clients]]\nsan = \"DNS:a.example\"\n{user}\n[[tls.clients]]\nsan = \"DNS:A.example\"\nservice = \"ci\""
            ),
            "tls.clients[0] has the same certificate",
        ),
    ] {
        let clients = clients.replace("tls.client_", "client_");
        let clients = if clients.starts_with("[[") { clients } else { format!("[tls]\n{clients}") };
        let found = faults(&clients);
        assert!(found.iter().any(|fault| fault.contains(says)), "{clients}\n{found:?}");
    }
}

#[test]
fn clients_are_read_with_their_limits() {
    let clients = "[tls]\nclient_ca = \"ca.pem\"\n[[tls.clients]]\nsan = \"URI:urn:ci\"\nservice = \"ci\"\npath = \"/api/*\"\n\
                   [[tls.clients]]\nsan = \"email:ada@example.com\"\nuser = \"Ada@Example.com\"\nas = \"first_factor\"\n";
    let config = load(&format!("{LEAST}\n{clients}")).unwrap_or_else(|problems| panic!("{problems}"));
    let known = config.client_certificates.unwrap();
    assert_eq!(known.clients[0].role, Role::Service("ci".to_owned()));
    assert!(matches!(&known.clients[1].role, Role::FirstFactor(name) if name.as_str() == "ada@example.com"));
    assert_eq!(config.client_scopes[0].paths, ["/api/*"]);
}

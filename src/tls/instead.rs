//! Recognises a file that is not the PEM certificate or key it should be, and says how to convert it.
//!
//! Goes by the first bytes and the PEM label; no key is parsed.

use std::path::Path;

/// What the file should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Certificate,
    Key,
}

impl Wanted {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
        }
    }
}

/// What the file holds instead, and the command that converts it.
pub(super) fn explained(bytes: &[u8], wanted: Wanted, path: &Path) -> String {
    let file = path.display();
    let text = String::from_utf8_lossy(bytes);
    let has = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
    let any = |words: &str| text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(words));
    match wanted {
        _ if bytes.is_empty() => "the file is empty".to_owned(),
        _ if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) => {
            "the file is in UTF-16: save it as plain text".to_owned()
        }
        _ if is_pkcs12(bytes) => format!(
            "it is a PKCS#12 file (.pfx, .p12): take it apart with `openssl pkcs12 -in {file} -nokeys -out fullchain.pem` and \
             `openssl pkcs12 -in {file} -nocerts -noenc -out privkey.pem`"
        ),
        Wanted::Certificate if bytes.first() == Some(&0x30) => {
            format!(
                "it is in DER form: convert it with `openssl x509 -inform der -in {file} -out fullchain.pem`"
            )
        }
        Wanted::Key if bytes.first() == Some(&0x30) => {
            format!(
                "it is in DER form: convert it with `openssl pkey -inform der -in {file} -out privkey.pem`"
            )
        }
        Wanted::Key if has("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") => format!(
            "it is protected by a passphrase, which nobody is there to type: write it without one, `openssl pkey -in {file} \
             -out privkey.pem && chmod 600 privkey.pem`"
        ),
        Wanted::Key if any("OPENSSH PRIVATE KEY") => {
            format!("it is an OpenSSH key: convert a copy of it with `ssh-keygen -p -N '' -m PEM -f {file}`")
        }
        Wanted::Certificate if any("PRIVATE KEY") && !has("CERTIFICATE") => {
            "it holds a private key: are `tls.certificate` and `tls.key` swapped?".to_owned()
        }
        Wanted::Key if has("CERTIFICATE") && !any("PRIVATE KEY") => {
            "it holds a certificate: are `tls.certificate` and `tls.key` swapped?".to_owned()
        }
        Wanted::Key if any("PUBLIC KEY") => "it holds a public key; the private one is needed".to_owned(),
        _ if any("CERTIFICATE REQUEST") => {
            "it holds a signing request; the authority answers that with the certificate".to_owned()
        }
        Wanted::Certificate if has("TRUSTED CERTIFICATE") => {
            format!(
                "it is in OpenSSL's own form: convert it with `openssl x509 -in {file} -out fullchain.pem`"
            )
        }
        Wanted::Certificate if any("PKCS7") => {
            format!(
                "it is in PKCS#7 form: convert it with `openssl pkcs7 -print_certs -in {file} -out fullchain.pem`"
            )
        }
        _ if any("") => "what is between its BEGIN and END lines is damaged: copy the file again".to_owned(),
        _ => format!("there is no `-----BEGIN …-----` line for a {} in it", wanted.name()),
    }
}

/// PKCS#12: an outer sequence that begins with the number 3.
fn is_pkcs12(bytes: &[u8]) -> bool {
    let Some((0x30, rest)) = bytes.split_first().map(|(first, rest)| (*first, rest)) else { return false };
    let header = match rest.first() {
        Some(length) if length & 0x80 != 0 => 1 + usize::from(length & 0x7f),
        _ => 1,
    };
    rest.get(header..).is_some_and(|content| content.starts_with(&[2, 1, 3]))
}

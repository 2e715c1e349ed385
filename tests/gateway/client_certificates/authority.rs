//! An authority of a test's own, the certificates that it has signed, and the real programs that show them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use portcullis::clock::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::support::{HOST, TestGateway};

pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What its certificates come with.
    beside: String,
}

/// A certificate and its key, as files.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) serial: u64,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap();
        Self::with(issuer, String::new())
    }

    /// One that this one has signed.
    pub(crate) fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap();
        let beside = issuer.as_ref().pem() + &self.beside;
        Self::with(issuer, beside)
    }

    fn with(issuer: CertifiedIssuer<'static, KeyPair>, beside: String) -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap(), issuer, beside };
        std::fs::write(authority.file(), authority.pem()).unwrap();
        authority
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// What it has revoked.
    pub(crate) fn list(&self) -> PathBuf {
        self.folder.path().join("revoked.pem")
    }

    /// Writes the list anew, to be believed until the first day of a year.
    pub(crate) fn revoke(&self, serials: &[u64], until: i32) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        // Whole at once, as anybody should write what others read.
        let new = self.folder.path().join("new.pem");
        std::fs::write(&new, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        std::fs::rename(new, self.list()).unwrap();
    }

    /// For clients, from 2026 to 2040.
    pub(crate) fn sign(&self, serial: u64, names: Vec<SanType>) -> Identity {
        self.sign_as(serial, names, |_| {})
    }

    pub(crate) fn sign_as(
        &self,
        serial: u64,
        names: Vec<SanType>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let at = |end: &str| self.folder.path().join(format!("{serial}.{end}"));
        std::fs::write(at("pem"), certificate.pem() + &self.beside).unwrap();
        std::fs::write(at("key"), key.serialize_pem()).unwrap();
        Identity { certificate: at("pem"), key: at("key"), serial }
    }
}

/// Of an authority.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Identity {
    /// As openssl prints it.
    pub(crate) fn fingerprint(&self) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&self.certificate);
        let printed = String::from_utf8(openssl.output().unwrap().stdout).unwrap();
        printed.trim().split_once('=').unwrap().1.to_owned()
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn email(text: &str) -> SanType {
    SanType::Rfc822Name(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// The first day of a year.
pub(crate) fn year(year: i32) -> Timestamp {
    Timestamp::from_unix_seconds(date_time_ymd(year, 1, 1).unix_timestamp())
}

/// An answer that curl has got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> String {
        let found = self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.collect::<Vec<_>>().join(", ")
    }
}

/// What curl is called with to ask a gateway.
pub(crate) fn curl_command(gateway: &TestGateway, identity: Option<&Identity>, words: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60", "--connect-to"]);
    curl.arg(format!("{HOST}:443:127.0.0.1:{}", port(gateway)));
    curl.arg("--cacert").arg(gateway.folder().join("certificate.pem"));
    if let Some(Identity { certificate, key, .. }) = identity {
        curl.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    curl.args(words);
    curl
}

pub(crate) fn port(gateway: &TestGateway) -> u16 {
    gateway.surroundings().address.port()
}

/// Asks with curl.
pub(crate) async fn curl(
    gateway: &TestGateway,
    identity: Option<&Identity>,
    path: &str,
    words: &[&str],
) -> Got {
    let mut command = curl_command(gateway, identity, words);
    command.arg("-i").arg(format!("https://{HOST}{path}"));
    let output = run(command, "").await;
    assert!(output.status.success(), "{path} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    got(output)
}

/// What curl has printed of an answer, with its head.
pub(crate) fn got(output: Output) -> Got {
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Got { status, fields: lines.map(field).collect(), body: body.to_owned() }
}

/// Runs a program to its end without keeping the test's runtime from its work.
pub(crate) async fn run(mut command: Command, input: &str) -> Output {
    use std::io::Write as _;
    let input = input.to_owned();
    tokio::task::spawn_blocking(move || {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("curl and openssl are installed");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap()
}

/// One request through openssl, which keeps the session in a file or resumes the one that is there. What it prints.
pub(crate) async fn s_client(
    gateway: &TestGateway,
    identity: Option<&Identity>,
    (server_name, host, path): (&str, &str, &str),
    words: &[&str],
) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-ign_eof", "-connect"]).arg(format!("127.0.0.1:{}", port(gateway)));
    let naming =
        if server_name.is_empty() { vec!["-noservername"] } else { vec!["-servername", server_name] };
    openssl.args(naming).args(words);
    if let Some(Identity { certificate, key, .. }) = identity {
        openssl.arg("-cert").arg(certificate).arg("-key").arg(key);
    }
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let output = run(openssl, &request).await;
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

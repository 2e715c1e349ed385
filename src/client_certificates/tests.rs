//! Certificates as an authority makes them, and what is made of them.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::*;

const TODAY: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn list(authority: &CertifiedIssuer<'_, KeyPair>, serials: &[u64], until: i32) -> String {
    list_of(authority, serials, (2026, 1), until)
}

/// One made on the first day of a year, with this number.
fn list_of(
    authority: &CertifiedIssuer<'_, KeyPair>,
    serials: &[u64],
    (year, number): (i32, u64),
    until: i32,
) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(year, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority).unwrap().pem().unwrap()
}

fn signed(authority: &CertifiedIssuer<'_, KeyPair>, serial: u64) -> ShownCertificate {
    signed_beside(authority, serial, &[])
}

/// What is sent beside it is that of other authorities.
fn signed_beside(
    authority: &CertifiedIssuer<'_, KeyPair>,
    serial: u64,
    beside: &[&CertifiedIssuer<'_, KeyPair>],
) -> ShownCertificate {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![
        SanType::DnsName("Host.example.com".try_into().unwrap()),
        SanType::Rfc822Name("Ada@EXAMPLE.com".try_into().unwrap()),
        SanType::URI("urn:ci".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
    ];
    params.serial_number = Some(SerialNumber::from(serial));
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2040, 1, 1));
    let certificate = params.signed_by(&KeyPair::generate().unwrap(), authority).unwrap();
    let beside = beside.iter().map(|one| one.as_ref().der().clone());
    ShownCertificate::new(&std::iter::once(certificate.der().clone()).chain(beside).collect::<Vec<_>>())
        .unwrap()
}

fn of(folder: &Path, has_list: bool) -> ClientCertificates {
    let files =
        Files { authorities: folder.join("ca.pem"), revoked: has_list.then(|| folder.join("crl.pem")) };
    let client = Mapping {
        shows: Shows::Name(AltName::parse("URI:urn:ci").unwrap()),
        role: Role::Service("ci".to_owned()),
        sites: vec!["iot.example.com:8443".to_owned()],
    };
    ClientCertificates::new(&Config { files, clients: vec![client] }).unwrap()
}

fn told(judged: Result<VerifiedCertificate, Uncounted>) -> String {
    judged.map_or_else(|refused| refused.to_string(), |_| String::new())
}

#[test]
fn the_names_and_the_end_are_read_as_they_are_written() {
    let shown = signed(&authority("A"), 1);
    let facts = CertificateFacts::of(&shown.chain[0]).unwrap();
    let names: Vec<_> = facts.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["DNS:host.example.com", "email:Ada@example.com", "URI:urn:ci"]);
    assert_eq!(facts.not_after.to_string(), "2040-01-01T00:00:00Z");
    for end in 0..shown.chain[0].len() {
        let _ = CertificateFacts::of(&shown.chain[0][..end]);
    }
}

#[test]
fn files_that_cannot_be_used_leave_those_in_force_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mine = authority("A");
    let ca = mine.as_ref().pem();
    std::fs::write(at("ca.pem"), &ca).unwrap();
    std::fs::write(at("crl.pem"), list(&mine, &[1], 2040)).unwrap();
    let certificates = of(folder.path(), true);
    let (bad, good) = (signed(&mine, 1), signed(&mine, 2));
    let holds =
        |certificates: &ClientCertificates| [&bad, &good].map(|shown| told(certificates.judge(shown, TODAY)));
    let expected = ["it has been revoked".to_owned(), String::new()];
    assert_eq!(holds(&certificates), expected);
    let whole = list(&mine, &[], 2040);
    let halves = [whole.clone(), whole[..whole.len() / 2].to_owned()].concat();
    for (file, broken) in [
        ("crl.pem", ""),
        ("crl.pem", "rubbish"),
        ("crl.pem", &whole[..whole.len() / 2]),
        ("crl.pem", &ca),
        ("crl.pem", &halves),
        ("crl.pem", &list(&authority("A"), &[], 2040)),
        ("ca.pem", ""),
        ("ca.pem", "rubbish"),
        ("ca.pem", &whole),
    ] {
        let before = std::fs::read(at(file)).unwrap();
        std::fs::write(at(file), broken).unwrap();
        assert!(!certificates.look(TODAY), "{file}: {broken}");
        assert_eq!((certificates.generation(), holds(&certificates)), (0, expected.clone()), "{broken}");
        std::fs::write(at(file), before).unwrap();
    }
    std::fs::write(at("crl.pem"), list(&mine, &[2, 3], 2040)).unwrap();
    assert!(!certificates.look(TODAY), "the authorities are the same");
    assert_eq!(holds(&certificates), [String::new(), "it has been revoked".to_owned()]);
    assert_eq!(certificates.generation(), 1);
    std::fs::remove_file(at("crl.pem")).unwrap();
    assert!(!certificates.look(TODAY));
    assert_eq!(holds(&certificates), [String::new(), "it has been revoked".to_owned()]);
}

#[test]
fn an_authority_without_a_list_that_holds_has_no_certificate_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (mine, other) = (authority("A"), authority("B"));
    std::fs::write(at("ca.pem"), [mine.as_ref().pem(), other.as_ref().pem()].concat()).unwrap();
    let shown = [signed(&mine, 1), signed(&other, 1)];
    let judged = |has_list, now| {
        let certificates = of(folder.path(), has_list);
        let warnings = certificates.warnings(now).len();
        (shown.each_ref().map(|shown| told(certificates.judge(shown, now))), warnings)
    };
    assert_eq!(judged(false, TODAY), ([String::new(), String::new()], 0));
    std::fs::write(at("crl.pem"), list(&mine, &[], 2030)).unwrap();
    let unlisted = "tls.client_crl has no list of its authority".to_owned();
    assert_eq!(judged(true, TODAY), ([String::new(), unlisted.clone()], 1));
    let later = Timestamp::from_unix_seconds(1_900_000_000);
    let expired = "the revocation list of its authority has expired".to_owned();
    assert_eq!(judged(true, later), ([expired, unlisted], 2));
    // Until then it is good, and no longer.
    let certificates = of(folder.path(), true);
    let ends = certificates.judge(&shown[0], TODAY).unwrap().ends;
    assert_eq!(ends.to_string(), "2030-01-01T00:00:00Z");
}

#[test]
fn of_several_lists_of_one_authority_the_last_counts_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (root, other) = (authority("A"), authority("B"));
    let between = below(&root, "Between", |_| {});
    std::fs::write(folder.path().join("ca.pem"), root.as_ref().pem()).unwrap();
    let judged = |shown: &ShownCertificate, lists: &[&str]| {
        std::fs::write(folder.path().join("crl.pem"), lists.concat()).unwrap();
        told(of(folder.path(), true).judge(shown, TODAY))
    };
    let (direct, beside) = (signed(&root, 7), signed_beside(&between, 7, &[&between]));
    let strangers = list_of(&other, &[7], (2027, 9), 2040);
    for (old, new) in [((2026, 9), (2027, 1)), ((2026, 1), (2026, 2)), ((2026, 2), (2026, 256))] {
        for (by_old, by_new, expected) in [(&[][..], &[7][..], "it has been revoked"), (&[7], &[], "")] {
            let at_root = [list_of(&root, by_old, old, 2035), list_of(&root, by_new, new, 2040)];
            let at_between = [list_of(&between, by_old, old, 2035), list_of(&between, by_new, new, 2040)];
            let above = list(&root, &[], 2040);
            for [first, second] in [[0, 1], [1, 0]] {
                let lists = [at_root[first].as_str(), &strangers, &at_root[second]];
                assert_eq!(judged(&direct, &lists), expected, "{old:?} {new:?}");
                let lists = [at_between[first].as_str(), &above, &at_between[second]];
                assert_eq!(judged(&beside, &lists), expected, "{old:?} {new:?}");
            }
        }
    }
    // What has expired and was replaced is in nobody's way.
    let lists = [list_of(&root, &[], (2025, 1), 2026), list_of(&root, &[], (2027, 2), 2040)];
    assert_eq!(judged(&direct, &[&lists[0], &lists[1]]), "");
    let certificates = of(folder.path(), true);
    assert_eq!(certificates.warnings(TODAY), Vec::<String>::new());
    assert_eq!(certificates.judge(&direct, TODAY).unwrap().ends.to_string(), "2040-01-01T00:00:00Z");
}

#[test]
fn two_authorities_of_one_name_each_have_a_list() {
    let folder = tempfile::tempdir().unwrap();
    // As after a change of the key.
    let (old, new) = (authority("A"), authority("A"));
    let authorities = [&old, &new].map(|one| one.as_ref().pem());
    let shown = [signed(&old, 1), signed(&old, 2), signed(&new, 1), signed(&new, 2)];
    let lists = [list_of(&old, &[1], (2026, 1), 2035), list_of(&new, &[2], (2027, 1), 2040)];
    let judged = |lists: &[&str]| {
        std::fs::write(folder.path().join("crl.pem"), lists.concat()).unwrap();
        let certificates = of(folder.path(), true);
        let warnings = certificates.warnings(TODAY).len();
        (shown.each_ref().map(|shown| told(certificates.judge(shown, TODAY))), warnings)
    };
    for [first, second] in [[0, 1], [1, 0]] {
        let both = [authorities[first].as_str(), &authorities[second]].concat();
        std::fs::write(folder.path().join("ca.pem"), both).unwrap();
        assert_eq!(of(folder.path(), false).authorities().len(), 1);
        for [first, second] in [[0, 1], [1, 0]] {
            let revoked = "it has been revoked";
            let expected = [revoked, "", "", revoked].map(str::to_owned);
            assert_eq!(judged(&[&lists[first], &lists[second]]), (expected, 0));
        }
        let unlisted = "the revocation list of its authority is not valid";
        let expected = ["it has been revoked", "", unlisted, unlisted].map(str::to_owned);
        assert_eq!(judged(&[&lists[0]]), (expected, 1));
        let ends = |shown: &ShownCertificate| {
            std::fs::write(folder.path().join("crl.pem"), lists.concat()).unwrap();
            of(folder.path(), true).judge(shown, TODAY).unwrap().ends.to_string()
        };
        assert_eq!([&shown[1], &shown[2]].map(ends), ["2035-01-01T00:00:00Z", "2040-01-01T00:00:00Z"]);
    }
}

/// An authority that another one has signed.
fn below(
    above: &CertifiedIssuer<'_, KeyPair>,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(1000));
    change(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), above).unwrap()
}

#[test]
fn what_stands_between_has_to_be_allowed_to_sign() {
    let folder = tempfile::tempdir().unwrap();
    let root = authority("Root");
    std::fs::write(folder.path().join("ca.pem"), root.as_ref().pem()).unwrap();
    let certificates = of(folder.path(), false);
    let judged = |shown: &ShownCertificate| told(certificates.judge(shown, TODAY));
    let between = |change: fn(&mut CertificateParams)| {
        let between = below(&root, "Between", change);
        judged(&signed_beside(&between, 1, &[&between]))
    };
    assert_eq!(between(|_| {}), "");
    assert_eq!(between(|params| params.key_usages.clear()), "", "it does not say what it is for");
    for (refused, change) in [
        ("it is not valid", (|params| params.is_ca = IsCa::NoCa) as fn(&mut CertificateParams)),
        ("it is not valid", |params| params.is_ca = IsCa::ExplicitNoCa),
        ("one that was sent with it may not sign certificates", |params| {
            params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        }),
        ("it is not for clients", |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        }),
        ("it has expired", |params| params.not_after = date_time_ymd(2026, 2, 1)),
        ("it is not valid yet", |params| params.not_before = date_time_ymd(2039, 1, 1)),
        ("it is not valid", |params| {
            let permitted_subtrees = vec![rcgen::GeneralSubtree::DnsName("other.example".to_owned())];
            let excluded_subtrees = Vec::new();
            params.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees });
        }),
        ("it is not valid", |params| {
            let permitted_subtrees = vec![rcgen::GeneralSubtree::Rfc822Name("other.example".to_owned())];
            let excluded_subtrees = Vec::new();
            params.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees });
        }),
    ] {
        assert_eq!(between(change), refused);
    }
    let first = below(&root, "First", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(judged(&signed_beside(&first, 1, &[&first])), "");
    let second = below(&first, "Second", |_| {});
    assert_eq!(judged(&signed_beside(&second, 1, &[&second, &first])), "it is not valid");
    let good = below(&root, "Between", |_| {});
    assert_eq!(judged(&signed(&good, 1)), UNKNOWN_ISSUER, "it was not sent");
    // A certificate of a client signs nothing, and what has nothing to do with it does no harm.
    let old = below(&root, "Old", |params| params.not_after = date_time_ymd(2026, 2, 1));
    assert_eq!(judged(&signed_beside(&good, 1, &[&good, &old])), "");
}

#[test]
fn each_authority_on_the_way_needs_a_list_and_may_be_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let root = authority("Root");
    let between = below(&root, "Between", |_| {});
    std::fs::write(folder.path().join("ca.pem"), root.as_ref().pem()).unwrap();
    let shown = signed_beside(&between, 1, &[&between]);
    for (lists, expected) in [
        (vec![list(&root, &[], 2040)], "tls.client_crl has no list of its authority"),
        (vec![list(&between, &[], 2040)], "tls.client_crl has no list of its authority"),
        (vec![list(&root, &[], 2040), list(&between, &[], 2040)], ""),
        (vec![list(&root, &[1000], 2040), list(&between, &[], 2040)], "it has been revoked"),
        (vec![list(&root, &[], 2040), list(&between, &[1], 2040)], "it has been revoked"),
        (
            vec![list(&root, &[], 2040), list(&below(&root, "Between", |_| {}), &[], 2040)],
            "the revocation list of its authority is not valid",
        ),
    ] {
        std::fs::write(folder.path().join("crl.pem"), lists.concat()).unwrap();
        assert_eq!(told(of(folder.path(), true).judge(&shown, TODAY)), expected);
    }
    // Of all on the way the first end counts.
    let lists = [list(&root, &[], 2031), list(&between, &[], 2040)].concat();
    std::fs::write(folder.path().join("crl.pem"), lists).unwrap();
    let ends = of(folder.path(), true).judge(&shown, TODAY).unwrap().ends;
    assert_eq!(ends.to_string(), "2031-01-01T00:00:00Z");
}

#[test]
fn the_hosts_of_the_clients_are_asked_and_who_names_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority("A").as_ref().pem()).unwrap();
    let certificates = of(folder.path(), false);
    for (host, asks) in [
        (None, true),
        (Some("iot.example.com"), true),
        (Some("IOT.example.com"), true),
        (Some("iot.example.com:8443"), true),
        (Some("crm.example.com"), false),
        (Some("iot.example.com.evil.example"), false),
        (Some(""), false),
    ] {
        assert_eq!(certificates.asks(host), asks, "{host:?}");
    }
}

//! Authentication schemes that authenticate a connection and not a request: every later request on it counts as that user's
//! (RFC 4559 §6).

/// Prefixes of such schemes: `NTLM`, `NTLM_WB`, `Negotiate`, `Nego2`, `NegoEx`, `Kerberos`, and others of Windows.
const SCHEMES: [&[u8]; 5] = [b"ntlm", b"nego", b"kerberos", b"credssp", b"pku2u"];

/// Whether credentials, or one of the challenges in a line, use such a scheme.
pub fn binds_connection(line: &[u8]) -> bool {
    line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii_start).any(|item| {
        SCHEMES
            .iter()
            .any(|scheme| item.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_known_in_any_case_and_at_any_place_of_a_list() {
        for line in [
            "NTLM",
            "ntlm TlRMTVNTUAAB",
            "Negotiate oYG2",
            "nEgOtIaTe",
            "Kerberos x",
            "NTLM_WB x",
            "Basic realm=\"a, b\", NTLM",
            "Negotiate,NTLM",
            "\t Negotiate\tx",
            "Digest a=b,\tnegotiate",
        ] {
            assert!(binds_connection(line.as_bytes()), "{line}");
        }
        for line in
            ["Basic bnRsbQ==", "Bearer NTLM", "Digest realm=\"ntlm\"", "", "x-ntlm y", "Basic realm=ntlm"]
        {
            assert!(!binds_connection(line.as_bytes()), "{line}");
        }
    }
}

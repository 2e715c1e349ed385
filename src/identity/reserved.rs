//! Names under which some portal or framework trusts what a proxy says of a request. A client's header with such a
//! name, in any spelling, never reaches the portal, unless the operator lets it through.

use http::HeaderName;

/// The names, by who sets them. A final `*` stands for all names with that prefix.
const NAMES: &[&str] = &[
    // CGI and web servers, and software that copies them.
    "remote-*",
    "x-remote-*",
    "x-webauth-*",
    "x-iisnode-*",
    "x-script-name",
    "script-name",
    "$ws*",
    // Proxies that sign users in: ours, oauth2-proxy, authentik, Pomerium, Keycloak's gatekeeper, authp, Vouch, Kong,
    // Oathkeeper, Warpgate, Cosmos, NiFi, Posit.
    "x-portcullis-*",
    "x-auth-request-*",
    "x-auth-user*",
    "x-auth-email",
    "x-auth-name",
    "x-auth-groups",
    "x-auth-roles",
    "x-auth-subject",
    "x-authentik-*",
    "x-authenticated-*",
    "x-pomerium-*",
    "x-token-user-*",
    "x-token-subject",
    "x-vouch-*",
    "x-consumer-*",
    "x-credential-*",
    "x-anonymous-consumer",
    "x-userinfo",
    "x-id-token",
    "x-warpgate-*",
    "x-cosmos-*",
    "x-proxy*",
    "x-proxied*",
    "x-rstudio-username",
    "x-sso-user*",
    "x-saml-*",
    "x-oidc-*",
    "x-ldap-*",
    "x-grafana-user",
    "x-hass*",
    "x-ingress-*",
    // Names in gateways for applications: who the user is, their groups and permissions.
    "x-user",
    "x-user-id",
    "x-user-uid",
    "x-user-uuid",
    "x-user-name",
    "x-user-login",
    "x-user-email",
    "x-user-mail",
    "x-user-display-name",
    "x-user-full-name",
    "x-user-fullname",
    "x-user-first-name",
    "x-user-last-name",
    "x-user-info",
    "x-user-principal*",
    "x-user-group*",
    "x-user-role*",
    "x-user-permission*",
    "x-user-scope*",
    "x-user-claim*",
    "x-user-dn",
    "x-user-sub",
    "x-user-subject",
    "x-user-admin",
    "x-user-is-admin",
    "x-user-authorities",
    "x-user-entitlements",
    "x-userid",
    "x-useremail",
    "x-username",
    "x-usergroup*",
    "x-userrole*",
    "x-uid",
    "x-login",
    "x-logged-in-*",
    "x-account",
    "x-accountid",
    "x-email",
    "x-email-address",
    "x-mail",
    "x-principal*",
    "x-subject",
    "x-identity*",
    "x-claim*",
    "x-jwt-claim*",
    "x-jwt-payload",
    "x-jwt-sub",
    "x-jwt-assertion",
    "x-group",
    "x-groups",
    "x-member-of",
    "x-memberof",
    "x-role",
    "x-roles",
    "x-permission",
    "x-permissions",
    "x-authorities",
    "x-entitlements",
    "x-privileges",
    "x-scope",
    "x-scopes",
    "x-admin",
    "x-is-admin",
    "x-is-authenticated",
    "x-current-user*",
    "x-effective-user*",
    "x-impersonat*",
    "impersonate-*",
    "x-on-behalf-of",
    "x-run-as*",
    "x-act-as*",
    "x-sudo*",
    "x-org-role",
    "x-preferred-username",
    "x-display-name",
    "x-full-name",
    "x-account-id",
    "x-account-name",
    "x-login-name",
    "x-login-user",
    "x-group-id",
    "x-group-ids",
    "x-group-name",
    "x-role-id",
    "x-role-name",
    // Single sign-on products: Shibboleth, CAS, mod_auth_openidc, Mellon, SiteMinder, WebSEAL, Oracle, Ping.
    "shib-*",
    "ajp-*",
    "eppn",
    "persistent-id",
    "cas-*",
    "oidc-*",
    "mellon-*",
    "sm-*",
    "iv-*",
    "oam-*",
    "osso-*",
    "pf-auth-*",
    // Clouds and meshes: Google, Azure, AWS, Cloudflare, Tailscale, Teleport, Linkerd, Envoy and Istio.
    "x-goog-authenticated-user-*",
    "x-goog-iap-*",
    "x-google-real-ip",
    "x-appengine-*",
    "x-endpoint-api-userinfo",
    "x-apigateway-api-userinfo",
    "x-ms-client-principal*",
    "x-ms-token-*",
    "x-azure-*",
    "x-arr-*",
    "x-amzn-oidc-*",
    "x-amzn-mtls-*",
    "x-amzn-request-context",
    "x-amzn-lambda-context",
    "cf-*",
    "x-cf-forwarded-url",
    "tailscale-*",
    "teleport-*",
    "l5d-*",
    "x-envoy-*",
    "x-istio-attributes",
    // Client certificates.
    "ssl-*",
    "x-ssl-*",
    "x-tls-client-*",
    "x-mtls-*",
    "client-cert*",
    "x-client-cert*",
    "x-clientcert*",
    "x-client-cn",
    "x-client-dn",
    "x-client-i-dn",
    "x-client-issuer*",
    "x-client-s-dn",
    "x-client-subject*",
    "x-client-verif*",
    // The origin and the route of a request.
    "forwarded*",
    "forward-for",
    "x-forward*",
    "x-original-forwarded*",
    "x-original-client-ip",
    "x-original-for",
    "x-original-host",
    "x-original-ip",
    "x-original-method",
    "x-original-path",
    "x-original-port",
    "x-original-proto",
    "x-original-remote*",
    "x-original-request-uri",
    "x-original-scheme",
    "x-original-uri",
    "x-original-url",
    "x-real-*",
    "x-realip",
    "x-client-ip",
    "x-clientip",
    "x-client-real-ip",
    "client-ip",
    "http-client-ip",
    "true-client-ip",
    "x-true-client-ip",
    "x-cluster-client-ip",
    "x-custom-ip-authorization",
    "x-originating-*",
    "x-source-ip",
    "x-user-ip",
    "x-trusted-ip",
    "x-host",
    "x-http-host-override",
    "x-backend-host",
    "x-scheme",
    "x-url-scheme",
    "x-https",
    "https",
    "front-end-https",
    "proxy*",
    "wl-proxy-*",
    "fastly-*",
    "fly-*",
    "cloudfront-*",
    "do-connecting-ip",
    "incap-client-ip",
    "eo-connecting-ip",
    "ali-cdn-real-ip",
    "cdn-src-ip",
    "x-sucuri-*",
    "x-nf-client-connection-ip",
    "x-vercel-*",
    // Overrides of method and target, and marks that frameworks take for internal requests.
    "x-http-method*",
    "x-http-verb",
    "x-method-override",
    "x-tunneled-method",
    "x-http-destinationurl",
    "x-http-path",
    "x-request-uri",
    "x-rewrite-*",
    "x-override-url",
    "x-replaced-path",
    "x-middleware-*",
    "x-invoke-*",
    "x-matched-path",
    "x-now-route-matches",
    "x-accel-*",
    "x-sendfile*",
    "surrogate-capability",
    "x-artifactory-override-*",
    "x-jfrog-override-*",
    "x-request-id",
];

/// The maximum length of a whole name.
const LONGEST: usize = 63;

/// The names that are removed from requests. Two look-ups in small tables clear a name that is not among them.
#[derive(Clone, Debug)]
pub(super) struct ReservedNames {
    /// Whole names in normal form, by length.
    names: Vec<Vec<Box<[u8]>>>,
    /// By length: the last characters of these names, one bit each.
    ends: Box<[u64]>,
    /// Prefixes of names in normal form, by [`start`].
    families: Vec<Vec<Box<[u8]>>>,
    /// Names that the operator lets through, in exactly this spelling.
    passed: Vec<HeaderName>,
}

impl ReservedNames {
    /// `ours` are further names that we set ourselves.
    pub(super) fn new<'a>(ours: impl IntoIterator<Item = &'a str>, passed: &[HeaderName]) -> Self {
        let mut reserved = Self {
            names: vec![Vec::new(); LONGEST + 1],
            ends: vec![0; LONGEST + 1].into(),
            families: vec![Vec::new(); 64],
            passed: passed.to_vec(),
        };
        for name in NAMES.iter().copied().chain(ours) {
            reserved.add(name);
        }
        reserved
    }

    fn add(&mut self, name: &str) {
        let (name, is_family) = name.strip_suffix('*').map_or((name, false), |start| (start, true));
        let normal: Box<[u8]> = name.bytes().map(normal).collect();
        if is_family {
            if let Some(families) = start(&normal).and_then(|start| self.families.get_mut(start)) {
                families.push(normal);
            }
        } else if let (Some(names), Some(ends)) =
            (self.names.get_mut(normal.len()), self.ends.get_mut(normal.len()))
        {
            *ends |= end(&normal);
            names.push(normal);
        }
    }

    /// Whether a portal could read `name`, in any spelling, as one of these.
    pub(super) fn has(&self, name: &HeaderName) -> bool {
        let bytes = name.as_str().as_bytes();
        (self.has_whole(bytes) || self.has_family(bytes)) && !self.passed.contains(name)
    }

    fn has_whole(&self, name: &[u8]) -> bool {
        self.ends.get(name.len()).is_some_and(|ends| ends & end(name) != 0)
            && self.names.get(name.len()).is_some_and(|names| names.iter().any(|known| begins(name, known)))
    }

    fn has_family(&self, name: &[u8]) -> bool {
        let families = start(name).and_then(|start| self.families.get(start));
        families.is_some_and(|families| families.iter().any(|family| begins(name, family)))
    }
}

/// Whether `name`, in any spelling, begins with `normal_form`.
fn begins(name: &[u8], normal_form: &[u8]) -> bool {
    name.get(..normal_form.len())
        .is_some_and(|start| start.iter().zip(normal_form).all(|(&byte, &known)| normal(byte) == known))
}

/// The bit of a name's last character.
fn end(name: &[u8]) -> u64 {
    name.last().map_or(0, |&last| 1 << (normal(last) & 63))
}

/// A number below 64 from a name's first and third character: few names share it with a prefix.
fn start(name: &[u8]) -> Option<usize> {
    let &[first, _, third, ..] = name else { return None };
    Some(usize::from((normal(first).wrapping_mul(5) ^ normal(third)) & 63))
}

/// CGI, WSGI, PHP and Rack read a header's name in upper case, with `_` for everything but letters and digits.
const fn normal(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_reserved(reserved: &ReservedNames, name: &str) -> bool {
        reserved.has(&HeaderName::try_from(name).unwrap())
    }

    #[test]
    fn a_reserved_name_is_known_in_every_spelling() {
        let reserved = ReservedNames::new(["X-Portal-Login"], &[]);
        for name in NAMES.iter().copied().chain(["x-portal-login"]) {
            let name = name.replace('*', "-anything-that-follows");
            // Each separator in turn, as every other character that a header name may contain.
            for separator in "-_.~!#$%&'*+^`|".chars() {
                let spelling = name.replace('-', &separator.to_string());
                for spelling in [spelling.clone(), spelling.to_uppercase()] {
                    assert!(is_reserved(&reserved, &spelling), "{spelling}");
                }
            }
        }
    }

    #[test]
    fn the_documentation_lists_them_all() {
        let page = include_str!("../../docs/identity-headers.md");
        for name in NAMES {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn what_browsers_and_clients_say_for_themselves_is_not_reserved() {
        let reserved = ReservedNames::new([], &[]);
        for name in [
            "accept",
            "accept-language",
            "authorization",
            "cache-control",
            "content-type",
            "cookie",
            "dnt",
            "idempotency-key",
            "if-none-match",
            "last-event-id",
            "origin",
            "range",
            "referer",
            "remote",
            "sec-ch-ua",
            "sec-fetch-mode",
            "sec-websocket-protocol",
            "traceparent",
            "upgrade-insecure-requests",
            "user-agent",
            "x-access-token",
            "x-amz-date",
            "x-api-key",
            "x-auth-token",
            "x-authorization",
            "x-client-version",
            "x-correlation-id",
            "x-csrf-token",
            "x-goog-api-key",
            "x-nextjs-data",
            "x-original-filename",
            "x-requested-with",
            "x-user-agent",
            "x-user-language",
            "x-user-timezone",
            "x-account-locale",
            "x-app-id",
            "x-client-id",
            "x-device-id",
            "x-grafana-org-id",
            "x-group-by",
            "x-emailer",
            "x-login-hint",
            "x-organization-id",
            "x-scope-orgid",
            "x-session-id",
            "x-tenant-id",
            "x-csrftoken",
            "x-jwt",
            "x-session-token",
            "x-xsrf-token",
            "grpc-timeout",
            "te",
            "x",
            &"a".repeat(200),
        ] {
            assert!(!is_reserved(&reserved, name), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_let_through_is_so_in_its_own_spelling_alone() {
        let reserved = ReservedNames::new([], &[HeaderName::from_static("x-http-method-override")]);
        assert!(!is_reserved(&reserved, "X-HTTP-Method-Override"));
        for other in ["X.HTTP.Method.Override", "X-HTTP-Method", "X-HTTP-Method-Overrides"] {
            assert!(is_reserved(&reserved, other), "{other}");
        }
    }
}

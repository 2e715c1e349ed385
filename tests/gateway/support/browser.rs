//! A browser without a screen: keeps cookies, speaks HTTP/1.1 or HTTP/2, reads forms from pages, and logs a user in the
//! way a user does. Also opens raw connections, for bytes that no browser would send.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis::clock::ManualClock;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Body, HOST, PASSWORD, PATIENCE, body, empty,
    front::Way,
    phone::Phone,
    test_gateway::Phones,
    wire::{Content, Head, Wire},
    within,
};

/// What browsers need to know of the gateway and of the user's phone.
pub(crate) struct Surroundings {
    pub(crate) address: SocketAddr,
    /// PEM; the only authority that browsers trust.
    pub(crate) certificate: Vec<u8>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) phones: Phones,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(super) enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

pub(crate) struct Browser {
    pub(super) surroundings: Arc<Surroundings>,
    protocol: Protocol,
    /// What stands in the address bar: host, and port if it is not the usual one.
    authority: String,
    cookies: Mutex<BTreeMap<String, String>>,
    /// The address that a proxy in front tells, if there is one.
    address: Option<HeaderValue>,
    /// How it reaches the gateway.
    pub(super) way: Arc<Way>,
    /// Connections without a request, which copies share.
    pub(super) idle: Arc<Mutex<Vec<Sender>>>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Browser {
    pub(crate) fn new(surroundings: Arc<Surroundings>, protocol: Protocol) -> Self {
        Self {
            surroundings,
            protocol,
            authority: HOST.to_owned(),
            cookies: Mutex::default(),
            address: None,
            way: Arc::default(),
            idle: Arc::default(),
        }
    }

    /// The same browser, cookies included, over HTTP/2.
    #[must_use]
    pub(crate) fn http2(self) -> Self {
        Self { protocol: Protocol::Http2, idle: Arc::default(), ..self }
    }

    /// The same browser, cookies included, where the site is to be found now.
    #[must_use]
    pub(crate) fn moved_to(self, surroundings: &Arc<Surroundings>) -> Self {
        Self { surroundings: Arc::clone(surroundings), idle: Arc::default(), ..self }
    }

    /// The same browser at a site of another name.
    #[must_use]
    pub(crate) fn at(self, authority: &str) -> Self {
        Self { authority: authority.to_owned(), ..self }
    }

    /// What stands in its address bar as the host.
    pub(crate) fn host(&self) -> &str {
        &self.authority
    }

    /// The same browser at another address, as a proxy in front tells it.
    #[must_use]
    pub(crate) fn from(self, address: &str) -> Self {
        Self { address: Some(HeaderValue::from_str(address).unwrap()), ..self }
    }

    /// Another window or a look at it later: the same cookies from here on, apart from then on.
    #[must_use]
    pub(crate) fn copy(&self) -> Self {
        let cookies = Mutex::new(self.cookies.lock().unwrap().clone());
        let (surroundings, idle) = (Arc::clone(&self.surroundings), Arc::clone(&self.idle));
        Self {
            surroundings,
            protocol: self.protocol,
            authority: self.authority.clone(),
            cookies,
            address: self.address.clone(),
            way: Arc::clone(&self.way),
            idle,
        }
    }

    // --- Cookies.

    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn remove_cookie(&self, name: &str) {
        self.cookies.lock().unwrap().remove(name);
    }

    /// The session's cookie. There must be one.
    pub(crate) fn session(&self) -> String {
        self.cookie("__Host-portcullis").expect("the browser has a session")
    }

    /// All cookies as a `Cookie` field carries them.
    pub(crate) fn cookies(&self) -> String {
        let cookies = self.cookies.lock().unwrap();
        cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&self, headers: &HeaderMap) {
        for line in headers.get_all(header::SET_COOKIE) {
            let line = line.to_str().expect("a cookie is text");
            let (name, value) = line.split(';').next().unwrap_or_default().split_once('=').unwrap();
            if line.split(';').any(|part| part.trim().eq_ignore_ascii_case("max-age=0")) {
                self.remove_cookie(name);
            } else {
                self.set_cookie(name, value);
            }
        }
    }

    // --- Requests.

    /// Asks for a page, as a click on a link does. Redirects are not followed.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request =
            Request::get(path).header("sec-fetch-mode", "navigate").header("accept", "text/html,*/*;q=0.8");
        self.send(request.body(empty()).unwrap()).await
    }

    /// Asks as a script does.
    pub(crate) async fn fetch(&self, path: &str) -> Answer {
        self.send(Request::get(path).header("accept", "application/json").body(empty()).unwrap()).await
    }

    /// Sends a form of a page of this site.
    pub(crate) async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(self.form_request(path, fields)).await
    }

    /// What is sent for a form of a page of this site.
    pub(crate) fn form_request(&self, path: &str, fields: &[(&str, &str)]) -> Request<Body> {
        let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(path)
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "same-origin")
            .header("origin", format!("https://{}", self.authority))
            .header("accept", "text/html,*/*;q=0.8")
            .header("content-type", "application/x-www-form-urlencoded");
        request.body(body(form)).unwrap()
    }

    /// Sends any request, with the host and the cookies added, and reads the answer to its end.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        read(self.open(request).await).await
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends any request, and returns once the head of the answer is there.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response<Incoming> {
        self.try_open(request).await.expect("there is an answer")
    }

    pub(crate) async fn try_open(&self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let cookies = self.cookies();
        let headers = request.headers_mut();
        if !cookies.is_empty() && !headers.contains_key(header::COOKIE) {
            headers.insert(header::COOKIE, HeaderValue::from_str(&cookies).unwrap());
        }
        if let Some(address) = &self.address {
            headers.entry("x-forwarded-for").or_insert_with(|| address.clone());
        }
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.connect().await,
        };
        let answer = match &mut sender {
            Sender::Http1(sender) => {
                let host = HeaderValue::from_str(&self.authority).unwrap();
                request.headers_mut().entry(header::HOST).or_insert(host);
                within(PATIENCE, sender.send_request(request)).await?
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query().cloned().unwrap();
                *request.uri_mut() = Uri::builder()
                    .scheme("https")
                    .authority(&*self.authority)
                    .path_and_query(path)
                    .build()
                    .unwrap();
                within(PATIENCE, sender.send_request(request)).await?
            }
        };
        self.keep_cookies(answer.headers());
        self.idle.lock().unwrap().push(sender);
        Ok(answer)
    }

    /// Connections whose last answer has not been read to its end are left alone.
    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap();
        idle.retain(|sender| match sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        });
        let ready = idle.iter().position(|sender| match sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        });
        ready.map(|at| idle.swap_remove(at))
    }

    async fn connect(&self) -> Sender {
        match self.protocol {
            Protocol::Http1 => {
                let io = TokioIo::new(self.tls(&["http/1.1"]).await);
                let (sender, connection) = http1::handshake(io).await.unwrap();
                tokio::spawn(connection.with_upgrades());
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let io = TokioIo::new(self.tls(&["h2"]).await);
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        }
    }

    // --- Raw connections.

    /// A TLS connection that offers these protocols.
    pub(crate) async fn tls(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        within(PATIENCE, self.try_tls(protocols)).await.expect("the gateway takes a TLS connection")
    }

    pub(crate) async fn try_tls(&self, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.surroundings.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut socket = self.tcp().await?;
        socket.write_all(&self.way.preamble).await?;
        TlsConnector::from(Arc::new(config)).connect(self.server_name(), socket).await
    }

    fn server_name(&self) -> ServerName<'static> {
        let host = self.authority.split(':').next().unwrap_or_default();
        ServerName::try_from(host.to_owned()).unwrap()
    }

    /// A connection for HTTP/1 by hand.
    pub(crate) async fn raw_connection(&self) -> RawConnection {
        RawConnection { wire: Wire::new(self.tls(&["http/1.1"]).await) }
    }

    /// Sends bytes on a connection of their own.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> RawConnection {
        let mut connection = self.raw_connection().await;
        connection.send(bytes).await;
        connection
    }

    // --- Logging in.

    /// Logs in with [`PASSWORD`], enrolling a phone when the page asks for it, and stores the recovery codes unread.
    /// Answers the page that the login ends at.
    pub(crate) async fn log_in(&self, email: &str) -> Answer {
        let answer = self.submit_password(email, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        let next = answer.location();
        let answer = if next.starts_with("/.portcullis/enrol") {
            self.enrol(email, &next).await;
            let codes = self.get("/.portcullis/recovery-codes").await;
            self.post_form("/.portcullis/recovery-codes", &[("csrf", &codes.field("csrf"))]).await
        } else {
            assert!(next.starts_with("/.portcullis/code"), "the next step is {next}");
            let phone = self.phone(email).expect("the user has enrolled in this test");
            self.submit_code(&phone.fresh_code()).await
        };
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        assert_eq!(answer.location(), "/");
        self.get("/").await
    }

    /// Opens the login page and sends e-mail and password.
    pub(crate) async fn submit_password(&self, email: &str, password: &str) -> Answer {
        let page = self.get("/.portcullis/login").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        let fields = [("email", email), ("password", password), ("csrf", &page.field("csrf"))];
        self.post_form("/.portcullis/login", &fields).await
    }

    /// Opens the page for codes and sends one.
    pub(crate) async fn submit_code(&self, code: &str) -> Answer {
        let page = self.get("/.portcullis/code").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        self.post_form("/.portcullis/code", &[("code", code), ("csrf", &page.field("csrf"))]).await
    }

    /// Opens the enrolment page at `path`, types the key into a new phone, and sends its code.
    pub(crate) async fn enrol(&self, email: &str, path: &str) -> Answer {
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        let phone = Phone::new(Arc::clone(&self.surroundings.clock), &page.text_of("key"));
        self.surroundings.phones.lock().unwrap().insert(email.to_owned(), phone.clone());
        let fields =
            [("code", &*phone.fresh_code()), ("device_name", "Phone"), ("csrf", &*page.field("csrf"))];
        let answer = self.post_form(path, &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        answer
    }

    /// The phone with which a user logs in, once they have enrolled.
    pub(crate) fn phone(&self, email: &str) -> Option<Phone> {
        self.phones().lock().unwrap().get(email).cloned()
    }

    pub(super) fn phones(&self) -> &Phones {
        &self.surroundings.phones
    }

    pub(crate) fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.surroundings.clock)
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The only value of a field; empty when there is none.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> String {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert!(values.len() <= 1, "{name} came {} times", values.len());
        values
            .first()
            .map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    pub(crate) fn location(&self) -> String {
        self.header("location")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The value of a form's input.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let text = self.text();
        let (_, rest) =
            text.split_once(&format!("name=\"{name}\"")).unwrap_or_else(|| panic!("no {name}: {text}"));
        let tag = rest.split_once('>').expect("a tag ends").0;
        let (_, value) = tag.split_once("value=\"").unwrap_or_else(|| panic!("{name} has no value: {tag}"));
        unescape(value.split_once('"').expect("a value ends").0)
    }

    /// The text within the element that has this id, one line, tags left out.
    #[track_caller]
    pub(crate) fn text_of(&self, id: &str) -> String {
        let text = self.text();
        let (before, rest) =
            text.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {text}"));
        let element = before.rsplit_once('<').expect("an element begins").1;
        let element = element.split_whitespace().next().unwrap_or_default();
        let inside = rest.split_once('>').expect("a tag ends").1;
        let inside = inside.split_once(&format!("</{element}>")).expect("an element ends").0;
        let pieces: Vec<&str> =
            inside.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text)).collect();
        unescape(pieces.join(" ").split_whitespace().collect::<Vec<_>>().join(" ").as_str())
    }

    /// What any answer of ours carries, whatever went wrong.
    #[track_caller]
    pub(crate) fn assert_secure(&self) {
        self.assert_secure_and_kept("no-store");
    }

    /// The same for an answer that may be stored as `cache_control` says.
    #[track_caller]
    pub(crate) fn assert_secure_and_kept(&self, cache_control: &str) {
        for (name, part) in [
            ("strict-transport-security", "max-age=31536000"),
            ("content-security-policy", "frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cache-control", cache_control),
        ] {
            assert!(self.header(name).contains(part), "{name} is {:?} in {self:?}", self.header(name));
        }
        assert!(!self.headers.contains_key(header::SERVER));
    }
}

/// Reads an answer to its end.
pub(crate) async fn read(answer: Response<Incoming>) -> Answer {
    let (parts, incoming) = answer.into_parts();
    let collected = within(PATIENCE, incoming.collect()).await.expect("the answer is complete");
    let trailers = collected.trailers().cloned();
    Answer {
        status: parts.status,
        version: parts.version,
        headers: parts.headers,
        body: collected.to_bytes(),
        trailers,
    }
}

pub(super) fn unescape(text: &str) -> String {
    let mut text = text.to_owned();
    for (escaped, plain) in
        [("&quot;", "\""), ("&#x27;", "'"), ("&#x2f;", "/"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
    {
        text = text.replace(escaped, plain);
    }
    text
}

/// A connection that speaks what the test writes.
#[derive(Debug)]
pub(crate) struct RawConnection {
    pub(crate) wire: Wire,
}

impl RawConnection {
    /// Sends bytes. When the gateway has hung up already, that shows at the next read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.write(bytes.as_ref()).await;
    }

    /// Sends bytes, and says whether the gateway still takes any.
    pub(crate) async fn is_heard(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.write(bytes.as_ref()).await.is_ok()
    }

    /// Reads one head; `None` when the gateway has closed.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        within(PATIENCE, self.wire.read_head()).await.unwrap_or(None)
    }

    /// Reads one answer to a request with this method. Interim answers are answers of their own.
    pub(crate) async fn answer_to(&mut self, method: &Method) -> Option<Answer> {
        let head = self.head().await?;
        let mut answer = parse(&head);
        let bodiless = *method == Method::HEAD
            || answer.status.is_informational()
            || matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let content = if bodiless {
            Content::default()
        } else {
            within(PATIENCE, self.wire.read_content(&head, true)).await.expect("the answer is complete")
        };
        answer.body = content.body.into();
        if !content.trailers.is_empty() {
            answer.trailers = Some(fields(&Head([b"\r\n", content.trailers.as_slice()].concat())));
        }
        Some(answer)
    }

    /// Reads one answer to a GET or POST. There must be one.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        async move {
            let answer = self.answer_to(&Method::GET).await;
            answer.unwrap_or_else(|| panic!("{place}: the connection was closed without an answer"))
        }
    }

    /// Whatever else comes until the gateway closes; an error at the end is an end too.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> impl Future<Output = Vec<u8>> {
        let place = std::panic::Location::caller();
        async move {
            let mut rest = Vec::new();
            loop {
                let Ok(read) = tokio::time::timeout(PATIENCE, self.wire.read_some()).await else {
                    panic!("{place}: the gateway leaves the connection open");
                };
                match read {
                    Ok(bytes) if !bytes.is_empty() => rest.extend_from_slice(&bytes),
                    _ => return rest,
                }
            }
        }
    }
}

fn parse(head: &Head) -> Answer {
    let line = head.first_line();
    let mut words = line.splitn(3, ' ');
    let version = match words.next() {
        Some("HTTP/1.1") => Version::HTTP_11,
        Some("HTTP/1.0") => Version::HTTP_10,
        other => panic!("{other:?} is no version: {head:?}"),
    };
    let status =
        words.next().and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {head:?}"));
    Answer { status, version, headers: fields(head), body: Bytes::new(), trailers: None }
}

fn fields(head: &Head) -> HeaderMap {
    head.fields()
        .into_iter()
        .map(|(name, value)| {
            (HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"))
        })
        .collect()
}

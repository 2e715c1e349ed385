//! Portcullis: the login wall for a portal that its owners cannot change.
//!
//! A TLS reverse proxy in front of an existing web application: it asks everyone for e-mail and password plus a
//! one-time code, keeps the session, and forwards authenticated requests with a proven identity. This page is the map.
//!
//! # Layout, in reading order
//!
//! | layer | modules | what they know |
//! |---|---|---|
//! | base | [`background`] [`clock`] [`agreement`] [`errors`] [`permission`] [`random`] [`secret`] [`sealing`] [`der`] | supervised background work, injected time, one time for all gateways, chains of errors, why a file may not be opened, randomness, tokens and their hashes, secrets at rest, the frame of certificates |
//! | plumbing | [`telemetry`] [`http1`] [`web`] [`database`] [`redis_pool`] | logs and metrics; HTTP/1.1, read and written; the strict request gate, bodies, cookies, forms; the two kinds of store |
//! | facts | [`users`] [`access`] [`rollout`] [`throttle`] [`credentials`] [`client_certificates`] [`sessions`] [`tokens`] [`saved_forms`] [`hand_overs`] [`audit`] [`mail`] [`links`] [`notices`] | users, what a target requires, what users have proved, the tokens and certificates of machines, how often somebody failed |
//! | judgement | [`identity`] [`gate`] [`login`] [`account`] [`administration`] [`by_mail`] | who a request is from, whether it passes, the steps of a login; what users do with their accounts, and operators with everybody's |
//! | surface | [`pages`] [`forward_auth`] [`tls`] [`server`] [`upstream`] [`proxy`] | our own pages; the questions of other proxies; sockets, workers and protocols; connections to the portal |
//! | whole | [`gateway`] [`config`] [`monitoring`] [`app`] [`demo`] [`cli`] | the straight line; the configuration; everything put together |
//!
//! A module uses only those before it in this table, left to right and top to bottom, and no files use each other in a circle:
//! `tests/tidy` reads the table and the imports.
//!
//! # The straight line
//!
//! ```text
//! main > cli/serve > app > server: listener > worker > connection (TLS, HTTP/1 or HTTP/2 by ALPN) > gateway::handle:
//!    http1::request_head (HTTP/1)    reads a head that has one reading; hyper reads HTTP/2, with fragments marked ([`web::raw_paths`])
//!  1 web::gate::RequestGate::admit   refuses what two readers could understand differently; the host leads to a gateway::Site
//!  2 web::client::address            the client's address; the request's record is open from here
//!  3 a path of ours?                 > pages, on the control runtime; it never goes to the portal
//!    a token instead of a session   > tokens.cached, else .load, and its scope (`gateway::token`); the rest is the same
//!    neither, but a certificate     > the same with the certificate of the connection (`gateway::certificate`)
//!  4 sessions.cached, else .load     a store that is down is an error, never "no session"
//!  5 access.of, gate::decide         pure: what the rules require, what the request can show > Allow(Identity) | Challenge(Missing) | Deny
//!  6 Allow > proxy.forward           the head rebuilt, with the signed assertion; the body streamed, or a tunnel
//!          > web::portal_answers     what the response may tell a browser
//!          > gateway::notice         a page gets the script that announces the session's end, if configured
//!    else  > gate::Challenger        302 or 303 for a page, 401 for a script
//!    a form whose session expired  > saved_forms, and sent through its own address when its user confirms
//!    a question of another proxy     > forward_auth: the same line up to here for the request that it holds, and a response that it acts on
//!  7 any error > gateway::rescue     the only place where an error becomes a response
//!  8 the body's end                  one access-log line, metrics
//! login at another site > pages/hand_over: the first site makes a code, after a login if need be > arrive > cookie of that site
//! POST login: pages/sign_in > login (place in the queue > throttle > password > pending login) > code or enrolment > sessions.create > cookie > 303
//! ```
//!
//! # HTTP/1 and HTTP/2
//!
//! hyper serves HTTP/2, which every browser speaks, and gRPC. HTTP/1.1 has one strict reader of our own, on both sides: a check in
//! front of a lenient parser would be a second reader, and two readers of the same bytes are how requests get smuggled. Its evidence:
//! `docs/conformance.md`, line by line; `tests/gateway/smuggling`; fuzzing beside hyper's and Node's readers.
//!
//! # Threads
//!
//! Each worker is a thread with a runtime, listeners (`SO_REUSEPORT`) and connections to the portal of its own; workers
//! share no lock that a request would wait for. Our own pages, the stores and background work run on the
//! control runtime. Passwords are hashed on a few threads of low priority behind a bounded queue. Background work has
//! names ([`background`]): a piece that ends, like a worker that ends, stops the process with an error.
//!
//! # What keeps the usual request cheap
//!
//! - A head is read once, by the parser that refuses what others would read differently ([`http1::request_head`]), and the head
//!   for the portal is written to the wire straight from its fields. The fields of the response go to HTTP/1 clients line by
//!   line, as they came ([`web::portal_fields`]).
//! - HTTP/1 needs no task per request: the connection's task polls the service (`server::http1`), and the task that waits for the
//!   portal's response reads it from the socket ([`upstream::http1`]).
//! - Identity headers and the signed assertion are made once per session, the cookies of a connection are read once.
//! - An idle HTTP/1 connection keeps its socket and TLS, but no buffer; the responses that one
//!   turn has for an HTTP/2 connection are written together (`server::coalescing`).
//! - Futures that a protocol moves about are boxed; so are those of unusual ways.
//! - The keys of new connections are computed one per turn of the runtime, so that a crowd of them delays no request for long.
//! - `packaging/build` makes a profile-guided build from a recorded load.
//!
//! # What is deliberately absent
//!
//! - No global state: time, randomness, stores and metrics come in as arguments; only [`app`] names a concrete store.
//! - No timer per request on the way in: connections note their progress, and each worker sweeps them (`server::monitor`).
//! - Facts and judgement never see a hyper type. [`gate::decide`] and [`rollout`] do no IO.
//! - Nobody but [`gate::decide`] makes the [`gate::Identity`] that [`proxy::Proxy::forward`] demands; nobody but the
//!   request gate makes the [`web::gate::CanonicalRequest`] behind it; only proofs make a [`sessions::NewSession`]: one with two
//!   factors takes a [`sessions::FirstFactor`] and a [`credentials::VerifiedCode`] of one user.
//! - No portal is built in: what differs between two of them is in the [`gateway::Site`] that the request gate finds. What a
//!   session or a connection caches for a portal, it caches for each of them separately.
//! - No response has a second head: fields are read and set on the [`web::reply::Reply`].
//! - No module reads [`config`]; each owns its `Config`, which `config` fills.

pub mod agreement;
pub mod background;
pub mod clock;
pub mod der;
pub mod errors;
pub mod permission;
pub mod random;
pub mod sealing;
pub mod secret;

pub mod database;
pub mod http1;
pub mod redis_pool;
pub mod telemetry;
pub mod web;

pub mod access;
pub mod audit;
pub mod client_certificates;
pub mod credentials;
pub mod hand_overs;
pub mod links;
pub mod mail;
pub mod notices;
pub mod rollout;
pub mod saved_forms;
pub mod sessions;
pub mod throttle;
pub mod tokens;
pub mod users;

pub mod account;
pub mod administration;
pub mod by_mail;
pub mod gate;
pub mod identity;
pub mod login;

pub mod forward_auth;
pub mod pages;
pub mod proxy;
pub mod server;
pub mod tls;
pub mod upstream;

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod gateway;
pub mod monitoring;

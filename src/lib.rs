//! Portcullis: the login wall for a portal that its owners cannot change.
//!
//! A TLS reverse proxy stands in front of an existing web application, asks everyone for e-mail and password plus a
//! one-time code, keeps the session, and forwards what is authenticated with a proven identity. This page is the map.
//!
//! # Layout, in reading order
//!
//! | layer | modules | what they know |
//! |---|---|---|
//! | base | [`background`] [`clock`] [`agreement`] [`errors`] [`permission`] [`random`] [`secret`] [`sealing`] | supervised work beside the requests, injected time, one time for all gateways, chains of errors, why a file may not be opened, randomness, tokens and their hashes, secrets at rest |
//! | plumbing | [`telemetry`] [`http1`] [`web`] [`database`] [`redis_pool`] | logs and metrics; HTTP/1.1, read and written; the strict request gate, bodies, cookies, forms; the two kinds of store |
//! | facts | [`users`] [`access`] [`rollout`] [`throttle`] [`credentials`] [`sessions`] [`tokens`] [`saved_forms`] [`hand_overs`] [`audit`] | who there is, what a target asks for, what they have proved, what machines may show, how often somebody failed |
//! | judgement | [`identity`] [`gate`] [`login`] [`account`] [`administration`] | who a request is from, whether it passes, how a login goes on; what users do with their accounts, and operators with everybody's |
//! | surface | [`pages`] [`forward_auth`] [`tls`] [`server`] [`upstream`] [`proxy`] | our own URLs; what other proxies ask; sockets, workers and protocols; the way to the portal |
//! | whole | [`gateway`] [`config`] [`monitoring`] [`app`] [`demo`] [`cli`] | the straight line; everything put together |
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
//!    a token instead of a session   > tokens.cached, else .load, and its limits (`gateway::token`); the rest is the same
//!  4 sessions.cached, else .load     a store that is down is an error, never "no session"
//!  5 access.of, gate.decide          pure: what the rules ask, what is shown > Allow(Identity) | Challenge(Missing) | Deny
//!  6 Allow > proxy.forward           the head rebuilt, the signed assertion in it, the body streamed, or a tunnel
//!          > web::portal_answers     what the answer may say to a browser
//!          > gateway::notice         a page that is opened gets the script that tells of the session's end, if that is wanted
//!    else  > gate::Challenger        302 or 303 for a page, 401 for a script
//!    a form whose session ran out  > saved_forms, and sent from its own address when its user says so
//!    asked by another proxy          > forward_auth: the same line up to here about the request that it holds, and an answer that it acts on
//!  7 any error > gateway::rescue     the only place where an error becomes an answer
//!  8 the body's end                  one access-log line, metrics
//! login at another site > pages/hand_over: the first site, with a login or without, gives a code > arrive > cookie of that site
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
//! share no lock that a request would wait for. Our own pages, the stores and what runs in the background live on the
//! control runtime. Passwords are hashed on a few threads of low priority behind a bounded queue. Background work has
//! names ([`background`]): a piece of it that ends, like a worker that ends, stops the process with an error.
//!
//! # What keeps the usual request cheap
//!
//! - A head is read once, by the parser that refuses what others would read differently ([`http1::request_head`]), and the head
//!   for the portal is written to the wire straight from its fields. The fields of its answer go to HTTP/1 line by line,
//!   as they came ([`web::portal_fields`]).
//! - HTTP/1 needs no task per request: the connection's task polls the service (`server::http1`), and the task that waits for the
//!   portal's response reads it from the socket ([`upstream::http1`]).
//! - Identity headers and the signed assertion are made once a session, the cookies of a connection are read once.
//! - A connection of HTTP/1 that is idle keeps its socket and TLS and no buffer; the answers that one
//!   turn has for a connection of HTTP/2 go out together (`server::coalescing`).
//! - Futures that a protocol moves about are boxed; ways that are not the usual one are boxed as well.
//! - The keys of new connections are computed one a turn of the runtime, so that a crowd of them delays no request for long.
//! - `packaging/build` has the compiler lay the program out for what a load has been seen to run.
//!
//! # What is deliberately absent
//!
//! - No global state: time, randomness, stores and metrics come in as arguments; only [`app`] names a concrete store.
//! - No timer a request on the way in: connections note their progress, and each worker sweeps them (`server::monitor`).
//! - Facts and judgement never see a hyper type. [`gate::Gate::decide`] and [`rollout`] do no IO.
//! - Nobody but [`gate::Gate`] makes the [`gate::Identity`] that [`proxy::Proxy::forward`] demands; nobody but the
//!   request gate makes the [`web::gate::CanonicalRequest`] behind it; only proofs make a [`sessions::NewSession`]: one of two
//!   factors takes a [`sessions::PasswordProof`] and a [`credentials::VerifiedCode`] of one user.
//! - No portal is built in: what differs between two of them is in the [`gateway::Site`] that the request gate finds. What is kept
//!   of a session or a connection for one of them is kept for each of them apart.
//! - No answer has a second head: whoever reads or sets a field does it on the [`web::reply::Reply`].
//! - No module reads [`config`]; each owns its `Config`, which `config` fills.

pub mod agreement;
pub mod background;
pub mod clock;
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
pub mod credentials;
pub mod hand_overs;
pub mod rollout;
pub mod saved_forms;
pub mod sessions;
pub mod throttle;
pub mod tokens;
pub mod users;

pub mod account;
pub mod administration;
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

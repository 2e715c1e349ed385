//! The whole gateway, in this process, before a recording portal: what goes in at the socket and what comes out.

#[cfg(test)]
mod access;
#[cfg(test)]
mod assertion;
#[cfg(test)]
mod background;
#[cfg(test)]
mod balancers;
#[cfg(test)]
mod battlefield;
#[cfg(test)]
mod by_mail;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod client_certificates;
#[cfg(test)]
mod clock_differences;
#[cfg(test)]
mod clock_jumps;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod ended_sessions;
#[cfg(test)]
mod ending;
#[cfg(test)]
mod error_pages;
#[cfg(test)]
mod every_ending;
#[cfg(test)]
mod everybody;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod forward_auth;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod imports;
mod intermediary;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod levels;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod login;
#[cfg(test)]
mod logout_paths;
#[cfg(test)]
mod looking;
#[cfg(test)]
mod mail;
#[cfg(test)]
mod one_user;
#[cfg(test)]
mod origins;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod own_pages;
#[cfg(test)]
mod passive;
#[cfg(test)]
mod plain_http;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod portal_answers;
#[cfg(test)]
mod portal_faults;
#[cfg(test)]
mod portal_hosts;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod postgres_outages;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod real_portals;
#[cfg(test)]
mod remembered;
#[cfg(test)]
mod request_gate;
#[cfg(test)]
mod request_gate_http2;
#[cfg(test)]
mod rollout;
#[cfg(test)]
mod saved_forms;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod service_workers;
#[cfg(test)]
mod session_notice;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod signed_in_connections;
#[cfg(test)]
mod sites;
mod smoke;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod spoofing;
#[cfg(test)]
mod sqlite_outages;
#[cfg(test)]
mod streaming;
#[cfg(test)]
#[expect(dead_code, reason = "each topic takes what it needs of the harness")]
mod support;
#[cfg(test)]
mod telling;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod towards_portal;
#[cfg(test)]
mod two_ports;
#[cfg(test)]
mod unauthenticated;
#[cfg(test)]
mod unix_sockets;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod websocket;
#[cfg(test)]
mod websocket_log;

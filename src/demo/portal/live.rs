//! Live usage: the same samples once a second, over a WebSocket (RFC 6455) and as server-sent events.
//!
//! Both end when the portal stops. The figures are derived from the number of the tick, so they need no background
//! work.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    Portal,
    answer::{self, DemoResponse, Error},
    sims::{Fleet, Plan, Status, mix},
};
use crate::errors::Chain;

const PERIOD: Duration = Duration::from_secs(1);

/// SIMs in one sample.
const SHOWN: usize = 12;

/// Maximum size of a browser's message: a filter, typed by hand.
const LONGEST_FILTER: usize = 1024;

/// The traffic at one tick.
#[derive(Debug, Serialize)]
struct Sample {
    tick: u64,
    /// Of the SIMs in this sample.
    total_kbps: u64,
    sims: Vec<Rate>,
}

#[derive(Debug, Serialize)]
struct Rate {
    iccid: String,
    name: String,
    plan: Plan,
    kbps: u64,
}

impl Sample {
    /// Of the first active SIMs that match the filter.
    fn take(fleet: &Fleet, filter: &str, tick: u64) -> Self {
        let found = fleet.search(filter).into_iter().filter(|sim| sim.status == Status::Active);
        let sims: Vec<Rate> = found
            .take(SHOWN)
            .map(|sim| {
                let seed = sim.iccid.bytes().fold(tick, |seed, byte| mix(seed ^ u64::from(byte)));
                let most = match sim.plan {
                    Plan::Meter => 12,
                    Plan::Tracker => 96,
                    Plan::Camera => 900,
                };
                Rate { kbps: most / 2 + seed % (most / 2), iccid: sim.iccid, name: sim.name, plan: sim.plan }
            })
            .collect();
        Self { tick, total_kbps: sims.iter().map(|rate| rate.kbps).sum(), sims }
    }
}

/// The first tick comes at once. A slow reader gets fewer samples, not a backlog.
fn ticks() -> Interval {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Serves `/sse/usage`: an endless stream of `usage` events.
pub(super) fn events(portal: Arc<Portal>) -> DemoResponse {
    let stream = stream::unfold((portal, ticks(), 0_u64), |(portal, mut ticks, tick)| async move {
        tokio::select! {
            () = portal.shutdown.cancelled() => return None,
            _ = ticks.tick() => {}
        }
        let sample = serde_json::to_string(&Sample::take(&portal.fleet, "", tick)).ok()?;
        let event = format!("event: usage\nid: {tick}\ndata: {sample}\n\n");
        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(event)));
        Some((frame, (portal, ticks, tick + 1)))
    });
    answer::with_body("text/event-stream", StreamBody::new(stream))
}

/// Serves `/ws/usage`: switches protocols, then sends samples; a text message from the browser is the new filter.
pub(super) fn web_socket(
    portal: Arc<Portal>,
    request: &mut Request<Incoming>,
) -> Result<DemoResponse, Error> {
    let accept = accept_key(request.headers())?;
    let upgrade = hyper::upgrade::on(request);
    let tasks = portal.tasks.clone();
    tasks.spawn(async move {
        let ended = tokio::select! {
            ended = serve_socket(&portal, upgrade) => ended,
            () = portal.cut_off() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(error = %Chain(&error), "a live page went away");
        }
    });
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// Checks the handshake (RFC 6455, section 4.2.1) and computes the response to its key.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Error> {
    let is = |name, expected: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.eq_ignore_ascii_case(expected))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    match key {
        Some(key) if is(header::UPGRADE, "websocket") && is(header::SEC_WEBSOCKET_VERSION, "13") => {
            HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
        }
        _ => None,
    }
    .ok_or(Error::Malformed("This address speaks WebSocket, version 13."))
}

#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("cannot switch protocols")]
    Upgrade(#[from] hyper::Error),
    #[error("the WebSocket failed")]
    Socket(#[from] tungstenite::Error),
    #[error("cannot write a sample")]
    Json(#[from] serde_json::Error),
}

async fn serve_socket(portal: &Portal, upgrade: OnUpgrade) -> Result<(), SocketError> {
    let upgraded: TokioIo<Upgraded> = TokioIo::new(upgrade.await?);
    let limits = WebSocketConfig::default().max_message_size(Some(LONGEST_FILTER));
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(limits)).await;
    let (mut ticks, mut tick, mut filter) = (ticks(), 0, String::new());
    loop {
        tokio::select! {
            () = portal.shutdown.cancelled() => {
                let away = CloseFrame { code: CloseCode::Away, reason: "the portal stops".into() };
                return Ok(socket.close(Some(away)).await?);
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    text.as_str().clone_into(&mut filter);
                    ticks.reset_immediately();
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            },
            _ = ticks.tick() => {
                let sample = serde_json::to_string(&Sample::take(&portal.fleet, &filter, tick))?;
                tick += 1;
                socket.send(Message::text(sample)).await?;
            }
        }
    }
}

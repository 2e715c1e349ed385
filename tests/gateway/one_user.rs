//! One user who overdoes it, or somebody with their session: others are served as if nothing were, and whoever uses the portal
//! as people do never notices a limit.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::support::{
    Answer, Body, BoxError, Browser, Exchange, HOST, PASSWORD, PATIENCE, TestGateway, Upstream, body,
    browser::Protocol, empty, logged_in, soon, two_logged_in, upstream::ordinary, websocket, within,
};

const ACCOUNT: &str = "/.portcullis/account";

/// A portal with downloads and polls that never end, event streams and WebSockets.
fn portal() -> Upstream {
    Upstream::scripted(async move |mut exchange: Exchange| match exchange.target().as_str() {
        "/download" => {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome").await?;
            exchange.wire.fill().await.ok()?;
            None
        }
        "/events" => {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await?;
            exchange.wire.fill().await.ok()?;
            None
        }
        "/poll/long" => {
            exchange.wire.fill().await.ok()?;
            None
        }
        "/live" => websocket::echo(exchange).await.and(None),
        _ => ordinary(exchange).await,
    })
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(empty()).unwrap()
}

/// An upload without an end, which the portal has begun to answer.
fn upload() -> (Request<Body>, mpsc::Sender<Result<Frame<bytes::Bytes>, BoxError>>) {
    let (parts, mut coming) = mpsc::channel(1);
    let parts_of_it = futures_util::stream::poll_fn(move |cx| coming.poll_recv(cx));
    let body = StreamBody::new(parts_of_it).boxed_unsync();
    (Request::post("/download").body(body).unwrap(), parts)
}

#[track_caller]
fn is_held_back(answer: &Answer, words: &str) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    assert!(answer.text().contains(words), "{}", answer.text());
    assert!(answer.set_cookies().is_empty());
    answer.assert_secure();
}

fn limited(gateway: &str, limit: &str) -> bool {
    gateway.contains(&format!("portcullis_users_limited_total{{limit=\"{limit}\"}}"))
}

#[tokio::test]
async fn one_users_uploads_and_downloads_leave_half_of_the_connections_to_others() {
    let builder = TestGateway::builder().upstream(&portal()).set("portal.max_connections", "4");
    let builder = builder.set("portal.connect_timeout", "500ms");
    let (gateway, ada, eve) = two_logged_in(builder).await;
    let download = ada.open(get("/download")).await;
    let (request, parts) = upload();
    parts.send(Ok(Frame::data("first".into()))).await.unwrap();
    let upload = ada.open(request).await;
    assert_eq!((download.status(), upload.status()), (StatusCode::OK, StatusCode::OK), "both go on");
    gateway.upstream.forget();
    // Behind the two of them, Ada's own wait for their turn, and nobody else does.
    let more = join_all((0..20).map(|_| ada.send(get("/more"))));
    let others = async {
        for _ in 0..20 {
            let answers = join_all((0..2).map(|_| eve.send(get("/eve")))).await;
            assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{answers:?}");
        }
        let mut seen = gateway.upstream.requests().into_iter();
        assert!(seen.all(|request| request.first_line().contains("/eve")));
        drop(upload);
    };
    let (more, ()) = tokio::join!(more, others);
    assert!(more.iter().all(|answer| answer.status == StatusCode::OK), "none of it is lost");
    drop(download);
}

/// Asks for something that never comes until `until` is done, and gives what that says.
async fn polls<T>(browser: &Browser, polls: usize, until: impl Future<Output = T>) -> T {
    tokio::select! {
        answers = join_all((0..polls).map(|_| browser.send(get("/poll/long")))) => panic!("{answers:?}"),
        said = until => said,
    }
}

#[tokio::test]
async fn two_users_who_want_everything_leave_a_third_all_they_need() {
    let builder = TestGateway::builder().upstream(&portal()).set("portal.max_connections", "9");
    let (gateway, ada, eve) = two_logged_in(builder.set("portal.connect_timeout", "500ms")).await;
    gateway.add_user("bob@example.com").await;
    let bob = gateway.browser();
    bob.log_in("bob@example.com").await;
    gateway.upstream.forget();
    let third = async {
        // Ada has half, Eve half of what is left.
        gateway.upstream.arrived(7).await;
        for _ in 0..20 {
            let answers = join_all((0..4).map(|_| bob.send(get("/bob")))).await;
            assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{answers:?}");
        }
        let requests = gateway.upstream.requests();
        assert_eq!(requests.iter().filter(|request| !request.first_line().contains("/bob")).count(), 7);
    };
    let second = async {
        gateway.upstream.arrived(5).await;
        polls(&eve, 100, third).await;
    };
    polls(&ada, 100, second).await;
}

#[tokio::test]
async fn whoever_waits_goes_on_when_others_are_done() {
    let builder = TestGateway::builder().upstream(&portal()).set("portal.max_connections", "8");
    let (gateway, ada, eve) = two_logged_in(builder).await;
    gateway.upstream.forget();
    let mut eves: Vec<_> = Vec::new();
    for _ in 0..4 {
        eves.push(eve.open(get("/download")).await);
    }
    let own = [ada.open(get("/download")).await, ada.open(get("/download")).await];
    // Two are free, and Ada has two.
    let mut page = Box::pin(ada.send(get("/page")));
    for _ in 0..10 {
        tokio::select! {
            biased;
            answer = &mut page => panic!("{answer:?}"),
            answer = eve.get(ACCOUNT) => assert_eq!(answer.status, StatusCode::OK),
        }
    }
    eves.pop();
    assert_eq!(page.await.status, StatusCode::OK, "while both of Ada's own go on");
    drop(own);
}

#[tokio::test]
async fn whoever_waits_too_long_for_their_own_requests_is_told_so() {
    let builder = TestGateway::builder().upstream(&portal()).set("portal.max_connections", "2");
    let (gateway, ada, eve) = two_logged_in(builder.set("portal.response_timeout", "300ms")).await;
    let download = ada.open(get("/download")).await;
    assert_eq!(download.status(), StatusCode::OK);
    is_held_back(&ada.get("/").await, "You have many requests to IoT Connectivity in progress");
    let script = ada.fetch("/").await;
    is_held_back(&script, "Too many requests of this user are in progress");
    assert_eq!(script.header("content-type"), "application/problem+json");
    assert_eq!(eve.get("/").await.status, StatusCode::OK);
    assert!(limited(&gateway.admin("/metrics").await, "requests"));
    assert!(gateway.access_log().contains("decision=refuse"));
    // The own pages are as good as ever.
    assert_eq!(ada.get(ACCOUNT).await.status, StatusCode::OK);
    drop(download);
    soon(PATIENCE, "it goes on", async || ada.get("/").await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn one_user_opens_so_many_websockets_and_event_streams_and_no_more() {
    for http2 in [false, true] {
        let builder = TestGateway::builder().upstream(&portal()).set("portal.max_streams_per_user", "3");
        let (gateway, ada, eve) = two_logged_in(builder.set("portal.max_connections", "4")).await;
        let (ada, eve) = if http2 { (ada.http2(), eve.http2()) } else { (ada, eve) };
        // What the portal refuses to open counts for nothing.
        for _ in 0..5 {
            assert!(ada.try_tunnel("/no-socket", &[]).await.is_err());
        }
        let mut sockets = vec![ada.tunnel("/live").await, ada.tunnel("/live").await];
        let events = ada.open(get("/events")).await;
        assert_eq!(events.status(), StatusCode::OK);
        let refused = ada.try_tunnel("/live", &[]).await.err().expect("no fourth one");
        is_held_back(&refused, "Too many WebSockets and event streams of this user are open");
        is_held_back(&ada.fetch("/events").await, "Too many WebSockets and event streams");
        is_held_back(&ada.get("/events").await, "pages of IoT Connectivity open that update themselves");
        assert!(limited(&gateway.admin("/metrics").await, "streams"));
        // They keep no request of Ada's waiting, and none of them is anybody else's.
        let answers = join_all((0..10).map(|_| ada.send(get("/")))).await;
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
        let _eves = [eve.tunnel("/live").await, eve.tunnel("/live").await, eve.tunnel("/live").await];
        drop(events);
        sockets.push(one_more(&ada).await);
        is_held_back(&ada.try_tunnel("/live", &[]).await.err().unwrap(), "Too many WebSockets");
    }
}

/// A client of HTTP/2 has 64 streams and waits silently for one more (RFC 9113 §5.1.2): what stays open takes 56 of them.
#[tokio::test]
async fn one_websocket_too_many_on_a_connection_is_told_and_pages_go_on() {
    let (gateway, ada) = logged_in(TestGateway::builder().upstream(&portal())).await;
    let ada = ada.http2();
    let events = ada.open(get("/events")).await;
    assert_eq!(events.status(), StatusCode::OK);
    let mut sockets = Vec::new();
    for _ in 0..55 {
        sockets.push(ada.tunnel("/live").await);
    }
    for _ in 0..20 {
        let refused = within(PATIENCE, ada.try_tunnel("/live", &[])).await.err().expect("no further one");
        is_held_back(&refused, "Too many WebSockets and event streams are open on this connection");
        let events = within(PATIENCE, ada.get("/events")).await;
        is_held_back(&events, "pages of IoT Connectivity open that update themselves");
    }
    assert!(limited(&gateway.admin("/metrics").await, "connection"));
    let pages = join_all((0..20).map(|_| ada.send(get("/page"))));
    assert!(within(PATIENCE, pages).await.iter().all(|answer| answer.status == StatusCode::OK));
    // Another connection has room.
    let elsewhere = gateway.browser().http2();
    elsewhere.set_cookie("__Host-portcullis", &ada.session());
    let _one = elsewhere.tunnel("/live").await;
    drop(events);
    sockets.push(one_more(&ada).await);
}

/// The socket that is opened as soon as there is room for it.
async fn one_more(browser: &Browser) -> websocket::Bytes {
    let mut opened = None;
    soon(PATIENCE, "there is room again", async || {
        opened = browser.try_tunnel("/live", &[]).await.ok();
        opened.is_some()
    })
    .await;
    opened.expect("it is open")
}

/// Opens a page of ours until there is none.
async fn hammer(browser: &Browser) {
    for _ in 0..400 {
        let answer = browser.get(ACCOUNT).await;
        if answer.status != StatusCode::OK {
            return is_held_back(&answer, "opened very often in a short time");
        }
    }
    panic!("there is no limit");
}

#[tokio::test]
async fn a_user_who_hammers_our_pages_is_slowed_down_and_nobody_else_is() {
    let (gateway, ada, eve) = two_logged_in(TestGateway::builder()).await;
    hammer(&ada).await;
    is_held_back(&ada.post_form("/.portcullis/enrol", &[("csrf", "x")]).await, "opened very often");
    assert!(limited(&gateway.admin("/metrics").await, "pages"));
    for browser in [&ada, &eve] {
        assert_eq!(browser.get("/").await.status, StatusCode::OK, "the portal");
        assert_eq!(browser.fetch("/.portcullis/whoami").await.status, StatusCode::OK);
    }
    assert_eq!(eve.get(ACCOUNT).await.status, StatusCode::OK);
    // Another session of the same user, which may be the one whose user wants to end this one.
    let elsewhere = gateway.browser();
    elsewhere.log_in("ada@example.com").await;
    let account = elsewhere.get(ACCOUNT).await;
    assert_eq!(account.status, StatusCode::OK);
    hammer(&ada).await;
    gateway.clock.advance(Duration::from_secs(1));
    for _ in 0..5 {
        assert_eq!(ada.get(ACCOUNT).await.status, StatusCode::OK, "five a second");
    }
    is_held_back(&ada.get(ACCOUNT).await, "opened very often");
    let csrf = account.field("csrf");
    let ended = elsewhere.post_form(ACCOUNT, &[("csrf", &csrf), ("end", "others")]).await;
    assert_eq!(ended.location(), ACCOUNT);
    soon(PATIENCE, "it is over", async || ada.whoami().await.is_none()).await;
    // Signing out never has to wait.
    for _ in 0..400 {
        elsewhere.post_form("/.portcullis/logout", &[("csrf", "x")]).await;
    }
    elsewhere.post_form("/.portcullis/logout", &[("csrf", &csrf)]).await;
    assert!(elsewhere.whoami().await.is_none());
}

#[tokio::test]
async fn a_login_in_progress_that_hammers_our_pages_is_slowed_down_and_no_other_one_is() {
    let (gateway, ada, _) = two_logged_in(TestGateway::builder()).await;
    let thief = gateway.browser();
    thief.submit_password("ada@example.com", PASSWORD).await;
    let login = gateway.browser();
    login.submit_password("eve@example.com", PASSWORD).await;
    for page in ["/.portcullis/code", "/.portcullis/recovery", "/.portcullis/enrol"] {
        let mut asked = 0;
        let refused = loop {
            let answer = thief.get(page).await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                break answer;
            }
            asked += 1;
            assert!(asked <= 300, "there is no limit to {page}");
        };
        is_held_back(&refused, "opened very often in a short time");
    }
    is_held_back(&thief.post_form("/.portcullis/code", &[("code", "000000")]).await, "opened very often");
    // Neither the user, nor another login of the same address, nor one that begins.
    assert_eq!(ada.get(ACCOUNT).await.status, StatusCode::OK);
    assert_eq!(login.get("/.portcullis/code").await.status, StatusCode::OK);
    gateway.browser().log_in_to("/", "eve@example.com").await;
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(thief.get("/.portcullis/code").await.status, StatusCode::OK);
}

/// A browser with a hundred tabs, a page with its assets, a dashboard, a folder that is uploaded, and tabs that poll.
async fn works(gateway: &TestGateway, browser: &Browser) {
    let all_are_good = |answers: &[Answer], what: &str| {
        let bad: Vec<_> = answers.iter().filter(|answer| answer.status != StatusCode::OK).collect();
        assert!(bad.is_empty(), "{what}: {} of {}: {:?}", bad.len(), answers.len(), bad[0]);
    };
    let tabs = join_all((0..100).map(|tab| browser.send(get(&format!("/tab/{tab}"))))).await;
    all_are_good(&tabs, "tabs");
    let own = join_all((0..40).map(|_| browser.get(ACCOUNT))).await;
    all_are_good(&own, "tabs of our own page");
    let who = join_all((0..100).map(|_| browser.fetch("/.portcullis/whoami"))).await;
    all_are_good(&who, "scripts that ask who it is");
    for _ in 0..10 {
        let assets = join_all((0..30).map(|asset| browser.send(get(&format!("/asset/{asset}"))))).await;
        all_are_good(&assets, "assets");
    }
    let files = join_all((0..6).map(async |_| {
        let mut answers = Vec::new();
        for file in 0..167 {
            let request = Request::post(format!("/upload/{file}")).body(body(vec![0; 2000])).unwrap();
            answers.push(browser.send(request).await);
        }
        answers
    }))
    .await;
    all_are_good(&files.concat(), "files");
    let mut live = Vec::new();
    // Over HTTP/2 each is one of the 64 streams of the connection.
    for _ in 0..if browser.protocol() == Protocol::Http2 { 50 } else { 150 } {
        live.push(browser.tunnel("/live").await);
    }
    for _ in 0..50 {
        let poll = browser.fetch("/poll").await;
        assert_eq!(poll.status, StatusCode::OK, "a dashboard polls");
    }
    drop(live);
    gateway.upstream.forget();
    let pages = async {
        gateway.upstream.arrived(44).await;
        for _ in 0..10 {
            let assets = join_all((0..10).map(|asset| browser.send(get(&format!("/asset/{asset}"))))).await;
            all_are_good(&assets, "pages while others are polled for");
        }
    };
    polls(browser, 44, pages).await;
}

#[tokio::test]
async fn whoever_works_as_people_do_never_meets_a_limit() {
    let builder = TestGateway::builder().upstream(&portal()).set("server.workers", "16");
    let (gateway, browser) = logged_in(builder).await;
    works(&gateway, &browser).await;
    works(&gateway, &browser.http2()).await;
}

#[tokio::test]
async fn while_tabs_poll_over_one_connection_other_pages_open() {
    let builder = TestGateway::builder().upstream(&portal()).set("server.workers", "16");
    let (gateway, browser) = logged_in(builder).await;
    let io = TokioIo::new(browser.tls(&["h2"]).await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let ask = async |path: &'static str| {
        let request = Request::get(format!("https://{HOST}{path}")).header("cookie", browser.cookies());
        let mut sender = sender.clone();
        sender.send_request(request.body(empty()).unwrap()).await.unwrap().status()
    };
    let pages = async {
        gateway.upstream.arrived(44).await;
        for _ in 0..10 {
            assert_eq!(ask("/page").await, StatusCode::OK);
        }
    };
    tokio::select! {
        polls = join_all((0..44).map(|_| ask("/poll/long"))) => panic!("{polls:?}"),
        () = pages => {}
    }
}

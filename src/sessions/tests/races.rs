//! Look-ups during a change of the session, and concurrent look-ups.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// A store that holds every result back until it is released, and counts them.
struct Slow {
    store: Arc<dyn SessionStore>,
    asked: AtomicUsize,
    held_back: AtomicUsize,
    answers: Semaphore,
}

impl Slow {
    fn new(store: Arc<dyn SessionStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            asked: AtomicUsize::new(0),
            held_back: AtomicUsize::new(0),
            answers: Semaphore::new(0),
        })
    }

    async fn holds_back(&self, count: usize) {
        eventually("an answer is held back", async || self.held_back.load(Ordering::SeqCst) == count).await;
    }
}

impl SessionStore for Slow {
    fn insert<'a>(&'a self, session: &'a StoredSession) -> BoxFuture<'a, Result<(), SessionError>> {
        self.store.insert(session)
    }
    fn load<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<Option<StoredSession>, SessionError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.store.load(id).await;
            self.held_back.fetch_add(1, Ordering::SeqCst);
            self.answers.acquire().await.unwrap().forget();
            self.held_back.fetch_sub(1, Ordering::SeqCst);
            answer
        })
    }
    fn touch<'a>(
        &'a self,
        seen: &'a [(TokenHash, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.store.touch(seen)
    }
    fn remove<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<(), SessionError>> {
        self.store.remove(id)
    }
    fn remove_user<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.store.remove_user(user)
    }
    fn clear_ended(&self) -> BoxFuture<'_, Result<usize, SessionError>> {
        self.store.clear_ended()
    }
    fn list<'a>(
        &'a self,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<StoredSession>, SessionError>> {
        self.store.list(user)
    }
    fn purge(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, SessionError>> {
        self.store.purge(now)
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.store.ping()
    }
    fn follow<'a>(&'a self, hear: &'a Hear<'a>) -> Option<BoxFuture<'a, ()>> {
        self.store.follow(hear)
    }
}

/// The result of a look-up that has just begun.
fn look_up(gateway: &Gateway, id: TokenHash) -> JoinHandle<Option<Arc<Live>>> {
    let sessions = Arc::clone(&gateway.sessions);
    tokio::spawn(async move { sessions.load(&id, Use::Counts).await.unwrap() })
}

#[tokio::test]
async fn a_session_revoked_while_it_is_looked_up_is_not_cached() {
    for kind in STORES {
        for revoked in ["here", "elsewhere", "elsewhere with its user"] {
            let world = World::new(kind).await;
            let slow = Slow::new(world.store().await);
            let gateway = world.gateway_on(slow.clone()).await;
            let other = world.gateway().await;
            let id = gateway.log_in("ada").await;
            let looking = look_up(&gateway, id);
            slow.holds_back(1).await;
            let state = gateway.sessions.cache.enrol(&id);
            match revoked {
                "here" => gateway.sessions.revoke(&id).await.unwrap(),
                "elsewhere" => other.sessions.revoke(&id).await.unwrap(),
                _ => assert_eq!(other.sessions.revoke_user(&UserId::of("ada")).await.unwrap(), 1),
            }
            timeout(PATIENCE, state.ended.cancelled()).await.expect("the gateway hears of it");
            slow.answers.add_permits(100);
            assert!(timeout(PATIENCE, looking).await.unwrap().unwrap().is_none());
            assert!(gateway.cached(&id, Use::Counts).is_none());
        }
    }
}

#[tokio::test]
async fn rights_changed_while_they_are_looked_up_are_looked_up_again() {
    for kind in STORES {
        let world = World::new(kind).await;
        let slow = Slow::new(world.store().await);
        let gateway = world.gateway_on(slow.clone()).await;
        let id = gateway.log_in("ada").await;
        slow.answers.add_permits(1);
        let before = gateway.live(&id).await;
        gateway.sessions.cache.forget(&id);

        let looking = look_up(&gateway, id);
        slow.holds_back(1).await;
        gateway.sessions.cache.doubt_users(&[UserId::of("ada")].into());
        slow.answers.add_permits(100);
        let found = timeout(PATIENCE, looking).await.unwrap().unwrap().unwrap();
        // The first result was discarded, since it might be from before the change.
        assert!(slow.asked.load(Ordering::SeqCst) >= 3);
        assert!(!Arc::ptr_eq(&before, &found));
        assert!(Arc::ptr_eq(&found, &gateway.cached(&id, Use::Counts).unwrap()));
    }
}

#[tokio::test]
async fn a_vacancy_is_lost_when_its_session_is_forgotten() {
    let world = World::new(Kind::Database).await;
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    let live = gateway.live(&id).await;
    let cache = Cache::new();
    for (forget, sticks) in [
        (None, true),
        (Some(Box::new(|cache: &Cache| cache.forget(&id)) as Box<dyn Fn(&Cache)>), false),
        (Some(Box::new(|cache: &Cache| cache.end(&[id]))), false),
        (Some(Box::new(|cache: &Cache| cache.doubt_all())), false),
    ] {
        cache.forget(&id);
        let Err(vacancy) = cache.get_or_vacancy(&id).await else { panic!("it was forgotten") };
        let _state = cache.enrol(&id);
        if let Some(forget) = forget {
            forget(&cache);
        }
        assert_eq!(vacancy.fill(Arc::clone(&live)), sticks);
        assert_eq!(cache.get(&id).is_some(), sticks);
    }
}

#[tokio::test]
async fn many_who_look_up_one_session_ask_the_store_once() {
    for kind in STORES {
        let world = World::new(kind).await;
        let slow = Slow::new(world.store().await);
        let gateway = world.gateway_on(slow.clone()).await;
        let id = gateway.log_in("ada").await;
        let looking: Vec<_> = (0..50).map(|_| look_up(&gateway, id)).collect();
        slow.holds_back(1).await;
        slow.answers.add_permits(50);
        for found in looking {
            assert!(timeout(PATIENCE, found).await.unwrap().unwrap().is_some());
        }
        assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_store_that_never_answers_is_an_error_for_all_who_wait() {
    let world = World::new(Kind::Database).await;
    let slow = Slow::new(world.store().await);
    let gateway = world.gateway_on(slow.clone()).await;
    let id = gateway.log_in("ada").await;
    let start = tokio::time::Instant::now();
    let (one, two) =
        tokio::join!(gateway.sessions.load(&id, Use::Counts), gateway.sessions.load(&id, Use::Counts));
    assert!(matches!((one, two), (Err(SessionError::Slow), Err(SessionError::Slow))));
    assert!(start.elapsed() < Duration::from_secs(2));
    // And nothing blocks the next look-up.
    slow.answers.add_permits(100);
    gateway.live(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_thread_sees_a_session_after_its_end() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        for _ in 0..100 {
            let id = gateway.log_in("ada").await;
            let looking: Vec<_> = (0..4).map(|_| look_up(&gateway, id)).collect();
            gateway.sessions.revoke(&id).await.unwrap();
            assert!(gateway.cached(&id, Use::Counts).is_none());
            assert!(gateway.is_out(&id).await);
            for found in looking {
                // A look-up that was quick enough to see the session has also been told of its end.
                if let Some(live) = found.await.unwrap() {
                    assert!(live.ended.is_cancelled());
                }
            }
            assert!(gateway.cached(&id, Use::Counts).is_none());
        }
    }
}

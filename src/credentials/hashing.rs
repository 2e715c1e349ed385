//! A few threads that hash passwords, at low priority and behind a bounded queue: a flood of logins takes a bounded
//! amount of memory and cannot slow the portal down.
//!
//! Knows neither users nor stores.

use std::{
    fmt, io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use rustix::{process::setpriority_process, thread::gettid};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::stored_hash::{Scratch, StoredHash};
use crate::random::Random;

/// Maximum length of the queue. Logins wait for their turn elsewhere, so only a few are here.
const QUEUE: usize = 64;

/// The niceness of these threads, in favour of those that serve requests (0 to 19).
const NICENESS: i32 = 10;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    #[error("too many passwords are being checked at once")]
    Busy,
    #[error("cannot hash a password")]
    Argon2(#[source] argon2::Error),
    #[error("a hashing thread ended without a result")]
    Lost,
}

type Job = Box<dyn FnOnce(&mut Scratch) + Send>;

/// A handle to the threads; they end when it is dropped.
pub struct Hashing {
    queue: SyncSender<Job>,
    random: Arc<dyn Random>,
}

impl Hashing {
    /// Half the cores, at least one.
    pub fn default_threads() -> NonZeroUsize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    }

    pub fn start(threads: NonZeroUsize, random: Arc<dyn Random>) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads.get() {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name(format!("hashing-{number}")).spawn(move || work(&jobs))?;
        }
        Ok(Self { queue, random })
    }

    /// The hash of `password` at the current costs, with a new salt.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<StoredHash, HashingError> {
        let salt = self.random.bytes();
        let answer = self.submit(move |scratch| StoredHash::compute(password.as_bytes(), salt, scratch))?;
        answer.await.map_err(|_| HashingError::Lost)?.map_err(HashingError::Argon2)
    }

    /// Whether `hash` is the hash of `password`.
    pub async fn verify(&self, hash: StoredHash, password: Zeroizing<String>) -> Result<bool, HashingError> {
        let answer = self.submit(move |scratch| hash.matches(password.as_bytes(), scratch))?;
        answer.await.map_err(|_| HashingError::Lost)?.map_err(HashingError::Argon2)
    }

    /// A hash that no password matches, with the costs of new ones.
    pub fn dummy(&self) -> StoredHash {
        StoredHash::dummy(&*self.random)
    }

    /// Queues a job. It keeps its place in the queue until it has run, even if nobody waits for it any more.
    fn submit<T: Send + 'static>(
        &self,
        compute: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, HashingError> {
        let (reply, answer) = oneshot::channel();
        let job = move |scratch: &mut Scratch| {
            // Skips the work if its requester has gone.
            if !reply.is_closed() {
                // The requester has gone in the meantime.
                let _ = reply.send(compute(scratch));
            }
        };
        match self.queue.try_send(Box::new(job)) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(HashingError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(HashingError::Lost),
        }
    }
}

impl fmt::Debug for Hashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashing(…)")
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    // On Linux a thread id sets the priority of only that thread.
    if let Err(refused) = setpriority_process(Some(gettid()), NICENESS) {
        tracing::debug!(error = %refused, "cannot lower the priority of a hashing thread");
    }
    let mut scratch = Scratch::default();
    loop {
        // No job runs while the lock is held, so a poisoned lock does no harm.
        let Ok(job) = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        if catch_unwind(AssertUnwindSafe(|| job(&mut scratch))).is_err() {
            tracing::error!("a hashing job panicked");
            scratch = Scratch::default();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{cell::RefCell, sync::mpsc, time::Duration};

    use super::*;
    use crate::random::OsRandom;

    fn one_thread() -> Hashing {
        Hashing::start(NonZeroUsize::MIN, Arc::new(OsRandom)).unwrap()
    }

    /// Idle threads behind a full queue, until the sender is dropped.
    pub(in crate::credentials) fn stalled() -> (Hashing, mpsc::Sender<()>) {
        let hashing = one_thread();
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let running = hashing.submit(move |_| {
            started.send(()).unwrap();
            let _ = released.recv();
        });
        has_started.recv().unwrap();
        drop(running);
        for _ in 0..QUEUE {
            drop(hashing.submit(|_| ()).unwrap());
        }
        (hashing, release)
    }

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let hashing = one_thread();
        let hash = hashing.hash(text("secret")).await.unwrap();
        assert_ne!(hash.to_text(), hashing.hash(text("secret")).await.unwrap().to_text());
        assert!(hashing.verify(hash.clone(), text("secret")).await.unwrap());
        assert!(!hashing.verify(hash, text("Secret")).await.unwrap());
        assert!(!hashing.verify(hashing.dummy(), text("secret")).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_and_requesters_that_leave_do_not_free_it() {
        let (hashing, release) = stalled();
        for _ in 0..2 {
            assert!(matches!(hashing.hash(text("x")).await, Err(HashingError::Busy)));
        }
        drop(release);
        // The queue drains without hashing, and works again.
        loop {
            match hashing.submit(|_| 7) {
                Ok(answer) => break assert_eq!(answer.await.unwrap(), 7),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_job_leaves_the_thread_working() {
        let hashing = one_thread();
        let lost = hashing.submit(|_| -> () { panic!("on purpose") }).unwrap();
        assert!(lost.await.is_err());
        assert_eq!(hashing.submit(|_| 7).unwrap().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn the_threads_are_nice_and_the_others_are_not() {
        let own = rustix::process::getpriority_process(None).unwrap();
        let theirs = one_thread().submit(|_| rustix::process::getpriority_process(Some(gettid()))).unwrap();
        assert_eq!(theirs.await.unwrap().unwrap(), NICENESS.max(own));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), own);
    }

    struct TellsItsEnd(mpsc::Sender<()>);

    impl Drop for TellsItsEnd {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    thread_local!(static END: RefCell<Option<TellsItsEnd>> = const { RefCell::new(None) });

    #[tokio::test]
    async fn the_threads_end_with_the_handle() {
        let hashing = one_thread();
        let (end, ended) = mpsc::channel();
        let planted = hashing.submit(move |_| END.set(Some(TellsItsEnd(end)))).unwrap();
        planted.await.unwrap();
        assert!(ended.try_recv().is_err());
        drop(hashing);
        ended.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}

//! The few threads that hash passwords, behind a bounded queue, at low priority: a flood of logins costs a bounded
//! amount of memory and cannot slow the portal.
//!
//! Knows neither users nor stores.

use std::{
    fmt, io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{process::setpriority_process, thread::gettid};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{
    queue::{Claim, Full, Queue},
    stored_hash::{Scratch, StoredHash},
};
use crate::random::Random;

/// Longer nobody waits: whoever would is told to try again.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// How nice the threads are to those that serve the portal (0 to 19).
const NICENESS: i32 = 10;

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    #[error("too many passwords are being checked at once")]
    Busy,
    #[error("a password could not be hashed")]
    Argon2(#[source] argon2::Error),
    #[error("a hashing job ended without an answer")]
    Lost,
}

/// Runs with what hashing needs, or without when it has lost its place.
type Job = Box<dyn FnOnce(Option<&mut Scratch>) + Send>;

/// A handle on the threads; they end when it is dropped.
pub struct Hashing {
    jobs: Arc<Jobs>,
    random: Arc<dyn Random>,
}

struct Jobs {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue<Job>,
    over: bool,
}

impl Jobs {
    /// A job never runs under the lock, so the lock cannot be poisoned in a way that matters.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; absent at the end.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.queue.pop(Instant::now()) {
                return Some(job);
            }
            if state.over {
                return None;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.jobs.state().over = true;
        self.jobs.more.notify_all();
    }
}

impl Hashing {
    /// Half the cores, at least one.
    pub fn default_threads() -> NonZeroUsize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    }

    pub fn start(threads: NonZeroUsize, random: Arc<dyn Random>) -> io::Result<Self> {
        let jobs = Arc::new(Jobs { state: Mutex::default(), more: Condvar::new() });
        // From here on whatever has been started ends with this.
        let hashing = Self { jobs, random };
        for number in 0..threads.get() {
            let jobs = Arc::clone(&hashing.jobs);
            thread::Builder::new().name(format!("hashing-{number}")).spawn(move || work(&jobs))?;
        }
        Ok(hashing)
    }

    /// The hash of `password` at today's costs, with a salt of its own.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<StoredHash, HashingError> {
        let salt = self.random.bytes();
        let hash = move |scratch: &mut Scratch| StoredHash::compute(password.as_bytes(), salt, scratch);
        self.run(&Claim::OWN, hash).await?.map_err(HashingError::Argon2)
    }

    /// Whether there is a place for such a claim; the try counts in any case.
    pub fn arrive(&self, claim: &Claim) -> Result<(), HashingError> {
        self.jobs.state().queue.arrive(claim, Instant::now()).map_err(|Full| HashingError::Busy)
    }

    /// Whether `hash` is the hash of `password`.
    pub async fn verify(
        &self,
        hash: StoredHash,
        password: Zeroizing<String>,
        claim: &Claim,
    ) -> Result<bool, HashingError> {
        let verify = move |scratch: &mut Scratch| hash.matches(password.as_bytes(), scratch);
        let is_right = self.run(claim, verify).await?.map_err(HashingError::Argon2)?;
        if is_right {
            self.jobs.state().queue.was_right(claim, Instant::now());
        }
        Ok(is_right)
    }

    /// A hash that no password matches and that costs as much as any made today.
    pub fn dummy(&self) -> StoredHash {
        StoredHash::dummy(&*self.random)
    }

    async fn run<T: Send + 'static>(
        &self,
        claim: &Claim,
        compute: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<T, HashingError> {
        let answer = self.submit(claim, compute)?;
        match tokio::time::timeout(LONGEST_WAIT, answer).await {
            Ok(answer) => answer.map_err(|_| HashingError::Lost)?,
            Err(_) => Err(HashingError::Busy),
        }
    }

    /// Queues a job. Its place in the queue is its own until it has run or somebody else has taken it, whether or not
    /// anybody still waits for it.
    fn submit<T: Send + 'static>(
        &self,
        claim: &Claim,
        compute: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, HashingError>>, HashingError> {
        let (reply, answer) = oneshot::channel();
        let job = move |scratch: Option<&mut Scratch>| {
            // The work itself is spared when its requester has gone.
            if !reply.is_closed() {
                // Gone in the meantime: nobody misses the answer.
                let _ = reply.send(scratch.map(compute).ok_or(HashingError::Busy));
            }
        };
        let displaced = self.jobs.state().queue.push(claim, Box::new(job), Instant::now());
        let displaced = displaced.map_err(|Full| HashingError::Busy)?;
        self.jobs.more.notify_one();
        if let Some(displaced) = displaced {
            displaced(None);
        }
        Ok(answer)
    }
}

impl fmt::Debug for Hashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashing(…)")
    }
}

fn work(jobs: &Jobs) {
    // On Linux the priority of a thread id is that thread's alone.
    if let Err(refused) = setpriority_process(Some(gettid()), NICENESS) {
        tracing::debug!(error = %refused, "cannot lower the priority of a hashing thread");
    }
    let mut scratch = Scratch::default();
    while let Some(job) = jobs.next() {
        if catch_unwind(AssertUnwindSafe(|| job(Some(&mut scratch)))).is_err() {
            tracing::error!("a hashing job panicked");
            scratch = Scratch::default();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{cell::RefCell, sync::mpsc, time::Duration};

    use super::*;
    use crate::{
        credentials::queue::{PLACES, RESERVE},
        random::OsRandom,
        throttle::Attempt,
    };

    fn one_thread() -> Hashing {
        Hashing::start(NonZeroUsize::MIN, Arc::new(OsRandom)).unwrap()
    }

    /// Threads that do nothing behind a queue that is full, until the sender is dropped.
    pub(in crate::credentials) fn stalled() -> (Hashing, mpsc::Sender<()>) {
        let hashing = one_thread();
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let running = hashing.submit(&Claim::OWN, move |_| {
            started.send(()).unwrap();
            let _ = released.recv();
        });
        has_started.recv().unwrap();
        drop(running);
        for number in 0..PLACES {
            let claim = stranger(&format!("192.0.2.{}", number / 8), number);
            drop(hashing.submit(&claim, |_| ()).unwrap());
        }
        for _ in 0..RESERVE {
            drop(hashing.submit(&Claim::OWN, |_| ()).unwrap());
        }
        (hashing, release)
    }

    /// One of many accounts.
    pub(in crate::credentials) fn stranger(address: &str, account: usize) -> Claim {
        Claim::of(&Attempt::new(&account.to_string(), address.parse().unwrap(), None))
    }

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let hashing = one_thread();
        let hash = hashing.hash(text("secret")).await.unwrap();
        assert_ne!(hash.to_phc(), hashing.hash(text("secret")).await.unwrap().to_phc());
        assert!(hashing.verify(hash.clone(), text("secret"), &Claim::OWN).await.unwrap());
        assert!(!hashing.verify(hash, text("Secret"), &Claim::OWN).await.unwrap());
        assert!(!hashing.verify(hashing.dummy(), text("secret"), &Claim::OWN).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_and_requesters_that_leave_do_not_free_it() {
        let (hashing, release) = stalled();
        for _ in 0..2 {
            assert!(matches!(hashing.hash(text("x")).await, Err(HashingError::Busy)));
        }
        drop(release);
        // The queue drains without hashing anything, and serves again.
        loop {
            match hashing.submit(&Claim::OWN, |_| 7) {
                Ok(answer) => break assert_eq!(answer.await.unwrap().unwrap(), 7),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_job_leaves_the_thread_working() {
        let hashing = one_thread();
        let lost = hashing.submit(&Claim::OWN, |_| -> () { panic!("on purpose") }).unwrap();
        assert!(lost.await.is_err());
        assert_eq!(hashing.submit(&Claim::OWN, |_| 7).unwrap().await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn the_threads_are_nice_and_the_others_are_not() {
        let own = rustix::process::getpriority_process(None).unwrap();
        let theirs = one_thread()
            .submit(&Claim::OWN, |_| rustix::process::getpriority_process(Some(gettid())))
            .unwrap();
        assert_eq!(theirs.await.unwrap().unwrap().unwrap(), NICENESS.max(own));
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
        let planted = hashing.submit(&Claim::OWN, move |_| END.set(Some(TellsItsEnd(end)))).unwrap();
        planted.await.unwrap().unwrap();
        assert!(ended.try_recv().is_err());
        drop(hashing);
        ended.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}

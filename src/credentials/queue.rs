//! The queue of login attempts: fair, and with a reserve, so that a flood takes nothing from others. An attempt asks
//! the stores and has a password hashed only in its turn. Known browsers have places that strangers cannot fill. Among
//! strangers, those whose networks have tried least come first, and of equals the newest: at its start a flood fills
//! all places at once, and later attempts would wait behind it. Each network and account has a share of the places. An
//! attempt without a place counts as well, so that a flood pays for overfilling the queue.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    secret::sha256,
    throttle::{Attempt, Key, Kind},
};

/// Places for strangers; with 20 ms per hash, the last of them waits little more than a second.
const PLACES: usize = 64;
/// Places for known browsers.
const RESERVE: usize = 32;
/// Maximum number of places per owner of this kind.
const SHARE_OF_NETWORK: usize = 8;
const SHARE_OF_ACCOUNT: usize = 4;
/// LoginQueue in addition to those of the hashing threads: these wait for a store.
const AT_THE_STORES: usize = 2;
/// The maximum wait; an attempt that would wait longer is told to try again.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// After this time an attempt counts half.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// The weight of a correct attempt, relative to a wrong one.
const RIGHT_TRY: f64 = 0.125;
/// Networks that are remembered.
const MOST: usize = 32 * 1024;

/// Who tries to log in.
#[derive(Clone, Debug)]
pub enum Claim {
    /// An account in a browser in which it is known, whichever browser that is.
    Known(Key),
    Stranger(Vec<Owner>),
}

/// An owner of a share of the places, and the size of the share relative to one address.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    key: (Kind, Key),
    times: u32,
}

impl Claim {
    pub fn of(attempt: &Attempt<'_>) -> Self {
        let account = sha256(attempt.account.as_bytes());
        if attempt.browser.is_some() {
            return Self::Known(account);
        }
        let networks = attempt.networks.keys().map(|(kind, key, times)| Owner { key: (kind, key), times });
        let account = Owner { key: (Kind::Strangers, account), times: 0 };
        // An invalid name belongs to nobody.
        let account = Some(account).filter(|_| !attempt.account.is_empty());
        Self::Stranger(networks.chain(account).collect())
    }
}

impl Owner {
    fn share(self) -> usize {
        match self.times {
            0 => SHARE_OF_ACCOUNT,
            times => SHARE_OF_NETWORK * times as usize,
        }
    }
}

/// There is no place in the queue, or the wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many sign-ins at once")]
pub struct Full;

/// The queue of all attempts; clones share it.
#[derive(Clone, Debug)]
pub struct LoginQueue(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    queue: Queue<oneshot::Sender<Turn>>,
    /// LoginQueue that nobody has.
    free: usize,
}

/// A turn, which passes to the next attempt when this is dropped.
#[derive(Debug)]
#[must_use = "whoever has a turn keeps others waiting"]
pub struct Turn {
    /// `None` once it has been returned.
    queue: Option<LoginQueue>,
}

impl LoginQueue {
    /// As many as keep the `hashing` threads busy, and a few more.
    pub fn new(hashing: NonZeroUsize) -> Self {
        let free = hashing.get() + AT_THE_STORES;
        Self(Arc::new(Mutex::new(State { queue: Queue::default(), free })))
    }

    /// Waits for a turn. The attempt counts, whatever its result.
    pub async fn take(&self, claim: &Claim) -> Result<Turn, Full> {
        let waiting = {
            let mut state = self.state();
            let now = Instant::now();
            state.queue.count(claim, 1.0, now);
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn { queue: Some(self.clone()) });
            }
            let (sender, receiver) = oneshot::channel();
            state.queue.leave(oneshot::Sender::is_closed);
            // Dropping the sender tells the one that lost its place.
            drop(state.queue.push(claim, sender, now)?);
            receiver
        };
        match timeout(LONGEST_WAIT, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Full),
        }
    }

    /// Reduces the weight of an attempt that was correct.
    pub fn was_right(&self, claim: &Claim) {
        self.state().queue.count(claim, RIGHT_TRY - 1.0, Instant::now());
    }

    /// Nothing panics while the lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        let mut turn = Self { queue: Some(queue.clone()) };
        loop {
            let mut state = queue.state();
            let Some(next) = state.queue.pop(Instant::now()) else {
                state.free += 1;
                turn.queue = None;
                return;
            };
            drop(state);
            match next.send(turn) {
                Ok(()) => return,
                // The receiver has gone.
                Err(unwanted) => turn = unwanted,
            }
        }
    }
}

/// How much an owner has asked recently.
#[derive(Clone, Copy, Debug)]
struct Heat {
    amount: f64,
    at: Instant,
}

impl Heat {
    fn now(self, now: Instant) -> f64 {
        let half_lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.amount * (-half_lives).exp2()
    }
}

/// Jobs in the order in which they are taken.
#[derive(Debug)]
struct Queue<J> {
    known: VecDeque<(Key, J)>,
    /// In the order of arrival.
    strangers: Vec<(Vec<Owner>, J)>,
    held: HashMap<(Kind, Key), usize>,
    heat: HashMap<(Kind, Key), Heat>,
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        Self {
            known: VecDeque::new(),
            strangers: Vec::with_capacity(PLACES),
            held: HashMap::new(),
            heat: HashMap::new(),
        }
    }
}

impl<J> Queue<J> {
    /// Counts an attempt for a stranger's networks, or takes a part of it back.
    fn count(&mut self, claim: &Claim, amount: f64, now: Instant) {
        let Claim::Stranger(owners) = claim else { return };
        for owner in owners.iter().filter(|owner| owner.times > 0) {
            self.add(*owner, amount, now);
        }
    }

    /// Takes a place. Returns the job that loses its place because its networks have asked for more.
    fn push(&mut self, claim: &Claim, job: J, now: Instant) -> Result<Option<J>, Full> {
        let owners = match claim {
            Claim::Known(key) => {
                self.reserve(key)?;
                self.known.push_back((*key, job));
                return Ok(None);
            }
            Claim::Stranger(owners) => owners,
        };
        let displaced = self.place(owners, now)?.map(|at| self.take(at));
        for owner in owners {
            *self.held.entry(owner.key).or_default() += 1;
        }
        self.strangers.push((owners.clone(), job));
        Ok(displaced)
    }

    /// The next job: of a known browser, or of the stranger whose networks have asked least, the newest of equals.
    fn pop(&mut self, now: Instant) -> Option<J> {
        if let Some((_, job)) = self.known.pop_front() {
            return Some(job);
        }
        let ranks = self.strangers.iter().map(|(owners, _)| self.rank(owners, now));
        let (at, _) = ranks.enumerate().rev().min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        Some(self.take(at))
    }

    fn take(&mut self, at: usize) -> J {
        let (owners, job) = self.strangers.remove(at);
        for owner in owners {
            if let Some(held) = self.held.get_mut(&owner.key) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(&owner.key);
                }
            }
        }
        job
    }

    /// Frees the places of jobs that no longer wait. Their turn might not come for long, since others are ahead.
    fn leave(&mut self, gone: impl Fn(&J) -> bool) {
        self.known.retain(|(_, job)| !gone(job));
        while let Some(at) = self.strangers.iter().position(|(_, job)| gone(job)) {
            drop(self.take(at));
        }
    }

    fn reserve(&self, account: &Key) -> Result<(), Full> {
        let own = self.known.iter().filter(|(other, _)| other == account).count();
        if self.known.len() >= RESERVE || own >= SHARE_OF_ACCOUNT { Err(Full) } else { Ok(()) }
    }

    /// A place: a free one, or that of the stranger who has asked most and no less than this one; of equals, the one
    /// who has waited longest. If the account has its full share already, the place is one of that share: attempts in
    /// its name take no other places.
    fn place(&self, owners: &[Owner], now: Instant) -> Result<Option<usize>, Full> {
        let is_full = |owner: &&Owner| self.held.get(&owner.key).is_some_and(|held| *held >= owner.share());
        let mut full = owners.iter().filter(is_full);
        let account = match (full.next(), full.next()) {
            (None, _) if self.strangers.len() < PLACES => return Ok(None),
            (None, _) => None,
            (Some(account), None) if account.times == 0 => Some(account.key),
            (Some(_), _) => return Err(Full),
        };
        let is_among =
            |owners: &[Owner]| account.is_none_or(|account| owners.iter().any(|owner| owner.key == account));
        let among = self.strangers.iter().enumerate().filter(|(_, (owners, _))| is_among(owners));
        let ranks = among.map(|(at, (owners, _))| (at, self.rank(owners, now)));
        match ranks.rev().max_by(|(_, one), (_, other)| one.total_cmp(other)) {
            Some((at, rank)) if rank >= self.rank(owners, now) => Ok(Some(at)),
            Some(_) | None => Err(Full),
        }
    }

    /// The highest weight among these owners, relative to one address.
    fn rank(&self, owners: &[Owner], now: Instant) -> f64 {
        let heat = |owner: &Owner| {
            let heat = self.heat.get(&owner.key)?.now(now) / f64::from(owner.times.max(1));
            // Rounded: a recent attempt counts no more than one of a while ago.
            Some(heat.round())
        };
        owners.iter().filter_map(heat).fold(0.0, f64::max)
    }

    fn add(&mut self, owner: Owner, amount: f64, now: Instant) {
        if self.heat.len() >= MOST {
            // At most half of them stay, or every attempt would go through all of them.
            let mut least = 1.0;
            while self.heat.len() > MOST / 2 {
                self.heat.retain(|_, heat| heat.now(now) >= least);
                least *= 2.0;
            }
        }
        let heat = self.heat.entry(owner.key).or_insert(Heat { amount: 0.0, at: now });
        *heat = Heat { amount: (heat.now(now) + amount).max(0.0), at: now };
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::throttle::KnownBrowser;

    fn from(address: &str, account: &str) -> Claim {
        Claim::of(&Attempt::new(account, address.parse().unwrap(), None))
    }

    fn known(account: &str, browser: u8) -> Claim {
        let browser = KnownBrowser::new(account, &[browser]);
        Claim::of(&Attempt::new(account, IpAddr::V4(Ipv4Addr::LOCALHOST), Some(browser)))
    }

    /// As a login does: counted, then placed.
    fn try_once<J>(queue: &mut Queue<J>, claim: &Claim, job: J, now: Instant) -> Result<Option<J>, Full> {
        queue.count(claim, 1.0, now);
        queue.push(claim, job, now)
    }

    #[test]
    fn whoever_has_asked_least_comes_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (job, address) in [(1, "192.0.2.1"), (2, "192.0.2.1"), (3, "192.0.2.2")] {
            assert_eq!(try_once(&mut queue, &from(address, &job.to_string()), job, now), Ok(None));
        }
        assert_eq!(try_once(&mut queue, &known("ada", 1), 4, now), Ok(None));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
        assert_eq!(order, [4, 3, 2, 1]);
    }

    #[test]
    fn a_flood_from_many_networks_makes_room_for_whoever_is_new() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let flood: Vec<_> = (0..1000_u32)
            .map(|number| from(&Ipv4Addr::from_bits(0x0a00_0000 + number).to_string(), &number.to_string()))
            .collect();
        for round in 0..2 {
            for (number, claim) in flood.iter().enumerate() {
                let _ = try_once(&mut queue, claim, round * 1000 + number, now);
            }
        }
        assert_eq!(
            try_once(&mut queue, &from("192.0.2.1", "ada"), 7777, now).map(|gone| gone.is_some()),
            Ok(true)
        );
        assert!((0..=PLACES).any(|_| queue.pop(now) == Some(7777)));
    }

    #[test]
    fn a_flood_that_has_just_begun_keeps_nobody_behind_it() {
        let (mut queue, begin) = (Queue::default(), Instant::now());
        // As many networks as there are places, and more, each for the first time.
        for number in 0..PLACES + 100 {
            let claim = from(&format!("10.0.{}.{}", number / 256, number % 256), &number.to_string());
            let gone = try_once(&mut queue, &claim, number, begin).unwrap();
            assert_eq!(gone, number.checked_sub(PLACES), "the one who has waited longest makes room");
        }
        // The same later as at once.
        for (job, later) in [(7777, Duration::from_secs(2)), (8888, Duration::ZERO)] {
            let claim = from(&format!("192.0.2.{}", later.as_secs()), "ada");
            assert!(try_once(&mut queue, &claim, job, begin + later).is_ok());
            assert_eq!(queue.pop(begin + later), Some(job));
        }
    }

    #[test]
    fn neighbours_in_one_organisation_share() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut placed = 0;
        for number in 0..64 {
            let claim = from(&format!("2001:db8:1:{number:x}00::1"), &number.to_string());
            placed += usize::from(try_once(&mut queue, &claim, number, now).is_ok());
        }
        assert_eq!(placed, 4 * SHARE_OF_NETWORK);
        // Their attempts count together.
        assert_eq!(try_once(&mut queue, &from("2001:db8:2::1", "ada"), 100, now), Ok(None));
        assert_eq!(queue.pop(now), Some(100));
        assert_eq!(queue.pop(now), Some(31));
    }

    #[test]
    fn one_account_has_a_share_in_however_many_browsers_it_is_known() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let (mut strange, mut familiar) = (0, 0);
        for number in 0..20 {
            let stranger = from(&format!("192.0.2.{number}"), "ada");
            strange += usize::from(try_once(&mut queue, &stranger, 0, now) == Ok(None));
            familiar += usize::from(try_once(&mut queue, &known("ada", number), 0, now).is_ok());
        }
        assert_eq!((strange, familiar), (SHARE_OF_ACCOUNT, SHARE_OF_ACCOUNT));
        assert_eq!(queue.strangers.len(), SHARE_OF_ACCOUNT);
        assert_eq!(try_once(&mut queue, &known("bob", 1), 0, now), Ok(None));
    }

    #[test]
    fn whoever_asks_in_anothers_name_does_not_keep_them_out() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        // The first time from networks that have asked more, the second time from ones that have asked as often.
        for (round, tries) in [(0, 3), (1, 1)] {
            for number in 0..SHARE_OF_ACCOUNT {
                for _ in 0..tries {
                    let other = from(&format!("10.0.{round}.{number}"), &format!("{number}"));
                    queue.count(&other, 1.0, now);
                }
                let _ = queue.push(&from(&format!("10.0.{round}.{number}"), "ada"), number, now);
            }
            let own = from(&format!("192.0.2.{round}"), "ada");
            assert!(matches!(try_once(&mut queue, &own, 7777, now), Ok(Some(_))));
            assert_eq!(queue.strangers.len(), SHARE_OF_ACCOUNT);
            assert_eq!(queue.pop(now), Some(7777));
        }
        // An owner who has asked for more than all of them takes none of their places.
        let often = from("10.0.2.1", "ada");
        queue.count(&often, 9.0, now);
        assert!(try_once(&mut queue, &from("192.0.2.9", "ada"), 0, now).is_ok());
        assert_eq!(try_once(&mut queue, &often, 0, now), Err(Full));
    }

    #[test]
    fn what_was_asked_is_forgotten_in_time_and_right_passwords_count_little() {
        let (mut queue, now) = (Queue::<u8>::default(), Instant::now());
        let office = from("192.0.2.1", "ada");
        let Claim::Stranger(owners) = &office else { unreachable!() };
        for _ in 0..8 {
            queue.count(&office, 1.0, now);
        }
        assert!((queue.rank(owners, now) - 8.0).abs() < 0.5);
        assert!((queue.rank(owners, now + HALF_LIFE) - 4.0).abs() < 0.5);
        for _ in 0..8 {
            queue.count(&office, RIGHT_TRY - 1.0, now);
        }
        assert!((queue.rank(owners, now) - 1.0).abs() < 0.5);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut queue, now) = (Queue::<u8>::default(), Instant::now());
        for number in 0..u32::try_from(MOST).unwrap() + 10 {
            queue.count(&from(&Ipv4Addr::from_bits(0x0a00_0000 + number).to_string(), "ada"), 1.0, now);
        }
        assert!(queue.heat.len() <= MOST);
        assert!(queue.held.is_empty());
    }

    #[tokio::test]
    async fn a_turn_goes_to_the_next_and_whoever_gives_up_waiting_loses_none() {
        let queue = LoginQueue::new(NonZeroUsize::MIN);
        let mut held = Vec::new();
        for number in 0..=AT_THE_STORES {
            held.push(queue.take(&from("192.0.2.1", &number.to_string())).await.unwrap());
        }
        // One that waited and left, and one that waits.
        let gone = from("192.0.2.2", "gone");
        assert!(timeout(Duration::ZERO, queue.take(&gone)).await.is_err());
        let claim = from("192.0.2.3", "ada");
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.take(&claim).await.unwrap() }
        });
        let ada = (Kind::Strangers, sha256(b"ada"));
        while !queue.state().queue.held.contains_key(&ada) {
            tokio::task::yield_now().await;
        }
        drop(held.pop());
        drop(waiting.await.unwrap());
        drop(held);
        let state = queue.state();
        assert_eq!((state.free, state.queue.strangers.len()), (1 + AT_THE_STORES, 0));
        assert!(state.queue.held.is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_no_longer_has_no_place() {
        let queue = LoginQueue::new(NonZeroUsize::MIN);
        let mut held = Vec::new();
        for number in 0..=AT_THE_STORES {
            held.push(queue.take(&from("192.0.2.1", &number.to_string())).await.unwrap());
        }
        for number in 0..PLACES {
            let gone = from(&format!("10.0.0.{number}"), &number.to_string());
            assert!(timeout(Duration::ZERO, queue.take(&gone)).await.is_err());
            assert!(timeout(Duration::ZERO, queue.take(&known("ada", 1))).await.is_err(), "it waits");
        }
        // One that has asked for more than any of them finds a place, and is alone in it.
        let often = from("192.0.2.2", "bob");
        for _ in 0..5 {
            assert!(timeout(Duration::ZERO, queue.take(&often)).await.is_err(), "it waits");
            let state = queue.state();
            assert_eq!((state.queue.strangers.len(), state.queue.known.len()), (1, 0));
        }
        drop(held);
        assert_eq!(queue.state().free, 1 + AT_THE_STORES);
    }

    #[tokio::test]
    async fn when_the_places_are_full_whoever_asks_more_is_told_at_once() {
        let queue = LoginQueue::new(NonZeroUsize::MIN);
        let mut held = Vec::new();
        for number in 0..=AT_THE_STORES {
            held.push(queue.take(&from("192.0.2.1", &number.to_string())).await.unwrap());
        }
        let office = |number: usize| from("192.0.2.9", &number.to_string());
        let waiting: Vec<_> = (0..SHARE_OF_NETWORK)
            .map(|number| {
                let (queue, claim) = (queue.clone(), office(number));
                tokio::spawn(async move { queue.take(&claim).await.is_ok() })
            })
            .collect();
        while queue.state().queue.strangers.len() < SHARE_OF_NETWORK {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.take(&office(99)).await.err(), Some(Full));
        drop(held);
        for one in waiting {
            assert!(one.await.unwrap());
        }
    }

    #[test]
    fn of_too_many_networks_those_are_remembered_that_have_asked_most() {
        let (mut queue, now) = (Queue::<u8>::default(), Instant::now());
        let hot = from("2001:db8:ffff::1", "ada");
        (0..9).for_each(|_| queue.count(&hot, 1.0, now));
        let mut sweeps = 0;
        for number in 0..u32::try_from(MOST).unwrap() {
            let before = queue.heat.len();
            let neighbour = from(&format!("2001:{:x}:{:x}::1", 0xdb9 + number % 2, number / 2), "ada");
            queue.count(&neighbour, 1.0, now);
            queue.count(&neighbour, 1.0, now);
            sweeps += usize::from(queue.heat.len() < before);
            assert!(queue.heat.len() <= MOST);
        }
        let Claim::Stranger(owners) = &hot else { unreachable!() };
        assert!(queue.rank(owners, now) >= 9.0);
        assert!((1..=6).contains(&sweeps), "each looks at all of them: {sweeps}");
    }
}

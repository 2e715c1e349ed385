//! The SIMs of the sample portal: an invented fleet, the same at every start, searched and changed in memory.
//!
//! Nothing is stored: a restart restores the initial state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::answer::Error;

/// The number of SIMs in the sample fleet.
pub(super) const FLEET: usize = 60;

/// Maximum length of a SIM's name in characters.
const LONGEST_NAME: usize = 80;

/// The locations and types of the sample devices.
const PLACES: [&str; 10] =
    ["Hamburg", "Lyon", "Porto", "Gdańsk", "Malmö", "Tartu", "Graz", "Ghent", "Brno", "Sligo"];
const MACHINES: [(&str, Plan); 6] = [
    ("Water meter", Plan::Meter),
    ("Vending machine", Plan::Tracker),
    ("Cold chain trailer", Plan::Tracker),
    ("Yard camera", Plan::Camera),
    ("Charging point", Plan::Meter),
    ("Lift alarm", Plan::Tracker),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// Delivered, never activated.
    Ready,
    Active,
    Suspended,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Plan {
    Meter,
    Tracker,
    Camera,
}

impl Plan {
    fn word(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Tracker => "tracker",
            Self::Camera => "camera",
        }
    }

    /// The monthly allowance in bytes.
    fn allowance(self) -> u64 {
        match self {
            Self::Meter => 50_000_000,
            Self::Tracker => 250_000_000,
            Self::Camera => 10_000_000_000,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Sim {
    /// The card's number: 19 digits, the last one a Luhn check digit.
    pub(super) iccid: String,
    pub(super) msisdn: String,
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) plan: Plan,
    /// This month's traffic in bytes.
    pub(super) used: u64,
    /// The plan's monthly allowance in bytes.
    pub(super) allowance: u64,
}

impl Sim {
    /// The country code 999 is not assigned, so no real card or telephone has these numbers.
    fn sample(index: usize) -> Self {
        let (machine, plan) = MACHINES[index % MACHINES.len()];
        let place = PLACES[(index / MACHINES.len()) % PLACES.len()];
        let status = match index % 15 {
            7 => Status::Suspended,
            13 => Status::Ready,
            _ => Status::Active,
        };
        let allowance = plan.allowance();
        let used = if status == Status::Ready { 0 } else { allowance / 1000 * (mix(index as u64) % 1040) };
        Self {
            iccid: with_check_digit(&format!("8999901{:011}", 40_000_000 + index * 137)),
            msisdn: format!("+99970{:07}", 2_400_000 + index * 7919),
            name: format!("{machine} {place}"),
            status,
            plan,
            used,
            allowance,
        }
    }

    /// Whether every word of `words` (lower case) occurs in this SIM.
    pub(super) fn matches(&self, words: &[String]) -> bool {
        let text = format!(
            "{} {} {} {} {}",
            self.name.to_lowercase(),
            self.iccid,
            self.msisdn,
            self.status.word(),
            self.plan.word()
        );
        words.iter().all(|word| text.contains(word.as_str()))
    }
}

/// A user's change of a SIM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SimChange {
    Rename(String),
    Activate,
    Suspend,
}

impl SimChange {
    /// Parses the form of the SIM's page.
    pub(super) fn from_form(action: &str, name: &str) -> Result<Self, Error> {
        match action {
            "rename" => {
                let name = name.trim();
                if name.is_empty() || name.chars().count() > LONGEST_NAME {
                    return Err(Error::Malformed("A name has 1 to 80 characters."));
                }
                Ok(Self::Rename(name.to_owned()))
            }
            "activate" => Ok(Self::Activate),
            "suspend" => Ok(Self::Suspend),
            _ => Err(Error::Malformed("The action is rename, activate or suspend.")),
        }
    }
}

/// The numbers on the overview page.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) total: usize,
    pub(super) active: usize,
    pub(super) suspended: usize,
    pub(super) ready: usize,
    /// Of all SIMs this month, in bytes.
    pub(super) used: u64,
}

/// All SIMs, in the order of the list.
#[derive(Debug)]
pub(super) struct Fleet(Mutex<Vec<Sim>>);

impl Fleet {
    pub(super) fn sample() -> Self {
        Self(Mutex::new((0..FLEET).map(Sim::sample).collect()))
    }

    /// The SIMs that contain every word of `query`; all of them if it is empty.
    pub(super) fn search(&self, query: &str) -> Vec<Sim> {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        self.lock().iter().filter(|sim| sim.matches(&words)).cloned().collect()
    }

    pub(super) fn find(&self, iccid: &str) -> Option<Sim> {
        self.lock().iter().find(|sim| sim.iccid == iccid).cloned()
    }

    /// Refuses to suspend a SIM that was never active; every other change may be repeated.
    pub(super) fn change(&self, iccid: &str, change: SimChange) -> Result<(), Error> {
        let mut sims = self.lock();
        let sim = sims.iter_mut().find(|sim| sim.iccid == iccid).ok_or(Error::NotFound)?;
        match change {
            SimChange::Rename(name) => sim.name = name,
            SimChange::Activate => sim.status = Status::Active,
            SimChange::Suspend if sim.status == Status::Ready => {
                return Err(Error::Conflict("Only a SIM that has been activated can be suspended."));
            }
            SimChange::Suspend => sim.status = Status::Suspended,
        }
        Ok(())
    }

    pub(super) fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for sim in self.lock().iter() {
            summary.total += 1;
            summary.used += sim.used;
            match sim.status {
                Status::Active => summary.active += 1,
                Status::Suspended => summary.suspended += 1,
                Status::Ready => summary.ready += 1,
            }
        }
        summary
    }

    /// Every change is a single assignment, so a panic leaves the list consistent.
    fn lock(&self) -> MutexGuard<'_, Vec<Sim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Scatters a small number over all of `u64` (the finaliser of SplitMix64): figures that look alive and repeat exactly.
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Appends the Luhn digit of ISO/IEC 7812-1, as on every SIM card.
fn with_check_digit(digits: &str) -> String {
    format!("{digits}{}", (10 - luhn_sum(digits, 1) % 10) % 10)
}

/// Sums the digits from the right; those at `doubled` (0 or 1, counted from the right in pairs) are doubled.
fn luhn_sum(digits: &str, doubled: usize) -> u32 {
    let digits = digits.bytes().rev().map(|digit| u32::from(digit - b'0'));
    digits
        .enumerate()
        .map(
            |(place, digit)| if (place + doubled) % 2 == 1 { digit * 2 / 10 + digit * 2 % 10 } else { digit },
        )
        .sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_fleet_is_the_same_at_every_start_and_its_numbers_are_valid_and_unique() {
        let (one, other) = (Fleet::sample().search(""), Fleet::sample().search(""));
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        assert_eq!(one.len(), FLEET);
        assert_eq!(one.iter().map(|sim| &sim.iccid).collect::<HashSet<_>>().len(), FLEET);
        assert_eq!(one.iter().map(|sim| &sim.msisdn).collect::<HashSet<_>>().len(), FLEET);
        for sim in &one {
            assert_eq!(sim.iccid.len(), 19, "{sim:?}");
            assert_eq!(luhn_sum(&sim.iccid, 0) % 10, 0, "{sim:?}");
        }
    }

    #[test]
    fn the_check_digit_is_that_of_the_standards_example() {
        assert_eq!(with_check_digit("7992739871"), "79927398713");
    }

    #[test]
    fn every_word_of_a_search_must_occur() {
        let fleet = Fleet::sample();
        let found = fleet.search("CAMERA malmö");
        assert!(!found.is_empty());
        assert!(found.iter().all(|sim| sim.name == "Yard camera Malmö"), "{found:?}");
        assert!(fleet.search("camera nowhere").is_empty());
        assert_eq!(fleet.search("  ").len(), FLEET);
    }

    #[test]
    fn a_sim_that_was_never_active_cannot_be_suspended() {
        let fleet = Fleet::sample();
        let iccid = fleet.search("ready")[0].iccid.clone();
        assert!(matches!(fleet.change(&iccid, SimChange::Suspend), Err(Error::Conflict(_))));
        fleet.change(&iccid, SimChange::Activate).unwrap();
        fleet.change(&iccid, SimChange::Suspend).unwrap();
        assert_eq!(fleet.find(&iccid).unwrap().status, Status::Suspended);
    }

    #[test]
    fn the_summary_counts_every_sim_once() {
        let Summary { total, active, suspended, ready, used } = Fleet::sample().summary();
        assert_eq!(total, FLEET);
        assert_eq!(active + suspended + ready, FLEET);
        assert!(suspended > 0 && ready > 0 && used > 0);
    }

    #[test]
    fn a_name_is_neither_blank_nor_endless() {
        assert_eq!(
            SimChange::from_form("rename", " Pump 1 ").unwrap(),
            SimChange::Rename("Pump 1".to_owned())
        );
        assert!(SimChange::from_form("rename", "   ").is_err());
        assert!(SimChange::from_form("rename", &"é".repeat(80)).is_ok());
        assert!(SimChange::from_form("rename", &"é".repeat(81)).is_err());
        assert!(SimChange::from_form("delete", "").is_err());
    }
}

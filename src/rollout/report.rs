//! How far everybody is: each user at one stage, and counts of them.

use std::collections::BTreeMap;

use super::{Config, Requirement};
use crate::{clock::Timestamp, users::User};

/// How far a user is. Each includes what comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    NotStarted,
    /// The first factor was right at least once.
    PasswordKnown,
    /// The QR code was shown.
    QrSeen,
    /// The first device was put off, and there is none yet.
    PutOff,
    DeviceSaved,
}

impl Stage {
    pub const ALL: [Self; 5] =
        [Self::NotStarted, Self::PasswordKnown, Self::QrSeen, Self::PutOff, Self::DeviceSaved];

    /// For machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::PasswordKnown => "password_known",
            Self::QrSeen => "qr_seen",
            Self::PutOff => "put_off",
            Self::DeviceSaved => "device_saved",
        }
    }

    fn of(user: &User, devices: u32) -> Self {
        if devices > 0 {
            Self::DeviceSaved
        } else if user.skips > 0 {
            Self::PutOff
        } else if user.qr_seen_at.is_some() {
            Self::QrSeen
        } else if user.first_login_at.is_some() {
            Self::PasswordKnown
        } else {
            Self::NotStarted
        }
    }
}

/// Where a user stands at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub stage: Stage,
    /// No further than the page that sets up a device.
    pub is_blocked: bool,
}

impl Standing {
    /// `None` for a user who is disabled, and counts nowhere.
    pub fn of(user: &User, devices: u32, rollout: &Config, now: Timestamp) -> Option<Self> {
        if user.disabled {
            return None;
        }
        let stage = Stage::of(user, devices);
        let is_blocked = stage != Stage::DeviceSaved && rollout.requirement(user, now) == Requirement::Demand;
        Some(Self { stage, is_blocked })
    }
}

/// How many users stand where. The stages together are all of them; who is blocked is at one of the stages as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageCounts {
    stages: BTreeMap<Stage, u64>,
    pub blocked: u64,
}

impl StageCounts {
    pub fn add(&mut self, standing: Standing) {
        *self.stages.entry(standing.stage).or_default() += 1;
        self.blocked += u64::from(standing.is_blocked);
    }

    pub fn at(&self, stage: Stage) -> u64 {
        self.stages.get(&stage).copied().unwrap_or(0)
    }

    pub fn users(&self) -> u64 {
        self.stages.values().sum()
    }
}

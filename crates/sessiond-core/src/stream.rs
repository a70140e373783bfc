//! What the folds of small streams share.

use crate::Time;
use crate::ids::{Head, OrganizationNumber};

/// What a fold needs from an event's envelope.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    pub number: i64,
    pub organization: OrganizationNumber,
    pub occurred_at: Time,
    pub head: Head,
}

/// Why a wish about a small thing was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemRefusal {
    #[error("there is no such thing, or no longer")]
    Gone,
}

/// Why the directory's rules said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryRefusal {
    #[error("another application of this organization has this name")]
    NameTaken,
    #[error("not found")]
    Archived,
}

//! The order of numbers, which is that in which sessions connected: how sessions are looked for by several lists side by side.

use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;

use crate::gate::{Order, Slice};

/// From where on sessions are looked for, and in which direction.
#[derive(Debug, Clone, Copy)]
pub struct ByNumber {
    pub descending: bool,
    pub after: Option<SessionNumber>,
}

impl ByNumber {
    /// Whether a number does not lie beyond another.
    pub fn is_within(self, number: SessionNumber, bound: SessionNumber) -> bool {
        if self.descending { number >= bound } else { number <= bound }
    }

    /// The nearest of the last numbers of lists that may go on: up to it nothing is missing.
    pub fn nearest(self, bounds: Vec<SessionNumber>) -> Option<SessionNumber> {
        if self.descending { bounds.into_iter().max() } else { bounds.into_iter().min() }
    }

    /// The furthest number of a list.
    pub fn furthest(self, list: &[SessionNumber]) -> Option<SessionNumber> {
        if self.descending { list.iter().min().copied() } else { list.iter().max().copied() }
    }

    /// After which number the search begins where none beyond `last` is wanted; going up, whoever reads stops there.
    pub fn after_up_to(self, last: SessionNumber) -> Option<SessionNumber> {
        let end = SessionNumber(last.0 + 1);
        if self.descending { Some(self.after.map_or(end, |after| after.min(end))) } else { self.after }
    }

    /// What is asked of memory, after a number. The numbers alone say what comes after: they are in the order of the times.
    pub fn slice(self, after: Option<SessionNumber>, limit: usize) -> Slice {
        let time = if self.descending { Time::MAX_UTC } else { Time::MIN_UTC };
        let after = after.map(|number| (time, number));
        Slice { order: Order::Connected, descending: self.descending, after, limit }
    }
}

//! The open sessions of each application in the orders that lists are sorted by, so that a page costs what it returns.
//!
//! By activity each stands where it stood when last looked at: a sign of life moves nobody, because it must cost nothing.
//! Whoever asks for that order has those looked at again that have been seen since.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use sessiond_core::Time;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};

/// What a session is ordered by, and its number.
pub type Place = (Time, SessionNumber);

/// Open sessions by application, in order.
#[derive(Default, PartialEq)]
pub struct Ordered {
    applications: HashMap<ApplicationNumber, Orders>,
}

#[derive(Default, PartialEq)]
struct Orders {
    by_activity: BTreeSet<Place>,
    by_expiry: BTreeSet<Place>,
}

/// An order that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Activity,
    Expiry,
}

impl Ordered {
    pub fn insert(&mut self, application: ApplicationNumber, by: By, place: Place) {
        self.applications.entry(application).or_default().of_mut(by).insert(place);
    }

    pub fn remove(&mut self, application: ApplicationNumber, by: By, place: Place) {
        if let Some(orders) = self.applications.get_mut(&application) {
            orders.of_mut(by).remove(&place);
        }
    }

    /// Moves a session, if it has moved.
    pub fn shift(&mut self, application: ApplicationNumber, by: By, from: Place, to: Place) {
        if from != to {
            self.remove(application, by, from);
            self.insert(application, by, to);
        }
    }

    /// How many there are in these applications.
    pub fn len(&self, applications: &[ApplicationNumber]) -> usize {
        let all = applications.iter().filter_map(|application| self.applications.get(application));
        all.map(|orders| orders.by_activity.len()).sum()
    }

    /// Those of these applications in order, from after a place on.
    pub fn walk<'a>(
        &'a self,
        applications: &[ApplicationNumber],
        by: By,
        descending: bool,
        after: Option<Place>,
    ) -> Box<dyn Iterator<Item = SessionNumber> + 'a> {
        let orders = applications.iter().filter_map(|application| self.applications.get(application));
        let sets = orders.map(|orders| orders.of(by));
        if descending {
            let bound = after.map_or(Unbounded, Excluded);
            let parts = sets.map(|set| set.range((Unbounded, bound)).rev().copied()).collect();
            Box::new(merged(parts).map(|(_, number)| number))
        } else {
            let bound = after.map_or(Unbounded, Excluded);
            let parts = sets.map(|set| set.range((bound, Unbounded)).copied().map(Reverse)).collect();
            Box::new(merged(parts).map(|Reverse((_, number))| number))
        }
    }
}

impl Orders {
    fn of(&self, by: By) -> &BTreeSet<Place> {
        match by {
            By::Activity => &self.by_activity,
            By::Expiry => &self.by_expiry,
        }
    }

    fn of_mut(&mut self, by: By) -> &mut BTreeSet<Place> {
        match by {
            By::Activity => &mut self.by_activity,
            By::Expiry => &mut self.by_expiry,
        }
    }
}

/// What several sequences have, the greatest first, where each of them begins with its greatest.
pub fn merged<Item: Ord>(mut parts: Vec<impl Iterator<Item = Item>>) -> impl Iterator<Item = Item> {
    let first =
        parts.iter_mut().enumerate().filter_map(|(index, part)| part.next().map(|item| (item, index)));
    let mut heads: BinaryHeap<(Item, usize)> = first.collect();
    std::iter::from_fn(move || {
        let (item, index) = heads.pop()?;
        heads.extend(parts[index].next().map(|next| (next, index)));
        Some(item)
    })
}

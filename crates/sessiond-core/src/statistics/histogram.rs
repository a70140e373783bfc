//! How long sessions lasted, as counts by buckets of integers: below 128 ms one bucket a millisecond, above 64 buckets between
//! a power of two and the next. No bucket is wider than a 64th of what is in it, so its middle is off by less than 0.8 %. Which
//! bucket a duration is in depends on nothing but the duration: histograms are merged by adding, and taken apart by subtracting.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The greatest relative error of a quantile.
pub const ACCURACY: f64 = 1.0 / 128.0;

/// Durations below this have a bucket each.
const EXACT: u64 = 128;
/// Buckets between a power of two and the next.
const PARTS: u64 = 64;
/// The power of two from which on buckets are wider than one.
const FIRST_POWER: u64 = 7;

/// Counts of durations in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "Vec<u64>", from = "Vec<u64>")]
pub struct Histogram(BTreeMap<u32, u64>);

/// The bucket of a duration in milliseconds.
pub fn bucket(milliseconds: u64) -> u32 {
    if milliseconds < EXACT {
        return milliseconds as u32;
    }
    let power = u64::from(milliseconds.ilog2());
    let part = (milliseconds >> (power - (FIRST_POWER - 1))) - PARTS;
    (EXACT + (power - FIRST_POWER) * PARTS + part) as u32
}

/// The middle of a bucket, in milliseconds.
pub fn middle(bucket: u32) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < EXACT {
        return bucket;
    }
    let (power, part) = ((bucket - EXACT) / PARTS + FIRST_POWER, (bucket - EXACT) % PARTS);
    let width = 1_u64 << (power - (FIRST_POWER - 1));
    (PARTS + part) * width + width / 2
}

impl Histogram {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, milliseconds: u64) {
        *self.0.entry(bucket(milliseconds)).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// Takes out what another one, which is part of this one, has.
    pub fn subtract(&mut self, part: &Self) {
        for (bucket, count) in &part.0 {
            let left = self.0.get(bucket).copied().unwrap_or(0).saturating_sub(*count);
            if left == 0 {
                self.0.remove(bucket);
            } else {
                self.0.insert(*bucket, left);
            }
        }
    }

    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The duration that so many percent last no longer than: the middle of its bucket; none where nothing was counted.
    pub fn quantile(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (bucket, count) in &self.0 {
            below += count;
            if below >= rank {
                return Some(middle(*bucket));
            }
        }
        None
    }
}

impl From<Histogram> for Vec<u64> {
    fn from(histogram: Histogram) -> Self {
        histogram.0.into_iter().flat_map(|(bucket, count)| [u64::from(bucket), count]).collect()
    }
}

impl From<Vec<u64>> for Histogram {
    fn from(flat: Vec<u64>) -> Self {
        Self(flat.as_chunks().0.iter().map(|[bucket, count]| (*bucket as u32, *count)).collect())
    }
}

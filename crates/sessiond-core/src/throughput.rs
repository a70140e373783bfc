//! How fast a session's bytes go out, from readings of a counter that whoever serves it reports now and then.
//!
//! The measured interval ends with the first reading a second or more after it began, and the next begins there. Readings
//! may come late, twice or in the wrong order: the newest few are kept beside what is settled, and what is shown is what
//! they come to in the order of their times. So the order in which readings arrive changes nothing, as long as none
//! comes after [`KEPT`] newer ones.

use serde::{Deserialize, Serialize};

use crate::Time;

/// Readings that are kept, because an older one may still come.
pub const KEPT: usize = 4;
/// The least interval that throughput is measured over; milliseconds.
pub const INTERVAL: i64 = 1_000;
/// What no session's counter gains in a second, in bits: a jump, of which no throughput is measured.
pub const LIMIT: u64 = 100_000_000_000;

/// A counter as it was read: bytes that went out, since it began to count, up to an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub at: i64,
    pub counter: u64,
}

/// What became of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Counted,
    /// There is a reading of this instant that says as much, or more: nothing changes.
    Repeated,
    /// Older than all that is kept: nothing changes.
    Late,
    /// The counter went back, so it began to count anew: what it says now has come on top.
    Restarted,
    /// The counter gained more than [`LIMIT`] allows: it counts in the total, and no throughput is measured of it.
    Jumped,
}

impl Reading {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Repeated => "repeated",
            Self::Late => "late",
            Self::Restarted => "restarted",
            Self::Jumped => "jumped",
        }
    }

    /// Whether it says anything new.
    pub fn counts(self) -> bool {
        !matches!(self, Self::Repeated | Self::Late)
    }
}

/// What readings have come to, in the order of their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// Of the newest reading; milliseconds since the epoch, as every time here.
    pub at: i64,
    /// What the counter said then.
    pub counter: u64,
    /// Bytes since the session connected.
    pub total: u64,
    /// Of the newest reading that found more bytes than the one before.
    pub sent_at: i64,
    /// Where the interval that is being measured began, and the total there.
    pub from: i64,
    pub from_total: u64,
    /// Bytes in the last measured interval.
    pub last: u64,
    /// Bits per second over it.
    pub avg: u64,
    /// The most that `avg` has been.
    pub max: u64,
}

impl Gauge {
    /// Of a session that has just connected: its counter is at nothing.
    fn new(connected_at: i64) -> Self {
        Self {
            at: connected_at,
            counter: 0,
            total: 0,
            sent_at: connected_at,
            from: connected_at,
            from_total: 0,
            last: 0,
            avg: 0,
            max: 0,
        }
    }

    /// Takes a reading that is newer than all before.
    fn push(&mut self, sample: Sample) -> Reading {
        let restarted = sample.counter < self.counter;
        let gained = if restarted { sample.counter } else { sample.counter - self.counter };
        let jumped = per_second(gained, sample.at - self.at) > LIMIT;
        self.total = self.total.saturating_add(gained).min(i64::MAX as u64);
        if gained > 0 {
            self.sent_at = sample.at;
        }
        (self.at, self.counter) = (sample.at, sample.counter);
        let elapsed = sample.at - self.from;
        if jumped {
            (self.from, self.from_total) = (sample.at, self.total);
        } else if elapsed >= INTERVAL {
            self.last = self.total - self.from_total;
            self.avg = per_second(self.last, elapsed);
            self.max = self.max.max(self.avg);
            (self.from, self.from_total) = (sample.at, self.total);
        }
        match (jumped, restarted) {
            (true, _) => Reading::Jumped,
            (_, true) => Reading::Restarted,
            _ => Reading::Counted,
        }
    }
}

/// Bits per second; `milliseconds` is greater than nothing.
fn per_second(bytes: u64, milliseconds: i64) -> u64 {
    let bits = u128::from(bytes) * 8_000 / u128::from(milliseconds.max(1).unsigned_abs());
    u64::try_from(bits).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

/// The fold of a session's readings. Recorded whole with each of them, and therefore as short as can still be read: a list
/// of numbers. First what is settled: `at`, `counter`, `total` less `counter`, `at` less `sent_at`, `at` less `from`, `total`
/// less `from_total`, `last`, `avg`, `max`; then of each newer reading its time and counter, each less those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<i64>", into = "Vec<i64>")]
pub struct Throughput {
    /// What older readings came to.
    settled: Gauge,
    /// The newest readings, at most [`KEPT`], in the order of their times; all newer than what is settled.
    recent: Vec<Sample>,
}

impl Throughput {
    pub fn new(connected_at: Time) -> Self {
        Self { settled: Gauge::new(connected_at.timestamp_millis()), recent: Vec::new() }
    }

    /// Takes a reading in, and says what became of it.
    pub fn take(&mut self, sample: Sample) -> Reading {
        if sample.at <= self.settled.at {
            let same = sample.at == self.settled.at && sample.counter <= self.settled.counter;
            return if same { Reading::Repeated } else { Reading::Late };
        }
        let place = self.recent.partition_point(|one| one.at < sample.at);
        match self.recent.get_mut(place).filter(|one| one.at == sample.at) {
            Some(one) if sample.counter <= one.counter => return Reading::Repeated,
            Some(one) => *one = sample,
            None => self.recent.insert(place, sample),
        }
        let mut gauge = self.settled;
        let mut reading = Reading::Counted;
        for one in &self.recent[..=place] {
            reading = gauge.push(*one);
        }
        while self.recent.len() > KEPT {
            self.settled.push(self.recent.remove(0));
        }
        reading
    }

    /// What all readings come to.
    pub fn gauge(&self) -> Gauge {
        let mut gauge = self.settled;
        for sample in &self.recent {
            gauge.push(*sample);
        }
        gauge
    }

    /// When how many bytes had gone out in all: what this fold knows of the past, oldest first.
    pub fn points(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        let mut gauge = self.settled;
        let recent = self.recent.iter().map(move |sample| {
            gauge.push(*sample);
            (gauge.at, gauge.total)
        });
        std::iter::once((self.settled.at, self.settled.total)).chain(recent)
    }
}

/// Numbers of what is settled.
const SETTLED: usize = 9;

impl From<Throughput> for Vec<i64> {
    fn from(throughput: Throughput) -> Self {
        let one = throughput.settled;
        // Differences go round where they do not fit, and so come out right again.
        let less = |left: u64, right: u64| left.wrapping_sub(right).cast_signed();
        let mut numbers = vec![
            one.at,
            one.counter.cast_signed(),
            less(one.total, one.counter),
            one.at.wrapping_sub(one.sent_at),
            one.at.wrapping_sub(one.from),
            less(one.total, one.from_total),
            one.last.cast_signed(),
            one.avg.cast_signed(),
            one.max.cast_signed(),
        ];
        let mut before = Sample { at: one.at, counter: one.counter };
        for sample in throughput.recent {
            numbers.push(sample.at.wrapping_sub(before.at));
            numbers.push(less(sample.counter, before.counter));
            before = sample;
        }
        numbers
    }
}

impl TryFrom<Vec<i64>> for Throughput {
    type Error = String;

    fn try_from(numbers: Vec<i64>) -> Result<Self, String> {
        let wrong = || format!("{} numbers are no throughput", numbers.len());
        let (settled, recent) = numbers.split_first_chunk::<SETTLED>().ok_or_else(wrong)?;
        if recent.len() % 2 != 0 || recent.len() > 2 * KEPT {
            return Err(wrong());
        }
        let [at, counter, rest, sent, from, unmeasured, last, avg, max] = *settled;
        let counter = counter.cast_unsigned();
        let total = counter.wrapping_add(rest.cast_unsigned());
        let settled = Gauge {
            at,
            counter,
            total,
            sent_at: at.wrapping_sub(sent),
            from: at.wrapping_sub(from),
            from_total: total.wrapping_sub(unmeasured.cast_unsigned()),
            last: last.cast_unsigned(),
            avg: avg.cast_unsigned(),
            max: max.cast_unsigned(),
        };
        let mut before = Sample { at, counter };
        let recent = recent.chunks_exact(2).map(|pair| {
            let at = before.at.wrapping_add(pair[0]);
            let counter = before.counter.wrapping_add(pair[1].cast_unsigned());
            before = Sample { at, counter };
            before
        });
        Ok(Self { settled, recent: recent.collect() })
    }
}

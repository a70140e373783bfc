//! Statistics: how many sessions connected and ended, were open at the same time, how long they lasted and what they did, by
//! quarters of an hour. Everything is counted when the log learnt of it (`recorded_at`, which never falls), so a quarter that is
//! over never changes. `docs/decisions/0063-statistics.md` says why.
//!
//! [`cell`] has what is counted of one group in one hour, [`histogram`] how long sessions lasted, [`window`] the steps of a
//! time zone, and [`series`] makes steps of cells.

pub mod cell;
pub mod histogram;
pub mod series;
pub mod window;

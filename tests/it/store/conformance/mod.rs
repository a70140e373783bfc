//! What any store has to keep, written against the seam alone. An implementation is a [`Place`]; [`CASES`] are run on a new
//! one each.

mod asking;
mod author;
mod beside;
mod journals;
mod writing;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use sessiond_store::check::{Fault, Report};
use sessiond_store::{Contents, Open, OpenJournals};

/// Where an implementation keeps one store; nothing is there at first.
pub trait Place {
    fn look(&self) -> LocalBoxFuture<'_, Contents>;
    fn open(&self) -> LocalBoxFuture<'_, Open>;
    fn open_journals(&self) -> LocalBoxFuture<'_, OpenJournals>;
    fn rebuild(&self) -> LocalBoxFuture<'_, Result<Report, Fault>>;
}

type Case = for<'place> fn(&'place dyn Place) -> LocalBoxFuture<'place, ()>;

pub const CASES: &[(&str, Case)] = &[
    ("a place is looked at without making anything", |place| writing::looking(place).boxed_local()),
    ("a commit is whole or not at all", |place| writing::whole(place).boxed_local()),
    ("what was committed is there after a crash", |place| writing::after_a_crash(place).boxed_local()),
    ("a position that is taken is found out", |place| writing::raced(place).boxed_local()),
    ("a start has the newest activity of open sessions", |place| writing::activity(place).boxed_local()),
    ("upkeep changes nothing, and all is well", |place| writing::upkeep(place).boxed_local()),
    ("the log is read in pages", |place| asking::log(place).boxed_local()),
    ("ended sessions come in pages in every order", |place| asking::ended(place).boxed_local()),
    ("filters find what fits", |place| asking::filters(place).boxed_local()),
    ("what is not there is none", |place| asking::absent(place).boxed_local()),
    ("what is let go leaves what the chains need", |place| asking::retention(place).boxed_local()),
    ("activity that a row stands at stays", |place| asking::activity_of_a_row(place).boxed_local()),
    ("secrets are kept and forgotten", |place| beside::secrets(place).boxed_local()),
    ("people are described and erased", |place| beside::people(place).boxed_local()),
    ("what is sealed is sealed anew", |place| beside::sealed_anew(place).boxed_local()),
    ("a request takes effect once", |place| beside::outcomes(place).boxed_local()),
    ("deliveries stand as they were written", |place| beside::deliveries(place).boxed_local()),
    ("journals go on where they were", |place| journals::going_on(place).boxed_local()),
    ("journals are read by position, time and mark", |place| journals::reading(place).boxed_local()),
    ("journals forget from the beginning", |place| journals::forgetting(place).boxed_local()),
];

/// Runs all cases, each on a new place.
pub async fn keep(fresh: impl Fn() -> Box<dyn Place>) {
    for (name, case) in CASES {
        // Shown where one fails.
        println!("{name}");
        case(fresh().as_ref()).await;
    }
}

//! Every operation there is, by what it is about.

mod beside;
mod directory;
mod recovery;
mod retention;
mod revocations;
mod sessions;

pub use beside::*;
pub use directory::*;
pub use recovery::*;
pub use retention::*;
pub use revocations::*;
pub use sessions::*;

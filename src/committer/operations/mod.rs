//! Every operation there is, by what it is about.

mod beside;
mod directory;
mod recovery;
mod revocations;
mod sessions;

pub use beside::*;
pub use directory::*;
pub use recovery::*;
pub use revocations::*;
pub use sessions::*;

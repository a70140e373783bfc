//! How much an organization may have of what is made on the way: of what nobody asked for by itself, because something else
//! needed it.

/// The most of each. Decided with the operation that makes one, so that no race makes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maxima {
    /// Applications that other systems named first, save archived ones.
    pub applications: u32,
    /// Media streams.
    pub streams: u32,
    /// People and clients who were met: they are never forgotten, only erased.
    pub principals: u32,
}

impl Default for Maxima {
    fn default() -> Self {
        Self { applications: 1_000, streams: 100_000, principals: 1_000_000 }
    }
}

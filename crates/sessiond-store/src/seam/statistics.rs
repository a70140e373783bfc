//! What was counted of the log.

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, SessionNumber};
use sessiond_core::statistics::cell::{Cell, Dimension, Group};

use crate::StoreError;

/// How far the log was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountedTo {
    pub position: Position,
    /// After this position nothing had been let go when it was counted.
    pub exact_after: Position,
}

/// What was counted of a group in an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCell {
    pub group: Group,
    /// Since 1970.
    pub hour: i64,
    pub cell: Cell,
}

/// What a client or a host is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub number: i64,
    pub organization: OrganizationNumber,
    pub dimension: Dimension,
    /// A host; or a client, as JSON: its name, and its version or null.
    pub text: String,
}

/// The most characters of a host, of a client's name or of its version: what is the same up to there is one group.
pub const LONGEST_LABEL: usize = 100;

/// The labels that a session is counted under; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labelled {
    pub session: SessionNumber,
    pub client: i64,
    pub host: i64,
}

/// What some events add to what was counted ([`SideWrite::Count`](crate::SideWrite::Count)). It is written where counting still stands
/// at `from`, and otherwise nothing of it is: somebody else was faster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    pub from: Position,
    pub to: CountedTo,
    /// Whole, in place of those that were there.
    pub cells: Vec<GroupCell>,
    pub labels: Vec<Label>,
    pub sessions: Vec<Labelled>,
}

/// From where the log is to be counted again ([`SideWrite::Recount`](crate::SideWrite::Recount)): what was counted of hours
/// from `hour` on goes, and of sessions after `session`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    pub hour: i64,
    pub session: SessionNumber,
    /// How far it is counted then; none: nothing is, and all of it goes.
    pub to: Option<CountedTo>,
}

/// A page of the cells of one dimension, in the order of hours and of values.
#[derive(Debug, Clone, Copy)]
pub struct CellPage {
    pub organization: OrganizationNumber,
    /// 0: all of the organization's.
    pub application: ApplicationNumber,
    pub dimension: Dimension,
    /// Only what comes after this hour and value.
    pub after: (i64, i64),
    /// And before this hour.
    pub before: i64,
    pub limit: u32,
}

/// What was counted of the log, and what is needed to count on.
#[async_trait]
pub trait Statistics: Send + Sync {
    /// How far that has come; none: nothing was counted yet.
    async fn counted_to(&self) -> Result<Option<CountedTo>, StoreError>;

    async fn cells(&self, page: &CellPage) -> Result<Vec<GroupCell>, StoreError>;

    /// The last cell of each of these groups up to an hour; without those that have none.
    async fn last_cells(&self, groups: &[Group], hour: i64) -> Result<Vec<GroupCell>, StoreError>;

    /// Labels by number, without those whose text is gone.
    async fn labels(&self, numbers: &[i64]) -> Result<Vec<Label>, StoreError>;

    /// Labels by what they are called.
    async fn labels_called(
        &self,
        organization: OrganizationNumber,
        dimension: Dimension,
        texts: &[String],
    ) -> Result<Vec<Label>, StoreError>;

    /// The greatest number of a label.
    async fn last_label(&self) -> Result<i64, StoreError>;

    /// The labels of these sessions; without those that have none.
    async fn labelled(&self, sessions: &[SessionNumber]) -> Result<Vec<Labelled>, StoreError>;

    /// The positions of events between two positions (the first not among them) before which some of their stream were let go.
    async fn cuts(&self, after: Position, up_to: Position) -> Result<Vec<Position>, StoreError>;

    /// The last position at which something was let go, or before which something of the same stream was.
    async fn last_let_go(&self) -> Result<Position, StoreError>;
}

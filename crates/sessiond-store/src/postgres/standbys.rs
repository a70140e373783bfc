//! Standbys, as the server sees them: whether whatever is answered is on a second machine by then.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::close;
use super::link::{SHORTLY, within};
use super::servers::Servers;
use crate::StoreError;
use crate::seam::Check;

/// Copies that are being made of the server are no standbys. How far behind somebody is can only be said where the log is
/// written, and anything but that there is one is not for everybody to see.
const ASK: &str = "select current_setting('synchronous_standby_names') <> '' as named, \
     pg_has_role('pg_read_all_stats', 'usage') as visible, \
     current_user::text as role, \
     count(pid) as standbys, \
     count(pid) filter (where sync_state in ('sync', 'quorum')) as synchronous, \
     max(pg_wal_lsn_diff(case when not pg_is_in_recovery() then pg_current_wal_lsn() end, replay_lsn))::bigint as behind \
     from pg_stat_replication where coalesce(state, '') <> 'backup'";

/// What the server says of its standbys.
pub(super) struct Standbys {
    /// Whether commits wait for any.
    named: bool,
    /// Whether more may be seen of them than how many there are.
    visible: bool,
    /// Who asks.
    role: String,
    standbys: i64,
    synchronous: i64,
    /// Bytes of the log that the slowest has yet to apply.
    behind: Option<i64>,
}

impl Standbys {
    pub(super) async fn ask(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let row = within(SHORTLY, sqlx::query(ASK).fetch_one(connection)).await?;
        Ok(Self {
            named: row.try_get("named")?,
            visible: row.try_get("visible")?,
            role: row.try_get("role")?,
            standbys: row.try_get("standbys")?,
            synchronous: row.try_get("synchronous")?,
            behind: row.try_get("behind")?,
        })
    }

    /// How they are. That there is none is no fault, but where commits would wait for one.
    pub(super) fn check(&self) -> Check {
        let value = match self.standbys {
            0 => "none".to_owned(),
            count if !self.visible => {
                format!("{count}; to see more, grant pg_read_all_stats to {}", self.role)
            }
            count => {
                let behind = self.behind.unwrap_or(0).max(0);
                format!("{count}, of them {} synchronous, at most {behind} bytes behind", self.synchronous)
            }
        };
        let there = if self.visible { self.synchronous } else { self.standbys };
        let fault = (self.named && there == 0).then(|| {
            "synchronous_standby_names is set, and no such standby is connected: nothing is committed until one is"
                .to_owned()
        });
        Check { name: "standbys", value, fault }
    }

    /// Why what is answered may be on one machine alone.
    fn lacking(&self) -> Option<String> {
        if !self.named {
            return Some(
                "the server has no synchronous standby: synchronous_standby_names is empty there".to_owned(),
            );
        }
        if !self.visible {
            return Some(format!(
                "whether a standby is synchronous is not for {0} to see: grant pg_read_all_stats to {0}",
                self.role
            ));
        }
        (self.synchronous == 0).then(|| {
            "the server has no synchronous standby: synchronous_standby_names is set there, and no such standby is connected"
                .to_owned()
        })
    }
}

/// Why what is answered may be on one machine alone; none where a standby has it by then.
pub(crate) async fn without_standby(url: &str) -> Result<Option<String>, StoreError> {
    let (_, mut connection) = Servers::of(url)?.primary().await?;
    let standbys = Standbys::ask(&mut connection).await?;
    close(connection).await;
    Ok(standbys.lacking())
}

//! What the live writer runs on.

use sqlx::Row;

use super::link::{Link, SHORTLY, within};
use super::standbys::Standbys;
use crate::StoreError;
use crate::seam::Check;

/// The first PostgreSQL that this is written for.
const OLDEST: i32 = 150_000;

const ASK: &str = "select current_setting('server_version') as version, \
     current_setting('server_version_num')::int as number, \
     current_setting('synchronous_commit') as synchronous_commit, \
     current_setting('fsync') as fsync, \
     current_setting('full_page_writes') as full_page_writes, \
     current_setting('server_encoding') as encoding, \
     pg_is_in_recovery() as standby, \
     current_setting('transaction_read_only') = 'on' as read_only";

/// Asks the live connection what it runs on.
pub(super) async fn checks(link: &mut Link) -> Result<Vec<Check>, StoreError> {
    let row = within(SHORTLY, sqlx::query(ASK).fetch_one(&mut link.connection)).await?;
    let version: String = row.try_get("version")?;
    let old = row.try_get::<i32, _>("number")? < OLDEST;
    let old = old.then(|| format!("PostgreSQL {version} is too old; 15 or newer is needed"));
    let synchronous: String = row.try_get("synchronous_commit")?;
    let lost = matches!(synchronous.as_str(), "off" | "local").then(|| {
        format!("synchronous_commit is {synchronous}: what was answered could be lost with the server")
    });
    let (fsync, whole): (String, String) = (row.try_get("fsync")?, row.try_get("full_page_writes")?);
    let unsafe_disk =
        (fsync != "on").then(|| "fsync is off: a power cut could destroy the database".to_owned());
    let torn = (whole != "on")
        .then(|| "full_page_writes is off: a power cut could leave pages half written".to_owned());
    let encoding: String = row.try_get("encoding")?;
    let other = (encoding != "UTF8").then(|| format!("the database's encoding is {encoding}, not UTF8"));
    let role = match (row.try_get("standby")?, row.try_get("read_only")?) {
        (true, _) => "standby",
        (false, true) => "read-only",
        (false, false) => "primary",
    };
    let reading = (role != "primary").then(|| format!("the server is {role}: nothing can be written"));
    let standbys = Standbys::ask(&mut link.connection).await?.check();
    Ok(vec![
        Check { name: "postgresql", value: format!("{version} ok"), fault: old },
        Check { name: "synchronous_commit", value: synchronous, fault: lost },
        Check { name: "fsync", value: fsync, fault: unsafe_disk },
        Check { name: "full_page_writes", value: whole, fault: torn },
        Check { name: "encoding", value: encoding, fault: other },
        Check { name: "role", value: role.to_owned(), fault: reading },
        standbys,
    ])
}

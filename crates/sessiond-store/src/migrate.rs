//! Bringing a database to this release's form.

use std::ops::Deref;

use sqlx::Acquire;
use sqlx::migrate::{Migrate, MigrateError, Migrator};

use crate::StoreError;

/// Applies the steps that are missing. A database that a newer release has brought further is refused.
pub(crate) async fn migrate<'connection, A>(migrations: &Migrator, connection: A) -> Result<(), StoreError>
where
    A: Acquire<'connection>,
    <A::Connection as Deref>::Target: Migrate,
{
    migrations.run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Failed(format!(
            "the database was written by a newer sessiond (it has migration {version}, which this one does not know); \
             start the newer one"
        )),
        MigrateError::ExecuteMigration(error, version) => match error.into() {
            StoreError::Failed(what) => StoreError::Failed(format!("migration {version}: {what}")),
            other => other,
        },
        MigrateError::Execute(error) => error.into(),
        error => StoreError::Failed(error.to_string()),
    })
}

/// Says that a database has the form of another release than this one, by the steps that were applied to it; none if it has
/// the form of this one.
pub(crate) fn of_another_release(migrations: &Migrator, there: &[i64]) -> Option<String> {
    let own: Vec<_> = migrations.iter().map(|migration| migration.version).collect();
    let last = |versions: &[i64]| versions.last().copied().unwrap_or(0);
    (own != there).then(|| {
        format!(
            "the database has migrations up to {}, and this sessiond goes by those up to {}: another release wrote it",
            last(there),
            last(&own)
        )
    })
}

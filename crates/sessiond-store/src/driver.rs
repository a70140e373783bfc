//! What a database's driver says went wrong, in the house's words.

use sqlx::postgres::PgDatabaseError;

use crate::check::Fault;
use crate::{StoreError, postgres, sqlite};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut = error
        {
            return Self::Away(error.to_string());
        }
        let of_postgres = error.as_database_error().and_then(|one| one.try_downcast_ref::<PgDatabaseError>());
        of_postgres.map_or_else(|| sqlite::meaning(&error), postgres::meaning)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

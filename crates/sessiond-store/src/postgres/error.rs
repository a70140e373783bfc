//! What PostgreSQL's codes mean to the house.

use sqlx::postgres::PgDatabaseError;

use crate::StoreError;

/// What an error of the server means, by its SQLSTATE: https://www.postgresql.org/docs/15/errcodes-appendix.html
pub(crate) fn meaning(error: &PgDatabaseError) -> StoreError {
    match error.code() {
        // disk_full
        "53100" => StoreError::Full,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => StoreError::Corrupt(error.to_string()),
        // read_only_sql_transaction: it is no primary any more; too_many_connections; admin_shutdown, crash_shutdown and
        // cannot_connect_now; connection exceptions
        "25006" | "53300" | "57P01" | "57P02" | "57P03" => StoreError::Away(error.to_string()),
        code if code.starts_with("08") => StoreError::Away(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

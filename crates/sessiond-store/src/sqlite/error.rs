//! What SQLite's codes mean to the house.

use crate::StoreError;
use crate::check::Fault;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // SQLite's extended result codes; the low byte is the class. https://sqlite.org/rescode.html
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<i32>().ok());
        match code.map(|code| code & 0xff) {
            Some(13) => Self::Full,
            // SQLITE_IOERR_SHMSIZE: no room for the WAL's index. Nothing is damaged.
            Some(10) if code == Some(4874) => Self::Full,
            // SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC.
            Some(10) if matches!(code, Some(1034 | 1290)) => Self::Broken(error.to_string()),
            Some(10 | 11 | 26) => Self::Corrupt(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

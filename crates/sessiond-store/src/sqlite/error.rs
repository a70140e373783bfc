//! What SQLite's codes mean to the house.

use crate::StoreError;

/// What an error of SQLite, or of the driver, means.
pub(crate) fn meaning(error: &sqlx::Error) -> StoreError {
    // SQLite's extended result codes; the low byte is the class. https://sqlite.org/rescode.html
    let code =
        error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    match code.map(|code| code & 0xff) {
        Some(13) => StoreError::Full,
        // SQLITE_IOERR_SHMSIZE: no room for the WAL's index. Nothing is damaged.
        Some(10) if code == Some(4874) => StoreError::Full,
        // SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC.
        Some(10) if matches!(code, Some(1034 | 1290)) => StoreError::Broken(error.to_string()),
        Some(10 | 11 | 26) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

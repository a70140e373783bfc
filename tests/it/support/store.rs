//! Which store the services of the tests keep their sessions in: SQLite, or PostgreSQL where the environment says
//! `TEST_STORE=postgres`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use futures_util::TryStreamExt;
use sqlx::Connection;

use super::daemon::database;
use super::postgres;

pub fn is_postgres() -> bool {
    match std::env::var("TEST_STORE").as_deref() {
        Err(_) | Ok("sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("TEST_STORE is {other:?}: sqlite or postgres is wanted"),
    }
}

/// Whether a test that is about SQLite's file has nothing to look at. Says that it was left out, and why.
pub fn has_no_file(about: &str) -> bool {
    let left_out = is_postgres();
    if left_out {
        println!("left out on PostgreSQL: {about}");
    }
    left_out
}

/// The URL of the database of a service whose directory this is.
pub fn url(directory: &Path) -> String {
    match is_postgres() {
        true => postgres::url_of(directory),
        false => format!("sqlite:{}", database(directory).display()),
    }
}

/// The flags by which a service finds its database and key. Beside a file it makes the key itself.
pub fn flags(directory: &Path) -> Vec<String> {
    let mut flags = vec!["--database".to_owned(), url(directory)];
    if is_postgres() {
        let key = directory.join("sessiond.db.key");
        if !key.exists() {
            make_key(&key);
        }
        flags.extend(["--secret-key-file".to_owned(), key.to_str().unwrap().to_owned()]);
    }
    flags
}

/// All that is stored of a service whose directory this is, by where it is: each file, and on PostgreSQL each table too, in
/// the form in which texts and bytes are as they are.
pub async fn stored(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut all: Vec<_> =
        files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect();
    if is_postgres() {
        let mut inside = sqlx::PgConnection::connect(&url(directory)).await.unwrap();
        let sql = "select tablename::text from pg_tables where schemaname = 'public'";
        let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut inside).await.unwrap();
        for table in tables {
            let sql = format!("copy {table} to stdout (format binary)");
            let rows = inside.copy_out_raw(&sql).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
            all.push((table, rows.concat()));
        }
    }
    assert!(all.len() > 1, "there is something to look into");
    all
}

/// Makes a key as the documentation says that it is made.
pub fn make_key(path: &Path) {
    let digits = format!("{:032x}{:032x}", uuid::Uuid::new_v4().as_u128(), uuid::Uuid::new_v4().as_u128());
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{digits}").unwrap();
}

//! A real PgBouncer before a PostgreSQL server, which ends with this or with its process, however that ends.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::postgres::user;

/// Runs it until standard input ends.
const UNTIL_WE_END: &str = r#"
trap '' HUP INT TERM
PATH=/usr/sbin:/usr/bin:/sbin:/bin
pgbouncer "$1/pgbouncer.ini" >"$1/log" 2>&1 </dev/null &
pooler=$!
cat >/dev/null
{ kill -KILL "$pooler"; wait "$pooler"; } 2>/dev/null
rm -rf "$1"
"#;

pub struct Pooler {
    /// The URL that goes through it.
    pub url: String,
    /// Its standard input is what the pooler ends with.
    process: Child,
}

impl Pooler {
    /// Puts one before the server of a URL, which hands out connections for a `session` or for a `transaction` each.
    pub async fn before(url: &str, mode: &str) -> Self {
        let directory = TempDir::with_prefix("pooler").unwrap().keep();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (start, rest) = url.split_once("127.0.0.1:").unwrap();
        let (server, rest) = rest.split_once('/').unwrap();
        let shown = directory.display();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {shown}/users\npool_mode = {mode}\ndefault_pool_size = 60\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        std::fs::write(directory.join("pgbouncer.ini"), settings).unwrap();
        std::fs::write(directory.join("users"), "\"tests\" \"\"\n").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", UNTIL_WE_END, "sh"]).arg(&directory).stdin(Stdio::piped());
        if rustix::process::geteuid().is_root() {
            let (user, group) = user();
            for file in ["", "pgbouncer.ini", "users"] {
                std::os::unix::fs::chown(directory.join(file), Some(user), Some(group)).unwrap();
            }
            command.uid(user).gid(group);
        }
        let pooler =
            Self { url: format!("{start}127.0.0.1:{port}/{rest}"), process: command.spawn().unwrap() };
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            match PgConnection::connect(&pooler.url).await {
                Ok(connection) => {
                    connection.close().await.unwrap();
                    return pooler;
                }
                Err(error) => {
                    let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
                    assert!(
                        Instant::now() < give_up,
                        "PgBouncer did not start (Debian: pgbouncer; make test installs it): {error}: {log}"
                    );
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}

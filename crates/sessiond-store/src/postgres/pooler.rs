//! Finds a pooler that hands out another connection for each transaction. Behind one nothing of what a store rests on holds:
//! limits that are set for a connection hold for somebody else's transactions, the lock of whoever has the store open belongs
//! to whoever comes next, a prepared statement is not there or is another, and no word of a commit is heard. So such a way to
//! a server is refused before anything is set on it.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

/// How often both connections are asked. One that gives a connection back gets it again, or whoever asks next does.
const TIMES: usize = 3;

/// Which process of which server answers. Text comes as text only where nothing is prepared, which is not done here yet.
const WHO: &str = "select pg_backend_pid()::text || ' since ' || pg_postmaster_start_time()::text";

pub(super) const WORDS: &str = "there is a pooler before it that hands out another connection for each transaction (PgBouncer: \
     pool_mode = transaction), and what sessiond sets, locks and listens to is a connection's: name the server itself in the \
     URL, or have the pooler keep a connection for as long as its client does (pool_mode = session)";

/// Whether connections that are made with these options share those of a server: this one, which is new, and another beside
/// it. Two that are open at the same time never are one process of the server, and none becomes another.
pub(super) async fn shares(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<bool, sqlx::Error> {
    let mut other = PgConnection::connect_with(options).await?;
    let (mut ours, mut others) = (who(connection).await?, who(&mut other).await?);
    for _ in 0..TIMES {
        let (again, others_again) = (who(connection).await?, who(&mut other).await?);
        if again == others_again || ours == others || again != ours || others_again != others {
            other.close().await.ok();
            return Ok(true);
        }
        (ours, others) = (again, others_again);
    }
    other.close().await.ok();
    Ok(false)
}

async fn who(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(WHO).fetch_one(connection).await?.try_get(0)
}

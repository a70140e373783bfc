//! Start-up: everything that lives in memory, as of one position of the log.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};

use super::read::principal;
use super::{
    Reader, WHOLE_SESSION, access_token, application, bytes32, item, organization, revocation,
    service_account, time, whole_session,
};
use crate::core::Time;
use crate::core::event::Event;
use crate::core::ids::{ApplicationNumber, Position, SessionNumber, StreamKind};
use crate::core::item::Item;
use crate::core::session::{Envelope, evolve};
use crate::store::StoreError;
use crate::store::row::{Entry, KeySecret, Loaded, ResourcePast, SessionToken};

/// Events read at a time when walking the log.
const PAGE: i64 = 2_000;

impl Reader {
    /// Everything that lives in memory. The log's tail beyond what is settled is folded over the sessions.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded {
            head: self.head().await?,
            settled: self.mark("settled").await?,
            organizations: self.all("select * from organization order by number", organization).await?,
            applications: self.all("select * from application order by number", application).await?,
            service_accounts: self
                .all("select * from service_account order by number", service_account)
                .await?,
            revocations: self
                .all("select * from revocation where ended_at is null order by number", revocation)
                .await?,
            items: self.all("select * from item order by kind, number", item).await?,
            access_tokens: self.all("select * from access_token", access_token).await?,
            principals: self.all("select * from principal", principal).await?,
            key_secrets: self.all("select * from api_key_secret", key_secret).await?,
            ..Loaded::default()
        };
        loaded.bars = self.bars(&loaded).await?;
        let last = self.event(loaded.head).await?;
        loaded.last_recorded_at = last.as_ref().map(|entry| entry.recorded.recorded_at);
        loaded.commit_hash = last.and_then(|entry| entry.commit_hash).unwrap_or_default();
        let number = |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool);
        loaded.last_session = SessionNumber(number("select coalesce(max(number), 0) from session").await?);
        let last = sqlx::query_scalar("select id from session where number = ?").bind(loaded.last_session.0);
        loaded.last_session_id = last.fetch_optional(&self.pool).await?.unwrap_or_default();
        loaded.last_revocation = number("select coalesce(max(number), 0) from revocation").await?;
        for row in sqlx::query("select application, count(*) as total from session group by application")
            .fetch_all(&self.pool)
            .await?
        {
            let total: i64 = row.try_get("total")?;
            let application = ApplicationNumber(row.try_get("application")?);
            loaded.session_totals.push((application, total.unsigned_abs()));
        }
        loaded.past = self.past().await?;
        self.load_sessions(&mut loaded).await?;
        self.fold_tail(&mut loaded).await?;
        Ok(loaded)
    }

    async fn past(&self) -> Result<Vec<ResourcePast>, StoreError> {
        let sql = "select application, resource, count(*) as sessions, sum(bytes_out) as bytes_out from session \
                   indexed by session_ended_by_resource where state = 0 and resource is not null \
                   group by application, resource";
        let read = |row: &SqliteRow| {
            Ok(ResourcePast {
                application: ApplicationNumber(row.try_get("application")?),
                resource: row.try_get("resource")?,
                sessions: super::count(row, "sessions")?,
                bytes_out: super::count(row, "bytes_out")?,
            })
        };
        sqlx::query(sql).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    async fn load_sessions(&self, loaded: &mut Loaded) -> Result<(), StoreError> {
        let sql = format!(
            "select {WHOLE_SESSION}, t.secret_hash as token_hash, t.issued_at as token_issued_at, \
             t.expires_at as token_ends_at, m.id_hash as mcp_hash from session s indexed by session_open \
             left join session_detail d using (number) left join session_activity a using (number) \
             left join session_token t on t.session = s.number left join mcp_session m on m.session = s.number \
             where s.state <> 0"
        );
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.pool).await? {
            let session = whole_session(&row)?;
            if row.try_get::<Option<&[u8]>, _>("token_hash")?.is_some() {
                let token = SessionToken {
                    secret_hash: bytes32(&row, "token_hash")?,
                    issued_at: Position(row.try_get("token_issued_at")?),
                    expires_at: time(row.try_get("token_ends_at")?),
                };
                loaded.session_tokens.push((session.session.number, token));
            }
            if row.try_get::<Option<&[u8]>, _>("mcp_hash")?.is_some() {
                loaded.mcp_hashes.push((session.session.number, bytes32(&row, "mcp_hash")?));
            }
            loaded.sessions.push(session);
        }
        Ok(())
    }

    async fn fold_tail(&self, loaded: &mut Loaded) -> Result<(), StoreError> {
        let mut index: HashMap<i64, usize> = HashMap::new();
        for (at, row) in loaded.sessions.iter().enumerate() {
            index.insert(row.session.number.0, at);
        }
        let mut after = loaded.settled;
        loop {
            let page = self.log(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.recorded.position;
            for entry in page.iter().filter(|entry| entry.recorded.stream.kind == StreamKind::Session) {
                let at = index.get(&entry.recorded.stream.number);
                let Some(row) = at.and_then(|at| loaded.sessions.get_mut(*at)) else { continue };
                if entry.recorded.version <= row.session.head.version {
                    continue;
                }
                loaded.unsettled.insert(row.session.number);
                if let Event::Session(event) = &entry.recorded.event {
                    let envelope = entry.envelope();
                    if let Some(session) = evolve(Some(row.session.clone()), event, &envelope) {
                        row.session = session;
                    }
                } else {
                    // Passed over, but the next event of the stream builds on it all the same.
                    row.session.head = entry.head();
                }
            }
        }
    }

    /// When the bars that are in force were recorded, looked up one by one: there are few.
    async fn bars(&self, loaded: &Loaded) -> Result<Vec<(Position, Time)>, StoreError> {
        let standing = loaded.items.iter().filter_map(|item| match item {
            Item::Principal(standing) => Some(standing.barred_before),
            _ => None,
        });
        let organizations = loaded.organizations.iter().map(|one| one.barred_before);
        let applications = loaded.applications.iter().map(|one| one.barred_before);
        let mut bars = Vec::new();
        for position in standing.chain(organizations).chain(applications).filter(|at| *at > Position(0)) {
            if let Some(entry) = self.event(position).await? {
                bars.push((position, entry.recorded.recorded_at));
            }
        }
        Ok(bars)
    }

    async fn all<Value>(
        &self,
        sql: &'static str,
        read: fn(&SqliteRow) -> Result<Value, StoreError>,
    ) -> Result<Vec<Value>, StoreError> {
        sqlx::query(sql).fetch_all(&self.pool).await?.iter().map(read).collect()
    }
}

impl Entry {
    /// What the fold of a session needs from the envelope.
    pub fn envelope(&self) -> Envelope {
        Envelope {
            number: SessionNumber(self.recorded.stream.number),
            organization: self.recorded.organization,
            application: self.recorded.application.unwrap_or_default(),
            actor: self.recorded.actor,
            occurred_at: self.recorded.occurred_at,
            head: self.head(),
        }
    }

    /// Where the stream stands after this event.
    pub fn head(&self) -> crate::core::ids::Head {
        crate::core::ids::Head {
            version: self.recorded.version,
            position: self.recorded.position,
            hash: self.hash,
        }
    }
}

fn key_secret(row: &SqliteRow) -> Result<KeySecret, StoreError> {
    Ok(KeySecret {
        id: row.try_get("id")?,
        hash: bytes32(row, "secret_hash")?,
        used_at: row.try_get::<Option<i64>, _>("last_used_at")?.map(time),
    })
}

//! What stands beside the log for webhooks, written: their secrets, how far each has been served, and deliveries.

use sessiond_core::delivery::Delivery;
use sessiond_core::ids::Position;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::insert::each;
use crate::StoreError;
use crate::row::SideWrite;
use crate::tables::newest;

// A webhook that has no secret any more is deleted: what comes of its last attempts is not kept.

const DELIVERIES: &str = "insert into webhook_delivery (webhook, position, stream, attempts, next_at, delivered_at, failed_at, \
     status, error, created_at, updated_at) \
     select new.* from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], \
     $7::bigint[], $8::bigint[], $9::text[], $10::bigint[], $11::bigint[]) \
     as new (webhook, position, stream, attempts, next_at, delivered_at, failed_at, status, error, created_at, \
     updated_at) \
     where exists (select from webhook_secret s where s.id = new.webhook) \
     on conflict (webhook, position) do update set attempts = excluded.attempts, next_at = excluded.next_at, \
     delivered_at = excluded.delivered_at, failed_at = excluded.failed_at, status = excluded.status, \
     error = excluded.error, updated_at = excluded.updated_at";

const PROGRESS: &str = "insert into webhook_progress (id, position) \
     select new.* from unnest($1::uuid[], $2::bigint[]) as new (id, position) \
     where exists (select from webhook_secret s where s.id = new.id) \
     on conflict (id) do update set position = excluded.position";

const FORGET_DELIVERIES: &str = "delete from webhook_delivery where (webhook, position) in (\
     select webhook, position from webhook_delivery \
     where next_at is null and updated_at < $1 and (failed_at is null or updated_at < $2) \
     order by updated_at limit 5000)";

const FORGET_DELIVERIES_OF: &str = "delete from webhook_delivery where (webhook, position) in (\
     select webhook, position from webhook_delivery where webhook = $1 limit 5000)";

pub(super) async fn write(connection: &mut PgConnection, side: &SideWrite) -> Result<(), StoreError> {
    let query = match side {
        SideWrite::WebhookSecret { id, sealed } => {
            sqlx::query("insert into webhook_secret (id, sealed) values ($1, $2)").bind(id).bind(sealed)
        }
        SideWrite::RotateWebhookSecret { id, sealed, before_until } => {
            let sql = "update webhook_secret set before = case when $1::bigint is not null then sealed end, \
                       before_until = $1, sealed = $2 where id = $3";
            sqlx::query(sql).bind(before_until.map(|until| until.timestamp_millis())).bind(sealed).bind(id)
        }
        SideWrite::ForgetWebhook(id) => {
            let sql = "delete from webhook_progress where id = $1";
            sqlx::query(sql).bind(id).execute(&mut *connection).await?;
            sqlx::query("delete from webhook_secret where id = $1").bind(id)
        }
        SideWrite::ForgetDeliveriesOf(id) => sqlx::query(FORGET_DELIVERIES_OF).bind(id),
        SideWrite::Deliveries { rows, progress } => return deliveries(connection, rows, progress).await,
        SideWrite::ForgetDeliveries { before, failed_before } => sqlx::query(FORGET_DELIVERIES)
            .bind(before.timestamp_millis())
            .bind(failed_before.timestamp_millis()),
        _ => return Ok(()),
    };
    query.execute(connection).await?;
    Ok(())
}

async fn deliveries(
    connection: &mut PgConnection,
    rows: &[Delivery],
    progress: &[(Uuid, Position)],
) -> Result<(), StoreError> {
    let rows = newest(rows, |row| (row.webhook, row.position));
    if !rows.is_empty() {
        sqlx::query(DELIVERIES)
            .bind(each(&rows, |row| row.webhook))
            .bind(each(&rows, |row| row.position.0))
            .bind(each(&rows, |row| row.stream.as_str()))
            .bind(each(&rows, |row| i64::from(row.attempts)))
            .bind(each(&rows, |row| row.next_at.map(|at| at.timestamp_millis())))
            .bind(each(&rows, |row| row.delivered_at.map(|at| at.timestamp_millis())))
            .bind(each(&rows, |row| row.failed_at.map(|at| at.timestamp_millis())))
            .bind(each(&rows, |row| row.status.map(i64::from)))
            .bind(each(&rows, |row| row.error.as_deref()))
            .bind(each(&rows, |row| row.created_at.timestamp_millis()))
            .bind(each(&rows, |row| row.updated_at.timestamp_millis()))
            .execute(&mut *connection)
            .await?;
    }
    let progress = newest(progress, |(id, _)| *id);
    if !progress.is_empty() {
        let ids: Vec<Uuid> = each(&progress, |(id, _)| *id);
        let positions = each(&progress, |(_, position)| position.0);
        sqlx::query(PROGRESS).bind(ids).bind(positions).execute(connection).await?;
    }
    Ok(())
}

//! What sessions of media streams were sent over time, open ones and ended ones, as far as the log still has their readings.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::event::Event;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::media_stream::MediaStream;
use sessiond_core::relation::{MayLook, Way};
use sessiond_core::session::Session;
use sessiond_core::session::event::SessionEvent;
use sessiond_store::{EndedOrder, EndedPage};

use super::media::{MediaSessions, whose};
use crate::error::Error;

/// How many events of a session, or ended sessions, are read at a time.
const PAGE: u32 = 500;
/// How many of the sessions of a stream that ended last are looked through for a name.
const NEWEST: usize = 5_000;
/// How many sessions are added up at most: the readings of each are read one by one.
const MOST_ADDED: usize = 1_000;

/// How much a session had been sent at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub at: Time,
    /// Since the session connected, up to `at`.
    pub total: u64,
}

impl MediaSessions {
    /// Finds the session of a stream that had a name last, among those that have ended, if the caller may know of it.
    pub async fn find_ended(
        &self,
        caller: &Caller,
        stream: &MediaStream,
        name: &str,
    ) -> Result<Option<MayLook>, Error> {
        let filter = Filter { resource: Some(stream.stream.clone()), ..media() };
        let (mut after, mut looked) = (None, 0);
        while looked < NEWEST {
            let page = self
                .context
                .store
                .ended(&ended(stream.application, &filter, EndedOrder::Connected, after))
                .await?;
            for row in &page {
                if row.detail.client_session_id.as_deref() == Some(name)
                    && let Ok(found) = MayLook::judge(caller, Way::Media, row.session.clone())
                {
                    return Ok(Some(found));
                }
            }
            looked += page.len();
            after = page.last().map(|row| (row.session.connected_at, row.session.number));
            if page.len() < PAGE as usize {
                break;
            }
        }
        Ok(None)
    }

    /// Finds all sessions of streams that were there at some time after an instant and that the caller may know of.
    pub async fn there_since(
        &self,
        caller: &Caller,
        streams: &[MediaStream],
        from: Time,
    ) -> Result<Vec<Session>, Error> {
        let now = self.context.clock.now();
        // Memory is read first: a session that ends in between is found twice, and not missed.
        let mut found: Vec<Session> = {
            let known = self.context.gate.known_at(now);
            let open = streams.iter().flat_map(|stream| known.sessions_of(stream, whose(caller), now));
            open.take(MOST_ADDED + 1).cloned().collect()
        };
        too_many(found.len())?;
        let mut seen: HashSet<_> = found.iter().map(|session| session.number).collect();
        let wanted: HashSet<_> = streams.iter().map(|one| (one.application, one.stream.as_str())).collect();
        let applications: BTreeSet<_> = streams.iter().map(|one| one.application).collect();
        for application in applications {
            let mut after = None;
            loop {
                let filter = media();
                let page = self
                    .context
                    .store
                    .ended(&ended(application, &filter, EndedOrder::LastActive, after))
                    .await?;
                after = page.last().map(|row| (row.session.last_active_at, row.session.number));
                let more = page.len() == PAGE as usize && after.is_some_and(|(at, _)| at >= from);
                let own = page.into_iter().map(|row| row.session).filter(|session| {
                    let resource = session.resource.as_deref().unwrap_or_default();
                    session.last_active_at >= from
                        && wanted.contains(&(application, resource))
                        && seen.insert(session.number)
                });
                found.extend(own.filter(|one| MayLook::judge(caller, Way::Media, one.clone()).is_ok()));
                too_many(found.len())?;
                if !more {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Returns how many bytes had been sent when, as far as the log still tells, from the last instant at or before `from` to the
    /// first at or after `to`; oldest first. Bodies of old activity are pruned: what they said is not there any more.
    pub async fn bytes_sent(&self, session: &Session, from: Time, to: Time) -> Result<Vec<Point>, Error> {
        let mut points = BTreeMap::new();
        points.insert(session.connected_at.timestamp_millis(), 0);
        let (mut newest, from) = (session.head.position, from.timestamp_millis());
        while newest > Position(0) {
            let page = self.context.store.session_history(session.number, newest, true, PAGE).await?;
            let Some(oldest) = page.last() else { break };
            let before = oldest.entry.recorded.previous_position;
            let mut enough = false;
            for addressed in &page {
                let Event::Session(SessionEvent::ActivityRecorded(activity)) =
                    &addressed.entry.recorded.event
                else {
                    continue;
                };
                let Some(throughput) = &activity.throughput else { continue };
                // A newer event has the readings that came late for an older one.
                for (at, total) in throughput.points() {
                    points.entry(at).or_insert(total);
                }
                enough |= throughput.gauge().at < from;
            }
            if enough {
                break;
            }
            newest = before;
        }
        let first = points.range(..=from).next_back().map_or(i64::MIN, |(at, _)| *at);
        let to = to.timestamp_millis();
        let last = points.range(to..).next().map_or(i64::MAX, |(at, _)| *at);
        let within = points.range(first..=last);
        Ok(within
            .filter_map(|(at, total)| Some(Point { at: Time::from_timestamp_millis(*at)?, total: *total }))
            .collect())
    }
}

fn too_many(sessions: usize) -> Result<(), Error> {
    if sessions <= MOST_ADDED {
        return Ok(());
    }
    let message = format!(
        "There were more than {MOST_ADDED} sessions since then: ask for a shorter time, or for one stream"
    );
    Err(Error::field("from", message))
}

fn media() -> Filter {
    Filter { kind: Some(Kind::Media), ..Filter::default() }
}

/// A page of ended sessions, the last first.
fn ended(
    application: ApplicationNumber,
    filter: &Filter,
    order: EndedOrder,
    after: Option<(Time, SessionNumber)>,
) -> EndedPage<'_> {
    EndedPage { application, filter, order, descending: true, after, limit: PAGE as usize }
}

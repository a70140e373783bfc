//! Media streams by the names that people walk through, and their open sessions.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::application::Application;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, PrincipalNumber};
use sessiond_core::media_stream::MediaStream;
use sessiond_core::natural_key::NaturalKey;
use sessiond_core::session::Session;
use sessiond_core::status::{DerivedStatus, derived_status};

use super::{GateState, Open};

/// Numbers of media streams, by organization, virtual host, app and stream.
#[derive(Default, PartialEq)]
pub struct MediaStreams {
    streams: BTreeMap<OrganizationNumber, BTreeMap<[String; 3], i64>>,
}

impl MediaStreams {
    pub fn put(&mut self, stream: &MediaStream) {
        let names = [stream.vhost.clone(), stream.app.clone(), stream.stream.clone()];
        self.streams.entry(stream.organization).or_default().insert(names, stream.number);
    }
}

/// What is found at a place, or how far the way to it goes.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaLookup {
    Stream(MediaStream),
    NoVhost,
    NoApp,
    NoStream,
}

/// What sessions add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Live ones.
    pub sessions: u64,
    /// Of ended ones too.
    pub total: u64,
    pub last: u64,
    pub avg: u64,
    pub max: u64,
    pub created_at: Option<Time>,
    pub sent_at: Option<Time>,
    pub updated_at: Option<Time>,
}

impl GateState {
    /// Media streams of an organization whose names begin so, in order; those of archived applications are not there.
    pub fn media_streams<'a>(
        &'a self,
        organization: OrganizationNumber,
        begin: &'a [&str],
    ) -> impl Iterator<Item = &'a MediaStream> {
        let mut from = [const { String::new() }; 3];
        for (name, wanted) in from.iter_mut().zip(begin) {
            (*wanted).clone_into(name);
        }
        let own = self.media_streams.streams.get(&organization).into_iter();
        own.flat_map(move |own| own.range((Bound::Included(from.clone()), Bound::Unbounded)))
            .take_while(move |(names, _)| names.iter().zip(begin).all(|(name, wanted)| name == wanted))
            .filter_map(|(_, number)| self.stream::<MediaStream>(*number))
            .filter(|stream| self.is_live(stream.application))
    }

    /// The names one step below where names begin so, in order: virtual hosts, apps of one, streams of an app. Costs what
    /// it finds, not what is below that.
    pub fn names_below(&self, organization: OrganizationNumber, begin: &[&str]) -> Vec<String> {
        let Some(own) = self.media_streams.streams.get(&organization) else { return vec![] };
        let (mut names, depth) = (vec![], begin.len());
        let mut from = [const { String::new() }; 3];
        for (name, wanted) in from.iter_mut().zip(begin) {
            (*wanted).clone_into(name);
        }
        while let Some((found, number)) = own.range((Bound::Included(from.clone()), Bound::Unbounded)).next()
        {
            if depth >= found.len() || !found.iter().zip(begin).all(|(name, wanted)| name == wanted) {
                break;
            }
            from.clone_from(found);
            let live =
                self.stream::<MediaStream>(*number).is_some_and(|stream| self.is_live(stream.application));
            // One that is not live may have live ones beside it; past a live one comes the next name.
            let passed = if live { depth } else { found.len() - 1 };
            if live {
                names.push(found[depth].clone());
            }
            from[passed].push('\0');
            from[passed + 1..].iter_mut().for_each(String::clear);
        }
        names
    }

    /// The media stream of these names, also where its application was archived.
    pub fn declared(&self, organization: OrganizationNumber, names: [&str; 3]) -> Option<&MediaStream> {
        let own = self.media_streams.streams.get(&organization)?;
        own.get(&names.map(str::to_owned)).and_then(|number| self.stream::<MediaStream>(*number))
    }

    /// How many media streams an organization has declared, those of archived applications too.
    pub fn streams_in(&self, organization: OrganizationNumber) -> usize {
        self.media_streams.streams.get(&organization).map_or(0, BTreeMap::len)
    }

    fn is_live(&self, application: ApplicationNumber) -> bool {
        self.stream::<Application>(application).is_some_and(|one| one.archived_at.is_none())
    }

    /// The media stream of these names.
    pub fn placed(&self, organization: OrganizationNumber, names: [&str; 3]) -> MediaLookup {
        let [vhost, app, _] = names;
        let declared = self.declared(organization, names);
        match declared.filter(|stream| self.is_live(stream.application)) {
            Some(stream) => MediaLookup::Stream(stream.clone()),
            None if self.media_streams(organization, &[vhost, app]).next().is_some() => MediaLookup::NoStream,
            None if self.media_streams(organization, &[vhost]).next().is_some() => MediaLookup::NoApp,
            None => MediaLookup::NoVhost,
        }
    }

    /// The live sessions of a media stream, all or one person's.
    fn viewers<'a>(
        &'a self,
        stream: &'a MediaStream,
        whose: Option<PrincipalNumber>,
        now: Time,
    ) -> impl Iterator<Item = &'a Open> {
        let numbers = self.index.of_resource(stream.application, &stream.stream);
        let open = numbers.filter_map(|number| self.sessions.get(&number).map(Box::as_ref));
        open.filter(move |open| {
            let status = derived_status(&open.session, open.seen_at(), now);
            let theirs = whose.is_none_or(|person| person == open.session.principal);
            theirs && matches!(status, DerivedStatus::Active | DerivedStatus::Idle)
        })
    }

    /// A media stream's live sessions, all or one person's.
    pub fn sessions_of<'a>(
        &'a self,
        stream: &'a MediaStream,
        whose: Option<PrincipalNumber>,
        now: Time,
    ) -> impl Iterator<Item = &'a Session> {
        self.viewers(stream, whose, now).map(|open| &open.session)
    }

    /// The names of a media stream's live sessions, in the order in which they connected.
    pub fn names_at(&self, stream: &MediaStream, whose: Option<PrincipalNumber>, now: Time) -> Vec<Arc<str>> {
        self.viewers(stream, whose, now).filter_map(|open| open.terms.name.clone()).collect()
    }

    /// A live session of a media stream by its name.
    pub fn named(&self, stream: &MediaStream, name: &str, now: Time) -> Option<&Session> {
        let key = NaturalKey::Named { resource: &stream.stream, name };
        let session = self.holder(&key.digest(stream.application))?;
        (now < session.lifetime_ends_at).then_some(session)
    }

    /// What the sessions of media streams add up to. Of one person's only those that are live: what has ended is kept for
    /// a stream as a whole.
    pub fn sum<'a>(
        &self,
        streams: impl IntoIterator<Item = &'a MediaStream>,
        whose: Option<PrincipalNumber>,
        now: Time,
    ) -> Sum {
        let mut sum = Sum::default();
        for stream in streams {
            let resources = self.resource_totals.get(&stream.application);
            let ended = resources.and_then(|resources| resources.get(&stream.stream));
            let ended = ended.filter(|_| whose.is_none());
            sum.total = sum.total.saturating_add(ended.map_or(0, |ended| ended.bytes_out));
            sum.created_at =
                sum.created_at.map_or(Some(stream.declared_at), |at| Some(at.min(stream.declared_at)));
            for open in self.viewers(stream, whose, now) {
                sum.add(&open.session);
            }
        }
        sum
    }
}

impl Sum {
    fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.total = self.total.saturating_add(session.total.bytes_out);
        let Some(throughput) = &session.throughput else { return };
        let gauge = throughput.gauge();
        self.last = self.last.saturating_add(gauge.last);
        self.avg = self.avg.saturating_add(gauge.avg);
        self.max = self.max.saturating_add(gauge.max);
        self.sent_at = self.sent_at.max(Time::from_timestamp_millis(gauge.sent_at));
        self.updated_at = self.updated_at.max(Time::from_timestamp_millis(gauge.at));
    }
}

//! The rules, as given / when / then. For every event there is a later decision that depends on it: a fold compared
//! with itself would prove nothing.

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::application::{
    Application, ApplicationChanged, ApplicationCommand, ApplicationCreated, ApplicationEvent, OauthClient,
    UpstreamCredential, UpstreamHeaders, UpstreamSet,
};
use sessiond_core::command::{Command, Connect};
use sessiond_core::filter::{Facts, Filter};
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, SessionNumber,
};
use sessiond_core::kind::Kind;
use sessiond_core::natural_key::{NaturalKey, natural_key};
use sessiond_core::organization::{
    Organization, OrganizationCommand, OrganizationCreated, OrganizationEvent, OrganizationRestored,
};
use sessiond_core::personal::{Personal, personal_digest};
use sessiond_core::phase::{Outcome, Phase, Stage};
use sessiond_core::policy::Policy;
use sessiond_core::presented::Presented;
use sessiond_core::reason::Reason;
use sessiond_core::revocation::{
    Revocation, RevocationBegan, RevocationCommand, RevocationEnded, RevocationEvent,
};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::{
    ServiceAccount, ServiceAccountCommand, ServiceAccountCreated, ServiceAccountEvent,
};
use sessiond_core::session::ended::Ended;
use sessiond_core::session::event::{
    ActivityRecorded, ActivitySource, Connected, Counts, Disconnected, Expired, PhaseChanged, SessionEvent,
    TokenRenewed,
};
use sessiond_core::session::reading::decide_reading;
use sessiond_core::session::{
    Context, Envelope, Limit, Refusal, Session, decide, evolve, must_end_first, takes_effect_at,
};
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_core::stream::{Envelope as DirectoryEnvelope, SecretRotated, Stream, StreamRefusal};
use sessiond_core::throughput::Sample;
use uuid::Uuid;

const POLICY: Policy = Policy {
    idle_after: 300,
    stale_after: 900,
    mcp_stale_after: 3_600,
    mcp_unused_after: 600,
    token_lifetime: 3_600,
    absolute_lifetime: 86_400,
};
const OWNER: Uuid = Uuid::from_u128(0xa1);
const TOKEN: Uuid = Uuid::from_u128(0x70);

/// So many seconds into the story.
fn at(seconds: i64) -> Time {
    Time::from_timestamp_millis(1_700_000_000_000).unwrap() + TimeDelta::seconds(seconds)
}

fn milliseconds(count: i64) -> TimeDelta {
    TimeDelta::milliseconds(count)
}

/// What happened so far, and the world it happened in.
#[derive(Clone)]
struct Given {
    session: Option<Session>,
    head: Head,
    archived: bool,
    disabled: bool,
    barred: bool,
    full: Option<Limit>,
    valid_from: Position,
    revocation: Option<Revocation>,
}

/// Nothing happened yet.
fn nothing() -> Given {
    Given {
        session: None,
        head: Head { position: Position(100), ..Head::default() },
        archived: false,
        disabled: false,
        barred: false,
        full: None,
        valid_from: Position(0),
        revocation: None,
    }
}

/// Someone connected at 0, at position 101, with a credential that lasts until 1000.
fn connected() -> Given {
    connected_as(Kind::Agent)
}

fn connected_as(kind: Kind) -> Given {
    let connect = Connect { kind, ..connect() };
    let given = nothing();
    let events = given.when(Command::Connect(Box::new(connect)), at(0)).unwrap();
    given.and_all(events, at(0))
}

fn connect() -> Connect {
    Connect {
        id: Uuid::from_u128(1),
        kind: Kind::Agent,
        organization: OrganizationNumber(1),
        application: ApplicationNumber(1),
        principal: PrincipalNumber(1),
        anchor: None,
        client_session_id: Some("run-1".into()),
        token_identifier: None,
        protocol_version: None,
        resource: None,
        phase: None,
        node: None,
        lifetime: None,
        silent: false,
        exclusive: false,
        personal: Personal::default(),
        presented: presented(1000),
    }
}

/// The owner's access token, good until so many seconds into the story.
fn presented(until: i64) -> Presented {
    Presented {
        issued_at: Position(100),
        expires_at: at(until),
        access_token: Some(TOKEN),
        renews: true,
        by_owner: true,
    }
}

/// The session's own token.
fn own_token(until: i64) -> Presented {
    Presented { access_token: None, renews: false, ..presented(until) }
}

impl Given {
    fn and(mut self, event: SessionEvent, at: Time) -> Self {
        self.head.version += 1;
        self.head.position.0 += 1;
        let envelope = Envelope {
            number: SessionNumber(1),
            organization: OrganizationNumber(1),
            application: ApplicationNumber(1),
            actor: Actor { kind: ActorKind::ServiceAccount, id: OWNER },
            occurred_at: at,
            head: self.head,
        };
        self.session = evolve(self.session, &event, &envelope);
        self
    }

    fn and_all(self, events: Vec<SessionEvent>, at: Time) -> Self {
        events.into_iter().fold(self, |given, event| given.and(event, at))
    }

    fn ended(self, reason: Reason, at: Time) -> Self {
        self.and(SessionEvent::Disconnected(Disconnected::because(reason)), at)
    }

    fn revoked_by(mut self, revocation: Revocation) -> Self {
        self.revocation = Some(revocation)
            .filter(|it| self.session.as_ref().is_some_and(|s| it.covers(s, &Facts::default())));
        self
    }

    fn when(&self, command: Command, now: Time) -> Result<Vec<SessionEvent>, Refusal> {
        decide(&self.context(), self.session.as_ref(), &command, now)
    }

    fn measure(&self, sample: Sample, now: Time) -> Result<Vec<SessionEvent>, Refusal> {
        let presented = presented(100_000);
        decide_reading(&self.context(), self.session(), (sample, &presented), now).map(|(_, events)| events)
    }

    fn context(&self) -> Context<'_> {
        Context {
            credential_barred: false,
            application_archived: self.archived,
            principal_disabled: self.disabled,
            principal_barred: self.barred,
            full: self.full,
            preset: None,
            valid_from: self.valid_from,
            revocation: self.revocation.as_ref().map(Revocation::covered),
            policy: POLICY,
            personal: Some("the personal facts"),
        }
    }

    fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    fn status(&self, now: Time) -> DerivedStatus {
        derived_status(self.session(), None, now)
    }
}

fn activity(presented: Presented) -> Command {
    let counts = Counts { requests: 1, bytes_in: 2, bytes_out: 3 };
    Command::RecordActivity { source: ActivitySource::Report, counts, presented }
}

fn recorded(total: u64) -> SessionEvent {
    SessionEvent::ActivityRecorded(ActivityRecorded {
        source: ActivitySource::Report,
        counts: Counts { requests: 1, bytes_in: 2, bytes_out: 3 },
        total: Counts { requests: total, bytes_in: 2 * total, bytes_out: 3 * total },
        throughput: None,
    })
}

fn renewed(until: i64) -> SessionEvent {
    SessionEvent::TokenRenewed(TokenRenewed { token_expires_at: at(until), credential: Some(TOKEN) })
}

fn expired(until: i64) -> SessionEvent {
    SessionEvent::Expired(Expired { token_expires_at: at(until) })
}

fn disconnected(reason: Reason) -> SessionEvent {
    SessionEvent::Disconnected(Disconnected::because(reason))
}

fn stale(not_before: i64, seen_at: Option<i64>) -> Command {
    Command::EndStale { not_before: at(not_before), seen_at: seen_at.map(at) }
}

// ---- connected ----

#[test]
fn a_connect_opens_a_session_whose_token_lasts_as_long_as_the_credential() {
    let events = nothing().when(Command::Connect(Box::new(connect())), at(0)).unwrap();
    let [SessionEvent::Connected(event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(
        **event,
        Connected {
            id: Uuid::from_u128(1),
            kind: Kind::Agent,
            principal: PrincipalNumber(1),
            anchor: None,
            // What the client called it is personal, and stands beside the event.
            client_session_id: None,
            token_identifier: None,
            token_expires_at: at(1000),
            lifetime_ends_at: at(86_400),
            policy: POLICY.for_session(Kind::Agent, None),
            credential: Some(TOKEN),
            protocol_version: None,
            resource: None,
            phase: None,
            node: None,
            personal: personal_digest("the personal facts"),
        }
    );
}

#[test]
fn a_credential_that_outlives_the_absolute_lifetime_does_not_prolong_it() {
    let connect = Connect { presented: presented(200_000), ..connect() };
    let events = nothing().when(Command::Connect(Box::new(connect)), at(0)).unwrap();
    let given = nothing().and_all(events, at(0));
    assert_eq!(given.session().token_expires_at, at(86_400));
}

#[test]
fn a_second_connect_of_the_same_principal_attaches_and_renews() {
    let again = Command::Connect(Box::new(Connect { presented: presented(2000), ..connect() }));
    assert_eq!(connected().when(again, at(10)), Ok(vec![renewed(2000)]));
}

#[test]
fn attaching_with_a_credential_that_ends_sooner_shortens_nothing() {
    let again = Command::Connect(Box::new(Connect { presented: presented(500), ..connect() }));
    assert_eq!(connected().when(again, at(10)), Ok(vec![renewed(1000)]));
}

#[test]
fn attaching_never_passes_the_absolute_lifetime() {
    let again = Command::Connect(Box::new(Connect { presented: presented(200_000), ..connect() }));
    assert_eq!(connected().when(again, at(10)), Ok(vec![renewed(86_400)]));
}

#[test]
fn a_live_key_is_refused_to_another_principal() {
    let other = Command::Connect(Box::new(Connect { principal: PrincipalNumber(2), ..connect() }));
    assert_eq!(connected().when(other, at(10)), Err(Refusal::KeyTaken));
}

#[test]
fn the_key_of_an_ended_session_is_free_for_anybody() {
    let other = Command::Connect(Box::new(Connect { principal: PrincipalNumber(2), ..connect() }));
    let events = connected().ended(Reason::Client, at(5)).when(other, at(10)).unwrap();
    assert!(matches!(events.as_slice(), [SessionEvent::Connected(_)]));
}

#[test]
fn a_connect_is_refused_with_an_expired_credential_from_its_very_instant_on() {
    let connect = || Command::Connect(Box::new(connect()));
    assert!(nothing().when(connect(), at(1000) - milliseconds(1)).is_ok());
    assert_eq!(nothing().when(connect(), at(1000)), Err(Refusal::Expired));
}

const ADA: PrincipalNumber = PrincipalNumber(1);

#[test]
fn the_natural_key_is_the_anchor_else_the_client_session_id_and_else_the_token_identifier() {
    assert_eq!(natural_key(ADA, Some("z"), None, Some("a"), Some("b")), Some(NaturalKey::Anchor("z")));
    assert_eq!(
        natural_key(ADA, None, None, Some("a"), Some("b")),
        Some(NaturalKey::ClientSessionId(ADA, "a"))
    );
    assert_eq!(natural_key(ADA, None, None, None, Some("b")), Some(NaturalKey::TokenIdentifier(ADA, "b")));
    assert_eq!(natural_key(ADA, None, None, None, None), None);
    let named = |principal| natural_key(principal, None, None, Some("x"), None);
    assert_ne!(named(ADA), natural_key(ADA, None, None, None, Some("x")));
    assert_ne!(natural_key(ADA, Some("x"), None, None, None), named(ADA));
    assert_ne!(named(ADA), named(PrincipalNumber(2)), "what a client makes up is told apart by whose it is");
    let in_resource = |principal| natural_key(principal, None, Some("stream"), Some("x"), None);
    assert_eq!(
        in_resource(ADA),
        in_resource(PrincipalNumber(2)),
        "a name in a resource is the application's"
    );
}

#[test]
fn a_wish_about_a_session_that_never_connected_is_refused() {
    assert_eq!(nothing().when(activity(presented(1000)), at(0)), Err(Refusal::Unknown));
    assert_eq!(nothing().when(Command::Disconnect { reason: Reason::Client }, at(0)), Err(Refusal::Unknown));
}

#[test]
fn events_before_the_connect_fold_to_nothing() {
    let given = nothing().and(recorded(1), at(0)).ended(Reason::Client, at(1));
    assert_eq!(given.session, None);
}

#[test]
fn the_policy_of_the_connect_stays_with_the_session() {
    assert_eq!(connected_as(Kind::Mcp).session().policy.stale_after, POLICY.mcp_stale_after);
    assert_eq!(connected_as(Kind::Agent).session().policy.stale_after, POLICY.stale_after);
}

// ---- activity recorded ----

#[test]
fn activity_carries_the_running_totals() {
    let given = connected().and(recorded(1), at(10));
    assert_eq!(given.when(activity(own_token(1000)), at(20)), Ok(vec![recorded(2)]));
    let given = given.and(recorded(2), at(20));
    assert_eq!(given.when(activity(own_token(1000)), at(30)), Ok(vec![recorded(3)]));
}

#[test]
fn totals_stop_at_the_largest_count_and_never_wrap() {
    let full = Counts { requests: Counts::MAX, bytes_in: Counts::MAX - 1, bytes_out: 0 };
    let given = connected().and(
        SessionEvent::ActivityRecorded(ActivityRecorded {
            source: ActivitySource::Report,
            counts: full,
            total: full,
            throughput: None,
        }),
        at(10),
    );
    let events = given.when(activity(own_token(1000)), at(20)).unwrap();
    let [SessionEvent::ActivityRecorded(event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.total, Counts { requests: Counts::MAX, bytes_in: Counts::MAX, bytes_out: 3 });
}

#[test]
fn activity_puts_off_idleness_and_staleness() {
    let given = connected();
    assert_eq!(given.status(at(300)), DerivedStatus::Idle);
    assert_eq!(given.when(stale(0, None), at(900)), Ok(vec![disconnected(Reason::Stale)]));
    let given = given.and(recorded(1), at(200));
    assert_eq!(given.status(at(300)), DerivedStatus::Active);
    assert_eq!(given.when(stale(0, None), at(900)), Ok(vec![]));
    assert_eq!(given.when(stale(0, None), at(1100)), Ok(vec![disconnected(Reason::Stale)]));
}

#[test]
fn activity_that_took_effect_earlier_does_not_turn_back_the_last_sign_of_life() {
    let given = connected().and(recorded(1), at(200)).and(recorded(2), at(100));
    assert_eq!(given.session().last_active_at, at(200));
    assert_eq!(given.session().total.requests, 2);
}

#[test]
fn activity_needs_a_token_that_has_not_expired() {
    let given = connected();
    assert!(given.when(activity(own_token(5000)), at(1000) - milliseconds(1)).is_ok());
    assert_eq!(given.when(activity(own_token(5000)), at(1000)), Err(Refusal::Expired));
    assert_eq!(given.when(activity(own_token(500)), at(500)), Err(Refusal::Expired));
}

// ---- token renewed ----

#[test]
fn the_owners_longer_credential_renews_and_the_sessions_own_token_never_does() {
    let given = connected();
    assert_eq!(given.when(activity(presented(3000)), at(10)), Ok(vec![renewed(3000), recorded(1)]));
    assert_eq!(given.when(activity(own_token(3000)), at(10)), Ok(vec![recorded(1)]));
    let of_another = Presented { by_owner: false, ..presented(3000) };
    assert_eq!(given.when(activity(of_another), at(10)), Ok(vec![recorded(1)]));
}

#[test]
fn a_credential_that_ends_with_the_session_token_renews_nothing() {
    assert_eq!(connected().when(activity(presented(1000)), at(10)), Ok(vec![recorded(1)]));
    let renews = Ok(vec![renewed(1001), recorded(1)]);
    assert_eq!(connected().when(activity(presented(1001)), at(10)), renews);
}

#[test]
fn an_expired_session_lives_again_when_its_owner_calls_with_a_longer_credential() {
    let given = connected().and(expired(1000), at(1000));
    assert_eq!(given.when(activity(own_token(9000)), at(1500)), Err(Refusal::Expired));
    assert_eq!(given.when(activity(presented(3000)), at(1500)), Ok(vec![renewed(3000), recorded(1)]));
    let given = given.and(renewed(3000), at(1500));
    assert_eq!(given.when(activity(own_token(9000)), at(1500)), Ok(vec![recorded(1)]));
}

#[test]
fn renewing_lasts_a_token_lifetime_but_never_beyond_the_absolute_lifetime() {
    let renew = || Command::RenewToken { presented: presented(90_000) };
    assert_eq!(connected().when(renew(), at(100)), Ok(vec![renewed(3700)]));
    assert_eq!(connected().when(renew(), at(86_000)), Ok(vec![renewed(86_400)]));
    assert_eq!(connected().when(renew(), at(86_400)), Err(Refusal::Expired));
}

#[test]
fn a_token_may_be_renewed_after_it_was_announced_as_expired() {
    let given = connected().and(expired(1000), at(1000));
    let renew = Command::RenewToken { presented: presented(5000) };
    assert_eq!(given.when(renew, at(2000)), Ok(vec![renewed(5600)]));
}

#[test]
fn renewing_with_an_expired_credential_is_refused() {
    let renew = Command::RenewToken { presented: presented(500) };
    assert_eq!(connected().when(renew, at(500)), Err(Refusal::Expired));
}

#[test]
fn a_renewal_without_an_access_token_keeps_the_credential_on_record() {
    let own = SessionEvent::TokenRenewed(TokenRenewed { token_expires_at: at(2000), credential: None });
    assert_eq!(connected().and(own, at(10)).session().credential, Some(TOKEN));
    let other = Uuid::from_u128(0x71);
    let with =
        SessionEvent::TokenRenewed(TokenRenewed { token_expires_at: at(2000), credential: Some(other) });
    assert_eq!(connected().and(with, at(10)).session().credential, Some(other));
}

#[test]
fn a_renewal_is_a_sign_of_life() {
    let given = connected().and(renewed(5000), at(800));
    assert_eq!(given.when(stale(0, None), at(900)), Ok(vec![]));
    assert_eq!(given.when(stale(0, None), at(1700)), Ok(vec![disconnected(Reason::Stale)]));
}

// ---- expired ----

#[test]
fn expiry_is_announced_from_its_instant_on_and_not_before() {
    assert_eq!(connected().when(Command::Expire, at(1000) - milliseconds(1)), Ok(vec![]));
    assert_eq!(connected().when(Command::Expire, at(1000)), Ok(vec![expired(1000)]));
}

#[test]
fn expiry_is_announced_once_and_renewing_allows_the_next() {
    let given = connected().and(expired(1000), at(1000));
    assert_eq!(given.when(Command::Expire, at(5000)), Ok(vec![]));
    let given = given.and(renewed(3000), at(2000));
    assert_eq!(given.when(Command::Expire, at(2999)), Ok(vec![]));
    assert_eq!(given.when(Command::Expire, at(3000)), Ok(vec![expired(3000)]));
    let given = given.and(expired(3000), at(3000));
    assert_eq!(given.when(Command::Expire, at(4000)), Ok(vec![]));
}

#[test]
fn expiry_ends_nothing() {
    let given = connected().and(expired(1000), at(1000));
    assert_eq!(given.session().ended, None);
    let bye = Command::Disconnect { reason: Reason::Client };
    assert_eq!(given.when(bye, at(1500)), Ok(vec![disconnected(Reason::Client)]));
}

// ---- disconnected ----

#[test]
fn only_disconnected_is_terminal() {
    let given = connected().ended(Reason::Client, at(50));
    let ended = Refusal::Ended(Ended { at: at(50), reason: Reason::Client, outcome: None });
    assert_eq!(given.when(activity(presented(3000)), at(60)), Err(ended));
    assert_eq!(given.when(Command::RenewToken { presented: presented(3000) }, at(60)), Err(ended));
    for command in [
        Command::Expire,
        stale(0, None),
        Command::EndLifetime,
        Command::Disconnect { reason: Reason::Revoked },
    ] {
        assert_eq!(given.when(command, at(900_000)), Ok(vec![]), "nothing follows the end");
    }
}

#[test]
fn a_disconnect_says_why() {
    for reason in [Reason::Client, Reason::Terminated, Reason::Revoked, Reason::UpstreamLost] {
        let command = Command::Disconnect { reason };
        assert_eq!(connected().when(command, at(10)), Ok(vec![disconnected(reason)]));
    }
}

// ---- time ----

#[test]
fn status_has_a_precedence() {
    let given = connected();
    assert_eq!(given.status(at(0)), DerivedStatus::Active);
    assert_eq!(given.status(at(300)), DerivedStatus::Idle);
    assert_eq!(given.status(at(1000)), DerivedStatus::Expired, "though idle");
    let ended = given.and(expired(1000), at(1000)).ended(Reason::Client, at(2000));
    assert_eq!(ended.status(at(2000)), DerivedStatus::Disconnected, "though expired and idle");
    assert_eq!(ended.status(at(0)), DerivedStatus::Disconnected);
}

#[test]
fn status_changes_at_exact_instants() {
    let given = connected();
    assert_eq!(given.status(at(300) - milliseconds(1)), DerivedStatus::Active);
    assert_eq!(given.status(at(300)), DerivedStatus::Idle);
    assert_eq!(given.status(at(1000) - milliseconds(1)), DerivedStatus::Idle);
    assert_eq!(given.status(at(1000)), DerivedStatus::Expired);
}

#[test]
fn status_needs_no_announcement() {
    let silent = connected();
    let announced = connected().and(expired(1000), at(1000));
    assert_eq!(silent.status(at(1000)), announced.status(at(1000)));
    let renewed = announced.and(renewed(3000), at(1500));
    assert_eq!(renewed.status(at(1500)), DerivedStatus::Active);
}

#[test]
fn a_sign_of_life_that_is_not_in_the_log_yet_counts_for_status_and_staleness() {
    let given = connected();
    assert_eq!(derived_status(given.session(), Some(at(200)), at(300)), DerivedStatus::Active);
    assert_eq!(derived_status(given.session(), Some(at(200)), at(500)), DerivedStatus::Idle);
    assert_eq!(derived_status(given.session(), Some(at(200)), at(1000)), DerivedStatus::Expired);
    assert_eq!(given.when(stale(0, Some(200)), at(1100) - milliseconds(1)), Ok(vec![]));
    assert_eq!(given.when(stale(0, Some(200)), at(1100)), Ok(vec![disconnected(Reason::Stale)]));
}

#[test]
fn an_mcp_session_goes_stale_sooner_until_its_second_request() {
    let given = || connected_as(Kind::Mcp);
    let ends = |given: Given, seconds| {
        assert_eq!(given.when(stale(0, None), at(seconds) - milliseconds(1)), Ok(vec![]));
        assert_eq!(given.when(stale(0, None), at(seconds)), Ok(vec![disconnected(Reason::Stale)]));
    };
    ends(given(), 600);
    ends(given().and(recorded(1), at(10)), 610);
    ends(given().and(recorded(1), at(10)).and(recorded(2), at(20)), 3_620);
    assert_eq!(given().when(stale(0, Some(500)), at(600)), Ok(vec![]), "a sign of life puts it off");
    // Sessions from before there was this figure, and agents, which have heartbeats, have one timeout.
    let mut old = given();
    if let Some(session) = &mut old.session {
        session.policy.unused_after = None;
    }
    ends(old, 3_600);
    ends(connected(), 900);
}

#[test]
fn the_figure_for_unused_sessions_never_exceeds_the_one_for_all() {
    use sessiond_core::policy::{ApplicationPolicy, Preset};
    let unused = |choice: ApplicationPolicy, server: Policy| choice.over(server).mcp_unused_after;
    let patient = Policy { mcp_unused_after: 3_600, ..POLICY };
    let choice = ApplicationPolicy::default;
    assert_eq!(unused(choice(), POLICY), 600);
    assert_eq!(unused(ApplicationPolicy { mcp_unused_after: Some(60), ..choice() }, POLICY), 60);
    assert_eq!(unused(ApplicationPolicy { mcp_stale_after: Some(300), ..choice() }, POLICY), 300);
    assert_eq!(unused(ApplicationPolicy { preset: Some(Preset::Aal3), ..choice() }, patient), 900);
    assert_eq!(unused(ApplicationPolicy { preset: Some(Preset::Aal2), ..choice() }, POLICY), 600);
}

#[test]
fn our_own_downtime_or_a_clock_jump_ends_nobody() {
    let given = connected();
    // The process started, or the clock jumped, at 10 000: everyone has the whole timeout from there.
    assert_eq!(given.when(stale(10_000, None), at(10_899)), Ok(vec![]));
    assert_eq!(given.when(stale(10_000, Some(200)), at(10_899)), Ok(vec![]));
    assert_eq!(given.when(stale(10_000, None), at(10_900)), Ok(vec![disconnected(Reason::Stale)]));
    let later = given.and(recorded(1), at(10_500));
    assert_eq!(later.when(stale(10_000, None), at(10_900)), Ok(vec![]));
}

#[test]
fn the_absolute_lifetime_ends_a_session_at_its_instant_whatever_happened() {
    let given = connected().and(renewed(86_400), at(80_000)).and(recorded(1), at(86_399));
    assert_eq!(given.when(Command::EndLifetime, at(86_400) - milliseconds(1)), Ok(vec![]));
    let ends = Ok(vec![disconnected(Reason::Lifetime)]);
    assert_eq!(given.when(Command::EndLifetime, at(86_400)), ends);
}

#[test]
fn what_the_clock_decides_takes_effect_at_the_clocks_instant() {
    let given = connected();
    let revocation = began(Filter::default());
    let when = |event: &SessionEvent, revocation: Option<&Revocation>| {
        takes_effect_at(event, given.session.as_ref(), revocation.map(Revocation::covered), at(200_000))
    };
    assert_eq!(when(&expired(1000), None), at(1000));
    assert_eq!(when(&disconnected(Reason::Lifetime), None), at(86_400));
    assert_eq!(when(&disconnected(Reason::Lifetime), Some(&revocation)), at(86_400));
    assert_eq!(when(&disconnected(Reason::Revoked), Some(&revocation)), revocation.instant);
    assert_eq!(when(&disconnected(Reason::Client), None), at(200_000));
    assert_eq!(when(&recorded(1), Some(&revocation)), at(200_000));
    assert_eq!(when(&renewed(1), None), at(200_000));
}

// ---- work ----

/// A task that was queued at 0.
fn queued() -> Given {
    let connect = Connect { kind: Kind::Task, phase: Some(Phase::Queued), ..connect() };
    let given = nothing();
    let events = given.when(Command::Connect(Box::new(connect)), at(0)).unwrap();
    given.and_all(events, at(0))
}

fn comes_to(phase: Phase) -> Command {
    Command::ChangePhase { phase, presented: presented(1000) }
}

fn came_to(phase: Phase) -> SessionEvent {
    SessionEvent::PhaseChanged(PhaseChanged { phase })
}

fn finish(outcome: Outcome) -> Command {
    Command::Finish { outcome, message: Some("said".into()) }
}

#[test]
fn work_goes_forward_and_never_back() {
    let given = queued();
    assert_eq!(given.when(comes_to(Phase::Launching), at(1)), Ok(vec![came_to(Phase::Launching)]));
    assert_eq!(given.when(comes_to(Phase::Running), at(1)), Ok(vec![came_to(Phase::Running)]), "it may leap");
    assert_eq!(given.when(comes_to(Phase::Queued), at(1)), Ok(vec![]), "what is so already is success");
    let running = given.and(came_to(Phase::Running), at(1));
    for before in [Phase::Queued, Phase::Launching] {
        let passed = Err(Refusal::PhasePassed(Phase::Running, before));
        assert_eq!(running.when(comes_to(before), at(2)), passed);
    }
    assert_eq!(running.when(comes_to(Phase::Running), at(2)), Ok(vec![]));
}

#[test]
fn coming_further_is_a_sign_of_life() {
    let given = queued().and(came_to(Phase::Running), at(800));
    assert_eq!(given.when(stale(0, None), at(1_699)), Ok(vec![]));
    assert_eq!(given.when(stale(0, None), at(1_700)), Ok(vec![disconnected(Reason::Stale)]));
}

#[test]
fn work_that_has_ended_comes_no_further_and_keeps_its_first_end() {
    let ends = [disconnected(Reason::Terminated)].into_iter();
    let ends = ends.chain(Outcome::ALL.map(|one| queued().when(finish(one), at(1)).unwrap().remove(0)));
    for end in ends {
        let given = queued().and(end, at(1));
        let ended = given.session().ended.unwrap();
        assert_eq!(given.when(comes_to(Phase::Running), at(2)), Err(Refusal::Ended(ended)));
        assert_eq!(given.when(finish(Outcome::Finished), at(2)), Ok(vec![]));
        assert_eq!(given.when(Command::Disconnect { reason: Reason::Terminated }, at(2)), Ok(vec![]));
    }
}

#[test]
fn what_came_of_work_tells_its_stage_and_its_reason() {
    let stage = |end: SessionEvent| queued().and(end, at(1)).session().stage(at(2));
    for (outcome, reason, expected) in [
        (Outcome::Finished, Reason::Exited, Stage::Finished),
        (Outcome::Failed, Reason::Failed, Stage::Failed),
        (Outcome::Crashed, Reason::Failed, Stage::Crashed),
    ] {
        let end = queued().when(finish(outcome), at(1)).unwrap().remove(0);
        let said = Disconnected { reason, outcome: Some(outcome), message: Some("said".into()) };
        assert_eq!(end, SessionEvent::Disconnected(said));
        assert_eq!(stage(end), expected);
    }
    assert_eq!(stage(disconnected(Reason::Stale)), Stage::Terminated);
    assert_eq!(queued().session().stage(at(86_399)), Stage::Queued);
    assert_eq!(
        queued().session().stage(at(86_400)),
        Stage::Terminated,
        "its lifetime is over, recorded or not"
    );
    assert_eq!(connected().session().stage(at(1)), Stage::Running, "what has no phases runs");
}

#[test]
fn there_is_nothing_to_wait_for_where_work_ended_by_itself_or_long_enough_ago() {
    let ended = |outcome| Ended { at: at(10), reason: Reason::Terminated, outcome };
    assert!(ended(Some(Outcome::Failed)).known_by(at(0)));
    assert!(!ended(None).known_by(at(9)) && ended(None).known_by(at(10)));
}

#[test]
fn a_revocation_by_stage_covers_what_was_in_it_when_it_began() {
    let by = |stage: Stage| began(Filter { stage: vec![stage], ..Filter::default() });
    let covers =
        |revocation: &Revocation, given: &Given| revocation.covers(given.session(), &Facts::default());
    let waits = queued();
    assert!(covers(&by(Stage::Queued), &waits) && !covers(&by(Stage::Running), &waits));
    // It began at 400: what ran before is another matter, and what began to run since was not meant.
    let ran = waits.clone().and(came_to(Phase::Running), at(399));
    assert!(!covers(&by(Stage::Queued), &ran) && covers(&by(Stage::Running), &ran));
    let runs_now = waits.clone().and(came_to(Phase::Running), at(401));
    assert!(!covers(&by(Stage::Running), &runs_now));
    // And what it covers comes no further.
    let given = waits.revoked_by(by(Stage::Queued));
    assert_eq!(given.when(comes_to(Phase::Running), at(401)), Err(Refusal::Revoked(Reason::Revoked)));
}

// ---- revocations ----

/// A revocation that began at 400, at position 150.
fn began(filter: Filter) -> Revocation {
    began_at(filter, 150)
}

fn began_at(filter: Filter, fence: i64) -> Revocation {
    let began = RevocationEvent::Began(Box::new(RevocationBegan {
        id: Uuid::from_u128(9),
        filter,
        reason: Reason::Revoked,
        note: None,
        matched: None,
        schedule: None,
        credentials: None,
    }));
    let head = Head { version: 1, position: Position(fence), ..Head::default() };
    Revocation::evolve(None, &began, &revocation_envelope(400, head)).unwrap()
}

fn after(revocation: Revocation, event: &RevocationEvent) -> Revocation {
    let head = Head { version: 2, position: Position(160), ..Head::default() };
    Revocation::evolve(Some(revocation), event, &revocation_envelope(500, head)).unwrap()
}

fn revocation_envelope(seconds: i64, head: Head) -> DirectoryEnvelope {
    DirectoryEnvelope { number: 1, organization: OrganizationNumber(1), occurred_at: at(seconds), head }
}

#[test]
fn a_revocation_ends_once_with_the_number_of_those_it_disconnected() {
    let end = RevocationCommand::End { streams_closed: 3, nodes: None };
    let running = Revocation { disconnected_count: 7, ..began(Filter::default()) };
    let ended = RevocationEvent::Ended(RevocationEnded {
        disconnected_count: 7,
        streams_closed: Some(3),
        nodes: None,
    });
    assert_eq!(Revocation::decide(Some(&running), &end), Ok(Some(ended.clone())));
    assert_eq!(Revocation::decide(Some(&after(running, &ended)), &end), Err(StreamRefusal::Gone));
    assert_eq!(Revocation::decide(None, &end), Err(StreamRefusal::Gone));
}

#[test]
fn from_its_fence_on_a_revocation_refuses_activity_renewal_and_attaching() {
    let given = connected().revoked_by(began(Filter::default()));
    let revoked = Err(Refusal::Revoked(Reason::Revoked));
    assert_eq!(given.when(activity(presented(3000)), at(401)), revoked);
    assert_eq!(given.when(Command::RenewToken { presented: presented(3000) }, at(401)), revoked);
    let first = must_end_first(&given.context(), given.session(), at(401));
    assert!(matches!(first, Some(Command::Disconnect { reason: Reason::Revoked })), "{first:?}");
    let bye = Command::Disconnect { reason: Reason::Revoked };
    assert_eq!(given.when(bye, at(401)), Ok(vec![disconnected(Reason::Revoked)]));
}

#[test]
fn a_revocation_leaves_alone_what_connected_after_its_fence() {
    let session = connected();
    assert_eq!(session.session().connected_at_position, Position(101));
    assert!(began_at(Filter::default(), 102).covers(session.session(), &Facts::default()));
    assert!(!began_at(Filter::default(), 101).covers(session.session(), &Facts::default()));
    assert!(!began_at(Filter::default(), 100).covers(session.session(), &Facts::default()));
}

#[test]
fn a_revocation_covers_what_fits_every_part_of_its_filter() {
    let session = connected();
    let covers = |application: Option<i64>, number: Option<i64>| {
        let application = application.map(ApplicationNumber);
        began(Filter { application, session: number.map(SessionNumber), ..Filter::default() })
            .covers(session.session(), &Facts::default())
    };
    assert!(covers(None, None) && covers(Some(1), None) && covers(None, Some(1)) && covers(Some(1), Some(1)));
    assert!(!covers(Some(2), None) && !covers(None, Some(2)) && !covers(Some(2), Some(1)));
    let foreign = Revocation { organization: OrganizationNumber(2), ..began(Filter::default()) };
    assert!(!foreign.covers(session.session(), &Facts::default()));
}

#[test]
fn a_revocation_that_ended_refuses_nothing_any_more() {
    let ended =
        RevocationEvent::Ended(RevocationEnded { disconnected_count: 7, streams_closed: None, nodes: None });
    let revocation = after(began(Filter::default()), &ended);
    assert_eq!((revocation.disconnected_count, revocation.ended_at), (7, Some(at(500))));
    let given = connected().revoked_by(revocation);
    assert_eq!(given.when(activity(own_token(1000)), at(501)), Ok(vec![recorded(1)]));
}

#[test]
fn an_end_without_a_beginning_folds_to_nothing() {
    let ended =
        RevocationEvent::Ended(RevocationEnded { disconnected_count: 7, streams_closed: None, nodes: None });
    assert_eq!(Revocation::evolve(None, &ended, &revocation_envelope(0, Head::default())), None);
}

#[test]
fn past_its_lifetime_a_holder_ends_before_its_key_is_used_again() {
    let given = connected();
    assert!(must_end_first(&given.context(), given.session(), at(86_400) - milliseconds(1)).is_none());
    let first = must_end_first(&given.context(), given.session(), at(86_400));
    assert!(matches!(first, Some(Command::EndLifetime)), "{first:?}");
}

// ---- applications ----

/// An application as it stands after some events, the first at position 10 and at 0.
fn application(events: &[ApplicationEvent]) -> Application {
    let created = ApplicationEvent::Created(Box::new(ApplicationCreated {
        id: Uuid::from_u128(5),
        name: "Desk".into(),
        oauth: OauthClient {
            client_id: "desk".into(),
            r#type: "confidential".into(),
            redirect_uris: vec![],
            pkce_required: true,
            scopes: vec![],
            allowed_resources: vec![],
        },
        on_the_way: false,
    }));
    let mut application = None;
    for (index, event) in [&created].into_iter().chain(events).enumerate() {
        let index = index as i64;
        let head = Head { version: index + 1, position: Position(10 + index), ..Head::default() };
        let organization = OrganizationNumber(1);
        let envelope = DirectoryEnvelope { number: 3, organization, occurred_at: at(index), head };
        application = Application::evolve(application, event, &envelope);
    }
    application.unwrap()
}

fn change(name: &str, description: Option<&str>) -> ApplicationCommand {
    ApplicationCommand::Change(ApplicationChanged {
        name: Some(name.into()),
        description: description.map(str::to_owned),
    })
}

fn changed(name: Option<&str>, description: Option<&str>) -> ApplicationEvent {
    ApplicationEvent::Changed(ApplicationChanged {
        name: name.map(str::to_owned),
        description: description.map(str::to_owned),
    })
}

#[test]
fn changing_an_application_to_what_it_is_changes_nothing() {
    let decide = |events: &[ApplicationEvent], command: &ApplicationCommand| {
        Application::decide(Some(&application(events)), command)
    };
    assert_eq!(decide(&[], &change("Desk", None)), Ok(None));
    assert_eq!(decide(&[], &change("Lamp", None)), Ok(Some(changed(Some("Lamp"), None))));
    let renamed = [changed(Some("Lamp"), Some("light"))];
    assert_eq!(decide(&renamed, &change("Lamp", Some("light"))), Ok(None));
    assert_eq!(decide(&renamed, &change("Lamp", Some("dark"))), Ok(Some(changed(None, Some("dark")))));
    assert_eq!(decide(&renamed, &change("Desk", None)), Ok(Some(changed(Some("Desk"), None))));
}

#[test]
fn an_upstream_is_set_once_per_value() {
    let set = |url: &str| UpstreamSet { url: url.into(), ..UpstreamSet::default() };
    let one = [ApplicationEvent::UpstreamSet(set("http://one"))];
    let decide = |command: UpstreamSet| {
        Application::decide(Some(&application(&one)), &ApplicationCommand::SetUpstream(command))
    };
    assert_eq!(decide(set("http://one")), Ok(None));
    assert_eq!(decide(set("http://two")), Ok(Some(ApplicationEvent::UpstreamSet(set("http://two")))));
    // What may pass beside the usual is a part of it.
    let headers = Some(UpstreamHeaders { to_upstream: vec!["x-tenant".into()], ..Default::default() });
    let more = UpstreamSet { headers, ..set("http://one") };
    assert_eq!(decide(more.clone()), Ok(Some(ApplicationEvent::UpstreamSet(more))));
}

#[test]
fn an_upstreams_credential_is_set_again_because_its_secret_may_differ_and_leaving_it_out_takes_it_away() {
    let set = |credential: Option<&str>| UpstreamSet {
        url: "http://one".into(),
        credential: credential.map(|name| UpstreamCredential::Header { name: name.into() }),
        headers: None,
    };
    let with = [ApplicationEvent::UpstreamSet(set(Some("X-Api-Key")))];
    let without = [with[0].clone(), ApplicationEvent::UpstreamSet(set(None))];
    let decide = |before: &[ApplicationEvent], command: UpstreamSet| {
        Application::decide(Some(&application(before)), &ApplicationCommand::SetUpstream(command)).unwrap()
    };
    assert!(decide(&with, set(Some("X-Api-Key"))).is_some());
    assert_eq!(decide(&with, set(None)), Some(ApplicationEvent::UpstreamSet(set(None))));
    assert_eq!(decide(&without, set(None)), None);
}

#[test]
fn a_secret_may_be_rotated_again_and_again_and_every_rotation_shows() {
    let once = application(&[ApplicationEvent::SecretRotated(SecretRotated::default())]);
    assert_eq!(once.updated_at, at(1));
    let again = Application::decide(Some(&once), &ApplicationCommand::RotateSecret(SecretRotated::default()));
    assert_eq!(again, Ok(Some(ApplicationEvent::SecretRotated(SecretRotated::default()))));
}

#[test]
fn an_archived_application_takes_no_commands_and_no_connects() {
    let archived = application(&[ApplicationEvent::Archived]);
    assert_eq!(archived.archived_at, Some(at(1)));
    for command in [
        change("Lamp", None),
        ApplicationCommand::RotateSecret(SecretRotated::default()),
        ApplicationCommand::SetUpstream(UpstreamSet { url: "http://one".into(), ..UpstreamSet::default() }),
    ] {
        assert_eq!(Application::decide(Some(&archived), &command), Err(StreamRefusal::Gone));
    }
    let mut given = nothing();
    given.archived = true;
    let connect = Command::Connect(Box::new(connect()));
    assert_eq!(given.when(connect, at(0)), Err(Refusal::ApplicationArchived));
    let mut given = connected();
    given.archived = true;
    assert_eq!(given.when(activity(own_token(1000)), at(1)), Err(Refusal::ApplicationArchived));
    let bye = Command::Disconnect { reason: Reason::Archived };
    assert_eq!(given.when(bye, at(1)), Ok(vec![disconnected(Reason::Archived)]));
}

#[test]
fn barred_credentials_are_those_issued_before_the_bar() {
    let barred = application(&[ApplicationEvent::CredentialsBarred]);
    assert_eq!(barred.valid_from, Position(11));
    let issued = |position: i64| Presented { issued_at: Position(position), ..presented(1000) };
    let mut given = connected();
    given.valid_from = barred.valid_from;
    for (position, refused) in [(10, true), (11, false), (12, false)] {
        let presented = issued(position);
        let refusals = [
            given.when(activity(presented), at(1)).err(),
            given.when(Command::RenewToken { presented }, at(1)).err(),
            given.when(Command::Connect(Box::new(Connect { presented, ..connect() })), at(1)).err(),
        ];
        let expected = refused.then_some(Refusal::CredentialBarred);
        assert_eq!(refusals, [expected; 3], "issued at {position}");
    }
}

#[test]
fn barring_credentials_and_renaming_leave_each_other_alone() {
    let events = [ApplicationEvent::CredentialsBarred, changed(Some("Lamp"), None)];
    let application = application(&events);
    assert_eq!((application.valid_from, application.name.as_str()), (Position(11), "Lamp"));
    assert_eq!((application.created_at, application.updated_at), (at(0), at(2)));
}

#[test]
fn an_applications_later_events_fold_to_nothing_without_its_creation() {
    let envelope = DirectoryEnvelope {
        number: 3,
        organization: OrganizationNumber(1),
        occurred_at: at(0),
        head: Head::default(),
    };
    assert_eq!(Application::evolve(None, &ApplicationEvent::Archived, &envelope), None);
    assert_eq!(ServiceAccount::evolve(None, &ServiceAccountEvent::Archived, &envelope), None);
}

// ---- service accounts and organizations ----

fn account(events: &[ServiceAccountEvent]) -> ServiceAccount {
    let created = ServiceAccountEvent::Created(ServiceAccountCreated {
        id: Uuid::from_u128(6),
        name: "operations".into(),
        client_id: "operations".into(),
        scopes: "management:sessions:read from:tomorrow".into(),
        application: None,
    });
    let mut account = None;
    for (index, event) in [&created].into_iter().chain(events).enumerate() {
        let index = index as i64;
        let head = Head { version: index + 1, position: Position(10 + index), ..Head::default() };
        let organization = OrganizationNumber(1);
        let envelope = DirectoryEnvelope { number: 4, organization, occurred_at: at(index), head };
        account = ServiceAccount::evolve(account, event, &envelope);
    }
    account.unwrap()
}

#[test]
fn a_service_account_is_archived_once_and_rotated_only_before() {
    let rotate = ServiceAccountCommand::RotateSecret(SecretRotated::default());
    let archive = ServiceAccountCommand::Archive;
    let decide = |account: &ServiceAccount, command| ServiceAccount::decide(Some(account), command);
    assert_eq!(decide(&account(&[]), &archive), Ok(Some(ServiceAccountEvent::Archived)));
    let rotated = account(&[ServiceAccountEvent::SecretRotated(SecretRotated::default())]);
    assert_eq!(
        decide(&rotated, &rotate),
        Ok(Some(ServiceAccountEvent::SecretRotated(SecretRotated::default())))
    );
    assert_eq!(rotated.head.version, 2, "the next event builds on the rotation");
    let archived = account(&[ServiceAccountEvent::Archived]);
    assert_eq!(decide(&archived, &archive), Ok(None));
    assert_eq!(decide(&archived, &rotate), Err(StreamRefusal::Gone));
}

#[test]
fn a_service_account_may_do_what_its_known_scopes_say() {
    let scopes = account(&[]).scopes;
    assert!(scopes.has(Scope::SessionsRead));
    assert!(!scopes.has(Scope::ManagementAll) && !scopes.has(Scope::SessionsWrite));
}

#[test]
fn an_organization_is_what_it_was_created_as() {
    let created =
        OrganizationEvent::Created(OrganizationCreated { id: Uuid::from_u128(8), name: "Acme".into() });
    let head = Head { version: 1, position: Position(1), ..Head::default() };
    let envelope =
        DirectoryEnvelope { number: 1, organization: OrganizationNumber(1), occurred_at: at(3), head };
    let organization = Organization::evolve(None, &created, &envelope).unwrap();
    assert_eq!((organization.number, organization.name.as_str()), (OrganizationNumber(1), "Acme"));
    assert_eq!((organization.id, organization.created_at), (Uuid::from_u128(8), at(3)));
    assert_eq!(organization.head, head);
}

#[test]
fn a_restore_bars_what_was_issued_before_unless_it_keeps_that() {
    let created =
        OrganizationEvent::Created(OrganizationCreated { id: Uuid::from_u128(8), name: "Acme".into() });
    let envelope = |version: i64, position: i64| DirectoryEnvelope {
        number: 1,
        organization: OrganizationNumber(1),
        occurred_at: at(version),
        head: Head { version, position: Position(position), ..Head::default() },
    };
    let before = Organization::evolve(None, &created, &envelope(1, 1)).unwrap();
    let restored = |credentials_kept| {
        let command =
            OrganizationCommand::Restore(OrganizationRestored { taken_at: at(0), credentials_kept });
        let event = Organization::decide(Some(&before), &command).unwrap().unwrap();
        Organization::evolve(Some(before.clone()), &event, &envelope(2, 11)).unwrap()
    };
    let kept = restored(true);
    assert_eq!((kept.valid_from, kept.restored_at, kept.head.version), (Position(0), Position(0), 2));
    let barred = restored(false);
    assert_eq!((barred.valid_from, barred.restored_at), (Position(11), Position(11)));
    for (organization, refusal) in [(kept, None), (barred, Some(Refusal::CredentialBarred))] {
        let mut given = connected();
        given.valid_from = organization.valid_from;
        let presented = Presented { issued_at: Position(10), ..presented(1000) };
        assert_eq!(given.when(activity(presented), at(1)).err(), refusal);
    }
}

// ---- media ----

/// A viewer of a stream, of whom only the end will be reported.
fn viewer() -> Connect {
    Connect {
        kind: Kind::Media,
        resource: Some("stream".into()),
        lifetime: Some(TimeDelta::seconds(3_600)),
        silent: true,
        exclusive: true,
        ..connect()
    }
}

fn watching() -> Given {
    let events = nothing().when(Command::Connect(Box::new(viewer())), at(0)).unwrap();
    nothing().and_all(events, at(0))
}

fn reading(seconds: i64, counter: u64) -> Sample {
    Sample { at: at(seconds).timestamp_millis(), counter }
}

#[test]
fn an_exclusive_connect_is_refused_where_a_live_session_has_its_key_even_to_its_owner() {
    let given = watching();
    let again = Command::Connect(Box::new(viewer()));
    assert_eq!(given.when(again.clone(), at(1)), Err(Refusal::KeyTaken));
    let attach = Command::Connect(Box::new(Connect { exclusive: false, ..viewer() }));
    assert!(matches!(given.when(attach, at(1)).unwrap()[..], [SessionEvent::TokenRenewed(_)]));
    let given = given.ended(Reason::Client, at(2));
    assert!(matches!(given.when(again, at(3)).unwrap()[..], [SessionEvent::Connected(_)]));
}

#[test]
fn a_name_is_taken_within_its_resource_alone() {
    let key = |resource, name| natural_key(ADA, None, resource, Some(name), Some("connection"));
    assert_eq!(key(Some("a"), "one"), Some(NaturalKey::Named { resource: "a", name: "one" }));
    assert_ne!(key(Some("a"), "one"), key(Some("b"), "one"));
    assert_ne!(key(Some("a"), "one"), key(None, "one"));
}

#[test]
fn a_silent_session_never_goes_stale_and_ends_at_its_lifetime() {
    let given = watching();
    let stale = Command::EndStale { not_before: at(0), seen_at: None };
    assert_eq!(given.when(stale.clone(), at(3_599)), Ok(vec![]));
    assert_eq!(given.when(Command::EndLifetime, at(3_599)), Ok(vec![]));
    let ended = given.when(Command::EndLifetime, at(3_600)).unwrap();
    assert_eq!(ended, [SessionEvent::Disconnected(Disconnected::because(Reason::Lifetime))]);
    // One of which more is reported does; and no lifetime of its own makes it longer than the policy.
    let talkative = Connect { silent: false, lifetime: Some(TimeDelta::seconds(1_000_000_000)), ..viewer() };
    let events = nothing().when(Command::Connect(Box::new(talkative)), at(0)).unwrap();
    let given = nothing().and_all(events, at(0));
    assert_eq!(given.session().lifetime_ends_at, at(86_400));
    assert!(!given.when(stale, at(900)).unwrap().is_empty());
}

#[test]
fn a_viewer_has_no_token_that_could_expire() {
    let given = watching();
    assert_eq!(given.session().expiry(), None);
    assert_eq!(given.when(Command::Expire, at(3_599)), Ok(vec![]));
    assert_eq!(given.status(at(3_599)), DerivedStatus::Idle);
}

#[test]
fn what_a_reading_gains_depends_on_the_readings_before() {
    let measured = |given: &Given, sample: Sample, now: i64| match &given.measure(sample, at(now)).unwrap()[..]
    {
        [SessionEvent::ActivityRecorded(activity)] => {
            Some((activity.counts.bytes_out, activity.total.bytes_out))
        }
        [] => None,
        other => panic!("{other:?}"),
    };
    let given = watching();
    assert_eq!(measured(&given, reading(10, 1_000), 10), Some((1_000, 1_000)));
    let events = given.measure(reading(10, 1_000), at(10)).unwrap();
    let given = given.and_all(events, at(10));
    assert_eq!(measured(&given, reading(20, 1_500), 20), Some((500, 1_500)));
    assert_eq!(measured(&given, reading(5, 400), 20), Some((0, 1_000)), "it was on the way");
    assert_eq!(measured(&given, reading(20, 300), 20), Some((300, 1_300)), "the counter began anew");
    assert_eq!(measured(&given, reading(10, 900), 20), None, "repeated");
    assert_eq!(measured(&given, reading(-1, 900), 20), None, "late");
    // Other activity leaves what was measured as it is.
    let events = given.when(activity(presented(100_000)), at(11)).unwrap();
    let given = given.and_all(events, at(11));
    assert_eq!(measured(&given, reading(20, 1_500), 20), Some((500, 1_503)));
    let given = given.ended(Reason::Terminated, at(12));
    assert!(matches!(given.measure(reading(20, 1_500), at(20)), Err(Refusal::Ended(_))));
}

#[test]
fn a_reading_that_takes_the_place_of_another_can_take_bytes_away() {
    let mut given = watching();
    for (seconds, counter) in [(1, 100), (2, 0), (3, 150)] {
        let events = given.measure(reading(seconds, counter), at(3)).unwrap();
        given = given.and_all(events, at(3));
    }
    assert_eq!(given.session().total.bytes_out, 250);
    let events = given.measure(reading(2, 120), at(3)).unwrap();
    let given = given.and_all(events, at(3));
    let measured = given.session().throughput.as_ref().unwrap().gauge().total;
    assert_eq!((given.session().total.bytes_out, measured), (150, 150));
}

// ---- words ----

#[test]
fn every_reason_reads_back_from_its_word() {
    for word in [
        "client",
        "terminated",
        "revoked",
        "archived",
        "stale",
        "idle",
        "lifetime",
        "evicted",
        "superseded",
        "upstream_lost",
        "machine_lost",
        "exited",
        "failed",
    ] {
        assert_eq!(Reason::from_word(word).map(Reason::word), Some(word));
    }
    assert_eq!(Reason::from_word("bored"), None);
}

#[test]
fn scopes_are_a_set_with_an_order_for_people() {
    let (scopes, unknown) = Scopes::parse("mcp:invoke  management:all tea:make mcp:invoke");
    assert_eq!(unknown, ["tea:make"]);
    assert_eq!(scopes.to_string(), "management:all mcp:invoke");
    assert!(scopes.covers(Scopes::parse("mcp:invoke").0));
    assert!(!Scopes::parse("mcp:invoke").0.covers(scopes));
    assert!(Scopes::parse("").0.is_empty());
}

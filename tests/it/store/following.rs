//! A second Gate that is fed nothing but what commits say that they change, as another process would be.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sessiond::clock::Clock;
use sessiond::committer::{
    BeginRevocation, ChangeOrganization, ChangeStream, CreateOrganization, CreateWebhook, DeclareStream,
    EnsureApplication, Inform, IntroducePrincipal, IssueToken, Nothing, ReportActivity, WriteBeside,
};
use sessiond::gate::{Gate, Order, Slice};
use sessiond_core::Time;
use sessiond_core::actor::ActorKind;
use sessiond_core::admission_hook::{AdmissionHook, AdmissionHookCreated, AdmissionHookEvent};
use sessiond_core::api_key::{ApiKey, ApiKeyCreated, ApiKeyEvent};
use sessiond_core::bar::{Bar, BarEvent, Barred, KeepOut, Placer};
use sessiond_core::barring::BarOptions;
use sessiond_core::change::Change;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber};
use sessiond_core::machine::{CredentialType, Machine, MachineCreated, MachineEvent};
use sessiond_core::organization::{Issuer, IssuersSet, OrganizationCommand, OrganizationCreated};
use sessiond_core::reason::Reason;
use sessiond_core::schedule::{Missed, Schedule, ScheduleCreated, ScheduleEvent, When};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::ServiceAccountCreated;
use sessiond_core::stream::SecretRotated;
use sessiond_core::token::AccessToken;
use sessiond_core::webhook::WebhookCreated;
use sessiond_store::{At, Batch, Check, Commit, McpSession, Open, SideWrite, StoreError, Turn, Writer};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use super::base::{Base, ORGANIZATION, Running, application, beginning};
use super::history::{Came, Player, Work, other, work};

/// A writer that hands on what each commit changed, written down.
struct Told {
    writer: Box<dyn Writer>,
    commits: UnboundedSender<String>,
}

#[async_trait]
impl Writer for Told {
    async fn turn<'writer>(
        &'writer mut self,
        applied: Option<&At>,
    ) -> Result<Box<dyn Turn + 'writer>, StoreError> {
        let turn = self.writer.turn(applied).await?;
        Ok(Box::new(Telling { turn, commits: self.commits.clone() }))
    }

    async fn maintain(&mut self) -> Result<(), StoreError> {
        self.writer.maintain().await
    }

    async fn idle(&mut self) -> Result<bool, StoreError> {
        self.writer.idle().await
    }

    async fn health(&mut self) -> Result<Vec<Check>, StoreError> {
        self.writer.health().await
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.writer.close().await
    }
}

struct Telling<'writer> {
    turn: Box<dyn Turn + 'writer>,
    commits: UnboundedSender<String>,
}

#[async_trait]
impl Turn for Telling<'_> {
    fn missed(&mut self, after: i64) -> Vec<Commit> {
        self.turn.missed(after)
    }

    fn now(&self) -> Option<Time> {
        self.turn.now()
    }

    async fn commit(self: Box<Self>, batch: &Batch) -> Result<i64, StoreError> {
        let number = self.turn.commit(batch).await?;
        self.commits.send(serde_json::to_string(&batch.changes).unwrap()).ok();
        Ok(number)
    }
}

async fn start(base: &Base) -> (Running, UnboundedReceiver<String>) {
    let Open { writer, store, nodes } = base.open().await;
    let (commits, told) = unbounded_channel();
    let running = base
        .start_on(Open { writer: Box::new(Told { writer, commits }), store, nodes }, Clock::system())
        .await;
    (running, told)
}

/// Someone who does what [`Player`] leaves out.
#[derive(Default)]
struct Other {
    tokens: Vec<Uuid>,
    keys: Vec<Uuid>,
    made: u64,
}

impl Other {
    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what} {}", self.made)
    }

    fn one<'a>(&mut self, player: &mut Player, running: &'a Running) -> Work<'a> {
        let (number, organization) = (player.session(), ORGANIZATION);
        let id = Uuid::now_v7();
        match player.dice.roll(22) {
            0 => other(running, EnsureApplication { organization, created: application(&self.name("app")) }),
            1 => other(running, self.organization()),
            2 => {
                let types = vec!["connected".to_owned()];
                let url = "https://hooks.example/sessions".to_owned();
                let created = WebhookCreated { id, url, application: None, types, description: None };
                other(running, CreateWebhook { organization, created, sealed: vec![1] })
            }
            3 | 4 => {
                let app = format!("live {}", player.dice.roll(3));
                let names = ["cdn.example".to_owned(), app.clone(), "camera one".to_owned()];
                other(running, DeclareStream { organization, id, names, application: application(&app) })
            }
            5 => other(running, introduction(&self.name("person"))),
            6 | 7 => {
                self.tokens.push(id);
                other(running, IssueToken { token: token(id, running), as_of: running.head() })
            }
            8 => beside(running, SideWrite::RevokeAccessToken(self.token(player))),
            9 => beside(running, SideWrite::ForgetTokens(running.now())),
            10 => beside(
                running,
                SideWrite::McpSession(number, McpSession { id_hash: [5; 32], sealed: vec![] }),
            ),
            11 | 12 => {
                self.keys.push(id);
                other(running, key(id))
            }
            13 => {
                let key = self.keys.last().copied().unwrap_or(id);
                beside(running, SideWrite::ApiKeysUsed(vec![(key, running.now())]))
            }
            14 => beside(running, SideWrite::ErasePersonal(vec![number])),
            15 => {
                let activity = running.activity(number, 2).activity;
                other(running, ReportActivity(vec![(number, activity), (player.session(), activity)]))
            }
            16 => {
                let principal = Some(PrincipalNumber(1 + player.dice.roll(3).cast_signed()));
                let filter = Filter { principal, ..Filter::default() };
                let bar = BarOptions { matched: true, keys: player.dice.roll(2) == 0 };
                let until = running.now() + chrono::TimeDelta::milliseconds(5);
                let until = (player.dice.roll(2) == 0).then_some(until);
                let keep_out = (player.dice.roll(2) == 0).then_some(keep_out(until));
                let beginning = BeginRevocation { bar, keep_out, ..beginning(filter, Reason::Revoked) };
                work(running, beginning, |begun| Came::Revocation(Box::new(begun)))
            }
            17 => other(running, issuers(&self.name("issuer"))),
            18 => self.stream(player, running),
            19 => other(running, Inform(Change::Presented(number, self.token(player)))),
            20 => other(running, Inform(Change::SeenAlive(vec![(number, running.now())]))),
            _ => other(running, Nothing),
        }
    }

    fn token(&self, player: &mut Player) -> Uuid {
        let one = player.dice.roll(self.tokens.len().max(1) as u64) as usize;
        self.tokens.get(one).copied().unwrap_or_default()
    }

    fn organization(&mut self) -> CreateOrganization {
        let name = self.name("organization");
        CreateOrganization {
            organization: OrganizationCreated { id: Uuid::now_v7(), name: name.clone() },
            application: Some(application(&name)),
            application_secret_hash: None,
            account: ServiceAccountCreated {
                id: Uuid::now_v7(),
                name: name.clone(),
                client_id: format!("account of {name}"),
                scopes: "management:all".into(),
                application: None,
            },
            secret_hash: [1; 32],
        }
    }

    /// Something about a stream of the directory of which [`Player`] knows nothing.
    fn stream<'a>(&mut self, player: &mut Player, running: &'a Running) -> Work<'a> {
        let (organization, id) = (ORGANIZATION, Uuid::now_v7());
        let (number, side) = (None, vec![]);
        match player.dice.roll(6) {
            5 => {
                let number = Some(1);
                let command = BarEvent::Lifted;
                other(running, ChangeStream::<Bar> { organization, number, command, side })
            }
            0 => {
                let created = AdmissionHookCreated {
                    id,
                    name: self.name("hook"),
                    vhost: "cdn.example".into(),
                    lifetime: None,
                };
                let command = AdmissionHookEvent::Created(created);
                other(running, ChangeStream::<AdmissionHook> { organization, number, command, side })
            }
            1 => {
                let number = Some(1);
                other(
                    running,
                    ChangeStream::<AdmissionHook> {
                        organization,
                        number,
                        command: AdmissionHookEvent::Deleted,
                        side,
                    },
                )
            }
            2 => {
                let created = MachineCreated {
                    id,
                    name: self.name("machine"),
                    host: "10.0.0.1".into(),
                    port: 22,
                    user: "root".into(),
                    credential: CredentialType::Password,
                    host_key: None,
                };
                let command = MachineEvent::Created(created);
                other(running, ChangeStream::<Machine> { organization, number, command, side })
            }
            3 => {
                let key = self.keys.last().copied().unwrap_or_default();
                let number = running.gate.known().stream_by_id::<ApiKey>(key).map(|key| key.number);
                let command = ApiKeyEvent::SecretRotated(SecretRotated::default());
                let secret_hash = [u8::try_from(player.dice.roll(200)).unwrap(); 32];
                let side = vec![SideWrite::RotateApiKeySecret { id: key, secret_hash }];
                other(running, ChangeStream::<ApiKey> { organization, number, command, side })
            }
            _ => {
                let created = ScheduleCreated {
                    id,
                    name: self.name("schedule"),
                    filter: Filter::default(),
                    note: None,
                    when: When::At(running.now()),
                    missed: Missed::Skip,
                    bar: BarOptions::default(),
                    keep_out: (player.dice.roll(2) == 0).then(|| keep_out(Some(running.now()))),
                };
                let command = ScheduleEvent::Created(Box::new(created));
                other(running, ChangeStream::<Schedule> { organization, number, command, side })
            }
        }
    }
}

/// Bars that end at an instant, wanted by one with every right.
fn keep_out(until: Option<Time>) -> KeepOut {
    let scopes = Scope::ALL.into_iter().fold(Scopes::default(), Scopes::with);
    KeepOut { until, message: None, placer: Placer { scopes, ..Placer::default() } }
}

fn beside(running: &Running, side: SideWrite) -> Work<'_> {
    other(running, WriteBeside(side))
}

fn introduction(subject: &str) -> IntroducePrincipal {
    let mut subject_digest = [9; 32];
    subject_digest[..subject.len()].copy_from_slice(subject.as_bytes());
    IntroducePrincipal {
        organization: ORGANIZATION,
        issuer: "https://issuer.example".into(),
        subject: subject.into(),
        subject_digest,
        name: Some("Ann".into()),
        email: None,
    }
}

fn token(id: Uuid, running: &Running) -> AccessToken {
    AccessToken {
        id,
        secret_hash: [6; 32],
        organization: ORGANIZATION,
        client_kind: ActorKind::ServiceAccount,
        client: 1,
        scopes: Scopes::parse("mcp:invoke management:all").0,
        issued_at: Position(0),
        expires_at: running.now() + chrono::TimeDelta::minutes(20),
        barred: false,
        audience: None,
    }
}

fn key(id: Uuid) -> ChangeStream<ApiKey> {
    let created = ApiKeyCreated {
        id,
        name: "portal".into(),
        scopes: "session".into(),
        principal: Some(PrincipalNumber(1)),
        expires_at: None,
    };
    let (command, side) =
        (ApiKeyEvent::Created(created), SideWrite::ApiKeySecret { id, secret_hash: [3; 32] });
    ChangeStream { organization: ORGANIZATION, number: None, command, side: vec![side] }
}

fn issuers(name: &str) -> ChangeOrganization {
    let issuer = Issuer {
        issuer: format!("https://{}.example", name.replace(' ', "-")),
        audience: "sessiond".into(),
        algorithms: vec!["ES256".into()],
        jwks_uri: None,
        application: Some(ApplicationNumber(1)),
        scopes: vec!["mcp:invoke".into()],
    };
    let command = OrganizationCommand::SetIssuers(IssuersSet { issuers: vec![issuer] });
    ChangeOrganization { number: ORGANIZATION, command }
}

/// What a change is called, where a commit makes it. A new one has to be named here, and met below.
fn name(change: &Change) -> Option<&'static str> {
    Some(match change {
        Change::Stream(_) => "stream",
        Change::Session(..) => "session",
        Change::SessionToken(..) => "session token",
        Change::McpSession(..) => "mcp session",
        Change::ErasePersonal(_) => "erase personal",
        Change::AccessToken(_) => "access token",
        Change::BarAccessToken(_) => "bar access token",
        Change::RevokeAccessToken(_) => "revoke access token",
        Change::ForgetTokens(_) => "forget tokens",
        Change::CredentialsBarred(..) => "bar",
        Change::Principal(_) => "principal",
        Change::ApiKeySecret(..) => "api key secret",
        Change::ApiKeysUsed(_) => "api keys used",
        Change::SessionsLetGo(..) => "sessions let go",
        Change::Presented(..) => "presented",
        Change::SeenAlive(_) => "seen alive",
        Change::SessionTotal(..) | Change::ResourceTotals(..) => return None,
    })
}

const CHANGES: usize = 16;

/// What somebody would ask the Gate, with the answers.
fn answers(gate: &Gate, now: Time) -> Vec<String> {
    let mut answers = vec![];
    for organization in [ORGANIZATION, OrganizationNumber(2)] {
        let filters = [
            Filter::default(),
            Filter { hostname: Some("desk-17.example".into()), ..Filter::default() },
            Filter { principal: Some(PrincipalNumber(2)), ..Filter::default() },
            Filter { application: Some(ApplicationNumber(2)), ..Filter::default() },
        ];
        for filter in &filters {
            for order in [Order::Connected, Order::LastActive, Order::Expires] {
                let known = gate.known_in_order(order, now);
                let slice = Slice { order, descending: true, after: None, limit: 7 };
                answers.push(format!("{:?}", known.page(organization, filter, &slice, now)));
                answers.push(format!("{:?}", known.count(organization, filter, now)));
            }
        }
    }
    let known = gate.known();
    for principal in (1..4).map(PrincipalNumber) {
        answers.push(format!("{:?}", known.bar_on(Barred::Principal(principal), now)));
    }
    let open = known.page(
        ORGANIZATION,
        &Filter::default(),
        &Slice { order: Order::Connected, descending: false, after: None, limit: 1000 },
        now,
    );
    for (_, number) in open {
        let session = known.session(number).unwrap();
        let (token, hash) = (known.session_token(number), known.mcp_hash(number));
        let covering = known.covering(session).map(|revocation| revocation.number);
        let barred = known.valid_from(session.application, Some(session.principal));
        answers.push(format!(
            "{token:?} {hash:?} {covering:?} {barred:?} {}",
            known.session_number(session.id).is_some()
        ));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gate_that_is_fed_nothing_but_changes_is_the_same_after_random_histories() {
    let mut met = BTreeSet::new();
    for seed in 0..8 {
        let base = Base::new();
        let (running, mut told) = start(&base).await;
        running.found().await;
        let follower = Gate::default();
        let (mut player, mut beside) = (Player::new(seed), Other::default());
        for step in 0..40 {
            player.play(&running).await;
            for _ in 0..4 {
                let one = beside.one(&mut player, &running);
                player.take(one.await);
            }
            if step % 10 == 9 {
                let ended = running.now() - chrono::TimeDelta::minutes(player.dice.roll(60).cast_signed());
                super::retention::let_sessions_go(&running, ended, 3).await;
            }
            while let Ok(text) = told.try_recv() {
                let changes: Vec<Change> = serde_json::from_str(&text).unwrap();
                met.extend(changes.iter().filter_map(name));
                follower.apply(changes, running.now());
            }
            let now = running.now();
            assert_eq!(answers(&running.gate, now), answers(&follower, now), "seed {seed}, step {step}");
            let (one, another) = (running.gate.known(), follower.known());
            assert_eq!(one.differences(&another), [""; 0], "seed {seed}, step {step}");
        }
        running.stop().await;
    }
    assert_eq!(met.len(), CHANGES, "{met:?}");
}

#[test]
fn every_operation_takes_part_in_the_random_histories() {
    let source = [
        include_str!("../../../src/committer/operations/sessions.rs"),
        include_str!("../../../src/committer/operations/revocations.rs"),
        include_str!("../../../src/committer/operations/directory.rs"),
        include_str!("../../../src/committer/operations/beside.rs"),
        include_str!("../../../src/committer/operations/retention.rs"),
    ]
    .concat();
    let players = [
        include_str!("base.rs"),
        include_str!("history.rs"),
        include_str!("following.rs"),
        include_str!("retention.rs"),
    ]
    .concat();
    let heads = source.lines().filter(|line| line.starts_with("impl") && line.contains("Operation for "));
    let operations: Vec<_> =
        heads.filter_map(|line| line.split("Operation for ").last()?.split([' ', '<']).next()).collect();
    assert!(operations.len() > 20, "{operations:?}");
    let missing: Vec<_> = operations.iter().filter(|name| !players.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

//! The sentence about an end, and the rules of bars, given and then.

use sessiond_core::Time;
use sessiond_core::actor::ActorKind;
use sessiond_core::bar::{Bar, BarEvent, BarPlaced, BarTold};
use sessiond_core::end_story::{End, EndedBy, EnderKind, RevokedWith};
use sessiond_core::filter::Filter;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber,
};
use sessiond_core::kind::Kind;
use sessiond_core::reason::Reason;
use sessiond_core::status::DerivedStatus;
use sessiond_core::stream::{Envelope, Stream, StreamRefusal};
use uuid::Uuid;

fn at(second: i64) -> Time {
    Time::from_timestamp_millis(1_800_000_000_000 + second * 1_000).unwrap()
}

fn end(reason: Reason, by: &EndedBy) -> End<'_> {
    End {
        reason,
        by,
        at: at(60),
        revoked_with: None,
        message: None,
        last_active_at: at(0),
        token_expires_at: Some(at(3_600)),
        hostname: Some("laptop"),
        client: Some("inspector"),
        resource: None,
    }
}

fn by(kind: EnderKind, name: Option<&str>) -> EndedBy {
    EndedBy { kind, id: Some(Uuid::nil()), name: name.map(str::to_owned) }
}

#[test]
fn every_reason_has_a_sentence_whoever_it_was() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_word(reason.word()), Some(reason));
        for kind in EnderKind::ALL {
            for name in [Some("ops\u{1b}[2J\nnew"), None] {
                let sentence = end(reason, &by(kind, name)).sentence();
                assert!(sentence.starts_with(|c: char| c.is_uppercase()), "{sentence}");
                assert!(sentence.ends_with('.') && !sentence.ends_with(".."), "{sentence}");
                assert!(!sentence.contains(char::is_control), "{sentence:?}");
            }
        }
    }
    let mut reasons = std::collections::BTreeSet::new();
    let system = by(EnderKind::System, None);
    assert!(Reason::ALL.iter().all(|reason| reasons.insert(end(*reason, &system).sentence())), "two alike");
}

#[test]
fn what_a_limit_demands_is_the_policys_doing_and_all_else_is_whose_event_it_is() {
    for reason in [Reason::Stale, Reason::Idle, Reason::Lifetime, Reason::Evicted] {
        assert_eq!(EnderKind::of(reason, ActorKind::ServiceAccount), EnderKind::Policy);
    }
    for actor in ActorKind::ALL {
        assert_eq!(EnderKind::of(Reason::Revoked, actor).word(), actor.word());
    }
}

#[test]
fn a_sentence_says_with_what_else_and_why_and_knows_the_session_for_names() {
    let ops = by(EnderKind::ServiceAccount, Some("ops"));
    let said = |filter: &Filter, note| {
        let revoked_with = Some(RevokedWith { filter, note });
        End { revoked_with, ..end(Reason::Revoked, &ops) }.sentence()
    };
    let hostname = Some("laptop".to_owned());
    let laptop = Filter { hostname: hostname.clone(), ..Filter::default() };
    let whole = "Revoked by service account 'ops' with everything of host laptop: stolen laptop.";
    assert_eq!(said(&laptop, Some("stolen laptop")), whole);
    assert_eq!(said(&laptop, Some("Stolen!")), whole.replace("stolen laptop.", "Stolen!"));
    let erased = {
        let revoked_with = Some(RevokedWith { filter: &laptop, note: None });
        End { revoked_with, hostname: None, ..end(Reason::Revoked, &ops) }.sentence()
    };
    assert_eq!(erased, "Revoked by service account 'ops' with everything of its host.");
    for (filter, with) in [
        (Filter { session: Some(SessionNumber(1)), ..Filter::default() }, ""),
        (Filter::default(), " with everything of the organization"),
        (
            Filter { application: Some(ApplicationNumber(1)), ..Filter::default() },
            " with everything of its application",
        ),
        (
            Filter { principal: Some(PrincipalNumber(1)), kind: Some(Kind::Mcp), ..Filter::default() },
            " with everything of its principal and the kind mcp",
        ),
        (
            Filter { hostname, status: vec![DerivedStatus::Idle], ..Filter::default() },
            " with what else fitted of host laptop",
        ),
        (
            Filter { status: vec![DerivedStatus::Idle], ..Filter::default() },
            " with everything else that fitted",
        ),
    ] {
        assert_eq!(said(&filter, None), format!("Revoked by service account 'ops'{with}."));
    }
    let policy = by(EnderKind::Policy, None);
    let silent = end(Reason::Stale, &policy);
    assert_eq!(silent.sentence(), "It gave no sign of life after 2027-01-15 08:00:00 UTC.");
    let expired = End { token_expires_at: Some(at(30)), ..silent };
    assert_eq!(expired.sentence(), "Its token expired at 2027-01-15 08:00:30 UTC and nobody renewed it.");
}

fn placed(until: Option<Time>) -> BarEvent {
    BarEvent::Placed(Box::new(BarPlaced {
        id: Uuid::nil(),
        principal: PrincipalNumber(7),
        client: None,
        until,
        message: Some("room 12".into()),
        note: None,
        revocation: RevocationNumber(3),
    }))
}

fn after(bar: Option<Bar>, event: &BarEvent, second: i64) -> Bar {
    let head = Head { version: 1, position: Position(9), ..Head::default() };
    let envelope = Envelope { number: 1, organization: OrganizationNumber(1), occurred_at: at(second), head };
    Bar::evolve(bar, event, &envelope).unwrap()
}

#[test]
fn a_bar_stands_until_it_ends_by_the_clock_or_is_lifted_once() {
    let ending = after(None, &placed(Some(at(100))), 0);
    assert!(ending.stands(at(99)) && !ending.stands(at(100)), "the instant itself is outside");
    let lasting = after(None, &placed(None), 0);
    assert!(lasting.stands(at(1_000_000)) && lasting.outlasts(&ending) && !ending.outlasts(&lasting));

    assert_eq!(Bar::decide(Some(&lasting), &BarEvent::Lifted), Ok(Some(BarEvent::Lifted)));
    let lifted = after(Some(lasting), &BarEvent::Lifted, 5);
    assert!(!lifted.stands(at(5)) && !lifted.exists());
    assert_eq!(Bar::decide(Some(&lifted), &BarEvent::Lifted), Ok(None), "lifting twice is success");
    assert_eq!(Bar::decide(Some(&lifted), &placed(None)), Err(StreamRefusal::Gone), "it is placed once");
    assert_eq!(Bar::decide(None, &BarEvent::Lifted), Err(StreamRefusal::Gone));
}

#[test]
fn whoever_is_barred_is_told_until_when_and_why_in_one_line() {
    let told = after(None, &placed(Some(at(0))), 0).told();
    assert_eq!(told.sentence(), "Barred until 2027-01-15 08:00:00 UTC: room 12");
    let told = BarTold { until: None, message: Some("a\u{1b}b\nc".into()) };
    assert_eq!(told.sentence(), "Barred until an operator lifts the bar: a\\u{1b}b\\nc");
}

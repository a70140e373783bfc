//! For every event of a machine: a later decision that depends on it.

use chrono::DateTime;
use sessiond_core::ids::{Head, OrganizationNumber, Position};
use sessiond_core::machine::{
    CredentialType, HostKeyPinned, Machine, MachineChanged, MachineCreated, MachineEvent,
};
use sessiond_core::stream::{Envelope, Stream};
use uuid::Uuid;

fn created() -> MachineEvent {
    MachineEvent::Created(MachineCreated {
        id: Uuid::from_u128(1),
        name: "Production Server".to_owned(),
        host: "192.168.1.100".to_owned(),
        port: 22,
        user: "deploy".to_owned(),
        credential: CredentialType::PrivateKey,
        host_key: None,
    })
}

fn pinned(key: &str) -> MachineEvent {
    MachineEvent::HostKeyPinned(HostKeyPinned { host_key: key.to_owned() })
}

fn changed(changed: MachineChanged) -> MachineEvent {
    MachineEvent::Changed(changed)
}

/// The fold of these events.
fn after(events: &[MachineEvent]) -> Option<Machine> {
    events.iter().enumerate().fold(None, |machine, (index, event)| {
        let index = index as i64;
        let head = Head { version: 1 + index, position: Position(10 + index), hash: [0; 32] };
        let (organization, occurred_at) = (OrganizationNumber(1), DateTime::UNIX_EPOCH);
        let envelope = Envelope { number: 1, organization, occurred_at, head };
        Machine::evolve(machine, event, &envelope)
    })
}

fn machine(events: &[MachineEvent]) -> Machine {
    after(events).unwrap()
}

/// Whether the command makes something happen; none where it is refused.
fn happens(events: &[MachineEvent], command: MachineEvent) -> Option<bool> {
    Machine::decide(after(events).as_ref(), &command).ok().map(|event| event.is_some())
}

#[test]
fn created_it_can_be_pinned_and_is_not_created_again() {
    assert_eq!(happens(&[], created()), Some(true));
    assert_eq!(happens(&[], pinned("a")), None, "there is nothing to pin it to");
    assert_eq!(happens(&[created()], pinned("a")), Some(true));
    assert_eq!(happens(&[created()], created()), None);
    assert_eq!(machine(&[created()]).host_key, None);
}

#[test]
fn a_key_is_pinned_once_and_another_in_its_place() {
    let events = [created(), pinned("a")];
    assert_eq!(happens(&events, pinned("a")), Some(false));
    assert_eq!(happens(&events, pinned("b")), Some(true));
    let events = [created(), pinned("a"), pinned("b")];
    assert_eq!(happens(&events, pinned("a")), Some(true), "it is the other now");
}

#[test]
fn elsewhere_it_is_another_machine_whose_key_nobody_knows() {
    let host = || MachineChanged { host: Some("192.168.1.101".to_owned()), ..MachineChanged::default() };
    let port = || MachineChanged { port: Some(2_222), ..MachineChanged::default() };
    for there in [host(), port()] {
        let events = [created(), pinned("a"), changed(there)];
        assert_eq!(machine(&events).host_key, None);
        assert_eq!(happens(&events, pinned("a")), Some(true), "it has to be pinned again");
    }
    let same = MachineChanged { host: Some("192.168.1.100".to_owned()), port: Some(22), ..host() };
    for here in [
        MachineChanged { host: Some("192.168.1.100".to_owned()), ..same },
        MachineChanged { name: Some("Another".to_owned()), ..MachineChanged::default() },
        MachineChanged { user: Some("root".to_owned()), ..MachineChanged::default() },
        MachineChanged { credential: Some(CredentialType::Password), ..MachineChanged::default() },
    ] {
        let events = [created(), pinned("a"), changed(here)];
        assert_eq!(happens(&events, pinned("a")), Some(false), "it is where it was");
    }
}

#[test]
fn elsewhere_it_needs_its_credential_with_it_and_where_it_is_already_it_needs_none() {
    let host = |host: &str| MachineChanged { host: Some(host.to_owned()), ..MachineChanged::default() };
    let port = |port| MachineChanged { port: Some(port), ..MachineChanged::default() };
    for there in [host("192.168.1.101"), port(2_222)] {
        assert_eq!(happens(&[created()], changed(there.clone())), None);
        let with = MachineChanged { credential: Some(CredentialType::Password), ..there };
        assert_eq!(happens(&[created()], changed(with)), Some(true));
    }
    for here in [host("192.168.1.100"), port(22)] {
        assert_eq!(happens(&[created()], changed(here)), Some(false));
    }
}

#[test]
fn what_is_not_said_of_a_change_stays_and_nothing_said_changes_nothing() {
    assert_eq!(happens(&[created()], changed(MachineChanged::default())), Some(false));
    let user = MachineChanged { user: Some("root".to_owned()), ..MachineChanged::default() };
    let before = machine(&[created()]);
    let after = machine(&[created(), changed(user)]);
    assert_eq!(after, Machine { user: "root".to_owned(), head: after.head, ..before });
    let password = MachineChanged { credential: Some(CredentialType::Password), ..MachineChanged::default() };
    // The same again: the secret beside the log is another.
    assert_eq!(happens(&[created(), changed(password.clone())], changed(password)), Some(true));
}

#[test]
fn deleted_it_is_neither_pinned_nor_changed_and_deleting_it_again_changes_nothing() {
    let events = [created(), MachineEvent::Deleted];
    let name = MachineChanged { name: Some("Another".to_owned()), ..MachineChanged::default() };
    assert_eq!(happens(&events, pinned("a")), None);
    assert_eq!(happens(&events, changed(name)), None);
    assert_eq!(happens(&events, created()), None);
    assert_eq!(happens(&events, MachineEvent::Deleted), Some(false));
}

#[test]
fn a_machines_later_events_fold_to_nothing_without_its_creation() {
    for event in [pinned("a"), changed(MachineChanged::default()), MachineEvent::Deleted] {
        assert_eq!(after(&[event]), None);
    }
}

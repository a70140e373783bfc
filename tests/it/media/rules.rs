//! Streams and hooks, as given / when / then: for every event a later decision that depends on it.

use sessiond_core::Time;
use sessiond_core::admission_hook::{AdmissionHook, AdmissionHookCreated, AdmissionHookEvent};
use sessiond_core::ids::{ApplicationNumber, Head, OrganizationNumber};
use sessiond_core::media_stream::{
    LONGEST_NAME, MediaStream, MediaStreamDeclared, MediaStreamEvent, checked_segment,
};
use sessiond_core::stream::{Envelope, Stream, StreamRefusal};
use uuid::Uuid;

fn after<S: Stream>(before: Option<S>, event: &S::Event) -> S {
    let occurred_at = Time::from_timestamp_millis(1_700_000_000_000).unwrap();
    let envelope =
        Envelope { number: 1, organization: OrganizationNumber(1), occurred_at, head: Head::default() };
    S::evolve(before, event, &envelope).unwrap()
}

fn declared(application: i64, id: u128) -> MediaStreamEvent {
    MediaStreamEvent::Declared(MediaStreamDeclared {
        id: Uuid::from_u128(id),
        vhost: "default".into(),
        app: "app".into(),
        stream: "stream".into(),
        application: ApplicationNumber(application),
    })
}

#[test]
fn a_stream_that_was_declared_is_declared_again_only_for_another_application() {
    let first = declared(1, 1);
    assert_eq!(MediaStream::decide(None, &first), Ok(Some(first.clone())));
    let stream = after::<MediaStream>(None, &first);
    assert_eq!(MediaStream::decide(Some(&stream), &declared(1, 2)), Ok(None), "nothing to change");
    let second = declared(2, 2);
    assert_eq!(MediaStream::decide(Some(&stream), &second), Ok(Some(second.clone())));
    let stream = after(Some(stream), &second);
    assert_eq!(MediaStream::decide(Some(&stream), &declared(2, 3)), Ok(None));
    assert_eq!(MediaStream::decide(Some(&stream), &first), Ok(Some(first)), "and back");
    assert_eq!(stream.id, Uuid::from_u128(1), "it keeps the id that it got first");
}

#[test]
fn a_hook_that_was_created_can_be_deleted_once() {
    let created = AdmissionHookEvent::Created(AdmissionHookCreated {
        id: Uuid::from_u128(1),
        name: "edge".into(),
        vhost: "default".into(),
        lifetime: None,
    });
    let deleted = AdmissionHookEvent::Deleted;
    assert_eq!(AdmissionHook::decide(None, &deleted), Err(StreamRefusal::Gone));
    assert_eq!(AdmissionHook::decide(None, &created), Ok(Some(created.clone())));
    let hook = after::<AdmissionHook>(None, &created);
    assert_eq!(AdmissionHook::decide(Some(&hook), &created), Err(StreamRefusal::Gone));
    assert_eq!(AdmissionHook::decide(Some(&hook), &deleted), Ok(Some(deleted.clone())));
    let hook = after(Some(hook), &deleted);
    assert_eq!(
        AdmissionHook::decide(Some(&hook), &deleted),
        Ok(None),
        "twice is success, and nothing to change"
    );
}

#[test]
fn a_name_is_what_can_be_one_segment_of_a_path() {
    for good in ["a", "#", "a b", "ü", "…", "a:b", &"x".repeat(LONGEST_NAME)] {
        assert_eq!(checked_segment("stream", good), Ok(good));
    }
    for wrong in ["", " ", ".", "..", "a/b", "a\u{0}", "a\nb", &"x".repeat(LONGEST_NAME + 1)] {
        assert!(checked_segment("stream", wrong).unwrap_err().starts_with("stream must be"), "{wrong:?}");
    }
}

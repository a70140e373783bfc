//! Every way in which a credential or a session ends.

use super::{By, Fate, Thing, Way, cross};
use Fate::{Credential, Session, Stays};
use Thing::{ApplicationFeed, BareSseConnection, SessionFeed, Terminal, Watcher};

/// All ends with the credential.
macro_rules! all {
    ($word:literal) => {
        |_| Credential($word)
    };
}

/// Sessions end, and the credential stays good where it manages and watches.
fn sessions(thing: Thing, reason: &'static str, bare: Fate) -> Fate {
    match thing {
        ApplicationFeed => Stays,
        BareSseConnection => bare,
        _ => Session(reason),
    }
}

/// The same, and what belongs to no session stays.
fn sessions_alone(thing: Thing, reason: &'static str) -> Fate {
    sessions(thing, reason, Stays)
}

/// What belongs to sessions ends with them, and all else because its holder is barred.
fn barred(thing: Thing) -> Fate {
    match thing {
        ApplicationFeed | SessionFeed | BareSseConnection => Credential("barred"),
        _ => Session("revoked"),
    }
}

pub const ALL: &[Way] = &[
    Way {
        name: "API key deleted",
        by: By::Key,
        fate: all!("api_key_deleted"),
        operations: &["apiKeys.revoke"],
        events: &["api_key_revoked"],
    },
    Way {
        name: "API key's secret rotated",
        by: By::Key,
        fate: all!("replaced"),
        operations: &["apiKeys.rotateSecret"],
        events: &["api_key_secret_rotated"],
    },
    Way {
        name: "API key's old secret expired",
        by: By::Key,
        fate: all!("replaced"),
        operations: &["apiKeys.rotateSecret"],
        events: &["api_key_secret_rotated"],
    },
    Way { name: "API key expired", by: By::Key, fate: all!("expired"), operations: &[], events: &[] },
    Way {
        name: "person of an API key disabled",
        by: By::PersonKey,
        fate: |thing| match thing {
            ApplicationFeed | SessionFeed | BareSseConnection => Credential("principal_disabled"),
            _ => Session("revoked"),
        },
        operations: &["principals.disable"],
        events: &["principal_disabled"],
    },
    Way {
        name: "person of an API key revoked",
        by: By::PersonKey,
        fate: |thing| sessions_alone(thing, "revoked"),
        operations: &["revocations.create"],
        events: &["principal_credentials_barred", "revocation_began"],
    },
    Way {
        name: "access token given up",
        by: By::Account,
        fate: all!("given_up"),
        operations: &["oauth.revoke"],
        events: &[],
    },
    Way {
        name: "access token expired",
        by: By::Account,
        fate: all!("expired"),
        operations: &[],
        events: &[],
    },
    Way {
        name: "service account archived",
        by: By::Account,
        fate: all!("service_account_archived"),
        operations: &["serviceAccounts.archive"],
        events: &["service_account_archived"],
    },
    Way {
        name: "service account's secret rotated",
        by: By::Account,
        fate: |_| Stays,
        operations: &["serviceAccounts.rotateSecret"],
        events: &["service_account_secret_rotated"],
    },
    Way {
        name: "application's secret rotated",
        by: By::Client,
        fate: |_| Stays,
        operations: &["applications.rotateSecret"],
        events: &["application_secret_rotated"],
    },
    Way {
        name: "another session of an access token revoked",
        by: By::Account,
        fate: |thing| match thing {
            ApplicationFeed => Stays,
            SessionFeed => Session("revoked"),
            _ => Credential("revoked"),
        },
        operations: &["agentSessions.revoke", "agentInstances.revoke"],
        events: &["revocation_began"],
    },
    Way {
        name: "application revoked",
        by: By::Account,
        fate: |thing| sessions(thing, "revoked", Credential("revoked")),
        operations: &["agentSessions.revokeAll", "agentInstances.revokeAll", "revocations.create"],
        events: &["application_credentials_barred", "revocation_began"],
    },
    Way {
        name: "organization revoked",
        by: By::Client,
        fate: |thing| sessions(thing, "revoked", Credential("revoked")),
        operations: &["revocations.create"],
        events: &["organization_credentials_barred", "revocation_began"],
    },
    Way {
        name: "application archived",
        by: By::Client,
        fate: |thing| sessions(thing, "archived", Credential("revoked")),
        operations: &["applications.archive"],
        events: &["application_archived"],
    },
    Way {
        name: "issuer removed",
        by: By::Jwt,
        fate: all!("issuer_changed"),
        operations: &["issuers.set"],
        events: &["organization_issuers_set"],
    },
    Way {
        name: "issuer trusted otherwise",
        by: By::Jwt,
        fate: all!("issuer_changed"),
        operations: &["issuers.set"],
        events: &["organization_issuers_set"],
    },
    Way { name: "JWT expired", by: By::Jwt, fate: all!("expired"), operations: &[], events: &[] },
    Way {
        name: "person of a JWT disabled",
        by: By::Jwt,
        fate: |thing| match thing {
            ApplicationFeed | SessionFeed | BareSseConnection => Credential("principal_disabled"),
            _ => Session("revoked"),
        },
        operations: &["principals.disable"],
        events: &["principal_disabled"],
    },
    Way {
        name: "person of an API key barred",
        by: By::PersonKey,
        fate: barred,
        operations: &["bars.place"],
        events: &["bar_placed"],
    },
    Way {
        name: "person of a JWT barred",
        by: By::Jwt,
        fate: barred,
        operations: &["bars.place", "revocations.create"],
        events: &["bar_placed"],
    },
    Way {
        name: "OAuth client barred",
        by: By::Account,
        fate: |thing| if thing == ApplicationFeed { Stays } else { barred(thing) },
        operations: &["bars.place"],
        events: &["bar_placed"],
    },
    Way {
        name: "session's token renewed",
        by: By::Session,
        fate: all!("replaced"),
        operations: &["agent.renew"],
        events: &["token_renewed"],
    },
    Way {
        name: "session attached to anew",
        by: By::Session,
        fate: all!("replaced"),
        operations: &["agent.create"],
        events: &["token_renewed"],
    },
    Way {
        name: "sessions terminated",
        by: By::Key,
        fate: |thing| sessions_alone(thing, "terminated"),
        operations: &["agentSessions.terminate", "terminals.terminateSession"],
        events: &["disconnected"],
    },
    Way {
        name: "sessions revoked one by one",
        by: By::Key,
        fate: |thing| sessions_alone(thing, "revoked"),
        operations: &["agentSessions.revoke"],
        events: &["revocation_began", "disconnected"],
    },
    Way {
        name: "sessions revoked by a filter",
        by: By::Key,
        fate: |thing| sessions_alone(thing, "revoked"),
        operations: &["revocations.create"],
        events: &["revocation_began", "disconnected"],
    },
    Way {
        name: "sessions revoked with the keys behind them",
        by: By::Key,
        fate: |thing| match thing {
            ApplicationFeed | SessionFeed | BareSseConnection => Credential("api_key_deleted"),
            _ => Session("revoked"),
        },
        operations: &["revocations.create"],
        events: &["api_key_revoked", "revocation_began"],
    },
    Way {
        name: "sessions suspended",
        by: By::Key,
        fate: |_| Stays,
        operations: &["agentSessions.suspend"],
        events: &["suspended"],
    },
    Way {
        name: "sessions stale",
        by: By::Key,
        // Those of the gateway pause that while something is under way, and terminals have no such deadline.
        fate: |thing| if thing == SessionFeed { Session("stale") } else { Stays },
        operations: &[],
        events: &["disconnected"],
    },
    Way {
        name: "sessions at the end of their lifetime",
        by: By::Key,
        fate: |thing| match thing {
            // They are of an application of their own, with a policy of its own.
            Terminal | Watcher => Stays,
            _ => sessions_alone(thing, "lifetime"),
        },
        operations: &[],
        events: &["disconnected"],
    },
];

/// The way of this name.
pub fn named(name: &str) -> &'static Way {
    ALL.iter().find(|way| way.name == name).unwrap_or_else(|| panic!("no way is called {name}"))
}

macro_rules! ways {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                cross($name).await;
            }
        )*

        /// Those that a test goes.
        pub const GONE: &[&str] = &[$($name),*];
    };
}

ways! {
    what_an_api_key_opened_ends_when_it_is_deleted: "API key deleted",
    what_an_api_key_opened_ends_when_its_secret_is_rotated: "API key's secret rotated",
    what_an_api_key_opened_ends_when_its_old_secret_is_over: "API key's old secret expired",
    what_an_api_key_opened_ends_when_it_expires: "API key expired",
    what_a_persons_key_opened_ends_when_the_person_is_disabled: "person of an API key disabled",
    a_persons_sessions_end_when_the_person_is_revoked_and_the_key_stays: "person of an API key revoked",
    what_a_token_opened_ends_when_it_is_given_up: "access token given up",
    what_a_token_opened_ends_when_it_expires: "access token expired",
    what_a_service_account_opened_ends_when_it_is_archived: "service account archived",
    a_service_accounts_new_secret_ends_nothing: "service account's secret rotated",
    an_applications_new_secret_ends_nothing: "application's secret rotated",
    what_a_token_opened_ends_when_another_session_of_it_is_revoked: "another session of an access token revoked",
    what_a_token_opened_on_the_agent_side_ends_when_the_application_is_revoked: "application revoked",
    what_a_token_opened_on_the_agent_side_ends_when_the_organization_is_revoked: "organization revoked",
    what_a_token_opened_on_the_agent_side_ends_when_the_application_is_archived: "application archived",
    what_a_jwt_opened_ends_when_its_issuer_is_removed: "issuer removed",
    what_a_jwt_opened_ends_when_its_issuer_is_trusted_otherwise: "issuer trusted otherwise",
    what_a_jwt_opened_ends_when_it_expires: "JWT expired",
    what_a_jwt_opened_ends_when_its_person_is_disabled: "person of a JWT disabled",
    what_a_persons_key_opened_ends_when_the_person_is_barred: "person of an API key barred",
    what_a_jwt_opened_ends_when_its_person_is_barred: "person of a JWT barred",
    what_a_token_opened_on_the_agent_side_ends_when_its_client_is_barred: "OAuth client barred",
    a_sessions_feed_ends_when_its_token_is_renewed: "session's token renewed",
    a_sessions_feed_ends_when_somebody_attaches_to_it: "session attached to anew",
    what_belongs_to_sessions_ends_when_they_are_terminated: "sessions terminated",
    what_belongs_to_sessions_ends_when_they_are_revoked: "sessions revoked one by one",
    what_belongs_to_sessions_ends_when_a_filter_revokes_them: "sessions revoked by a filter",
    what_a_key_opened_ends_when_a_revocation_takes_it_along: "sessions revoked with the keys behind them",
    what_belongs_to_sessions_stays_when_they_are_suspended: "sessions suspended",
    what_belongs_to_sessions_ends_when_they_are_stale: "sessions stale",
    what_belongs_to_sessions_ends_with_their_lifetime: "sessions at the end of their lifetime",
}

//! What ends something that is open, and how long that is waited for before anybody is answered.

use std::time::Duration;

use futures_util::future::join_all;
use sessiond_core::api_key::ApiKeyEvent;
use sessiond_core::command::Command;
use sessiond_core::hook::HookEvent;
use sessiond_core::item::ItemEvent;
use sessiond_core::principal::PrincipalEvent;
use sessiond_store::SideWrite;

use super::{Answer, Work};

/// How long a connection may take to let go of what was cancelled before it is given up on.
const YIELD: Duration = Duration::from_millis(100);

impl Answer {
    /// Waits until what was cancelled has let go, but not for ever.
    pub async fn landed(&self) {
        let all = join_all(self.flights.iter().map(|flight| flight.landed()));
        tokio::time::timeout(YIELD, all).await.ok();
    }
}

impl Work {
    /// Whether a credential may end with it, by itself. What revokes and what ends sessions sees to the waiting on its own,
    /// since it has more to do before it answers.
    pub(super) fn ends_credentials(&self) -> bool {
        match self {
            Self::Session { command, .. } => matches!(command, Command::RenewToken { .. }),
            // Whoever attaches to a session gets a new token for it.
            Self::Connect(_) => true,
            Self::Item { wish, .. } => match wish {
                ItemEvent::ApiKey(event) => matches!(event, ApiKeyEvent::Revoked),
                ItemEvent::Hook(event) => matches!(event, HookEvent::Deleted),
                ItemEvent::Principal(event) => !matches!(event, PrincipalEvent::Enabled),
                ItemEvent::Schedule(_)
                | ItemEvent::Webhook(_)
                | ItemEvent::MediaStream(_)
                | ItemEvent::Machine(_) => false,
            },
            Self::Organization { .. } | Self::Application { .. } | Self::ServiceAccount { .. } => true,
            Self::Side(side) => {
                matches!(side, SideWrite::RevokeAccessToken(_) | SideWrite::BarAccessToken(_))
            }
            Self::BeginRevocation(_) | Self::Bulk { .. } => false,
            Self::Report(_)
            | Self::Measure(_)
            | Self::EndRevocation { .. }
            | Self::Declare { .. }
            | Self::EnsureApplication { .. }
            | Self::Introduce(_)
            | Self::CreateOrganization(_)
            | Self::CreateApplication { .. }
            | Self::SetUpstream { .. }
            | Self::CreateServiceAccount { .. }
            | Self::IssueToken { .. }
            | Self::Health => false,
        }
    }
}

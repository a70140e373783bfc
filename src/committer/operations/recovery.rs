//! Operations of whoever stands at the console, while the service is stopped.

use sessiond_core::api_key::{ApiKey, ApiKeyEvent};
use sessiond_core::ids::{OrganizationNumber, ServiceAccountNumber};
use sessiond_core::organization::{Organization, OrganizationCommand, OrganizationRestored};
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCommand};
use sessiond_core::stream::{SecretRotated, Stream};
use sessiond_store::SideWrite;

use crate::committer::{Draft, Operation, Origin};
use crate::error::Error;

/// Writes down in each organization that the installation was restored from a backup. Its outcome is how many API keys were
/// revoked.
#[derive(Debug)]
pub struct RecordRestore {
    pub restored: OrganizationRestored,
    pub revoke_keys: bool,
}

impl Operation for RecordRestore {
    type Outcome = u64;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<u64, Error> {
        let organizations: Vec<_> = draft.streams_of::<Organization>().map(|one| one.number).collect();
        let command = OrganizationCommand::Restore(self.restored.clone());
        for number in organizations {
            draft.change_organization(origin, number, &command)?;
        }
        if !self.revoke_keys {
            return Ok(0);
        }
        let keys = draft.streams_of::<ApiKey>().filter(|key| key.exists());
        let keys: Vec<_> = keys.map(|key| (key.organization, key.number)).collect();
        for (organization, number) in &keys {
            draft.change_stream::<ApiKey>(
                origin,
                *organization,
                Some(*number),
                &ApiKeyEvent::Revoked,
                &[],
            )?;
        }
        Ok(keys.len() as u64)
    }
}

/// Gives a service account another secret, because the one that it has is lost: nothing opens any more that was issued for it.
#[derive(Debug)]
pub struct ResetServiceAccount {
    pub organization: OrganizationNumber,
    pub number: ServiceAccountNumber,
    pub client_id: String,
    pub secret_hash: [u8; 32],
}

impl Operation for ResetServiceAccount {
    type Outcome = ServiceAccount;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<ServiceAccount, Error> {
        let secret = SideWrite::ClientSecret {
            client_id: self.client_id.clone(),
            secret_hash: self.secret_hash,
            before_until: None,
        };
        let rotated = SecretRotated { old_until: None };
        let (number, command) = (Some(self.number.0), ServiceAccountCommand::RotateSecret(rotated));
        let account = draft.change_stream(origin, self.organization, number, &command, &[secret])?;
        draft.give_up_tokens_of(self.number);
        Ok(account)
    }
}

//! Applications that other systems name: they are made when they are first spoken of.

use sessiond_core::application::{Application, ApplicationCreated};
use sessiond_core::caller::Caller;
use sessiond_core::media_stream::{MediaStream, application_name};

use super::{Directory, LONGEST, NewApplication};
use crate::committer::{DeclareStream, EnsureApplication, Origin};
use crate::error::Error;
use crate::secret;

impl Directory {
    /// Makes sure that there is a media stream of these names: virtual host, app and stream.
    pub async fn declare_stream(&self, caller: &Caller, names: [String; 3]) -> Result<MediaStream, Error> {
        let application = self.made(&application_name(&names[0], &names[1])).map_err(|_| {
            Error::field("app", format!("vhost and app must be at most {} characters together", LONGEST - 1))
        })?;
        let organization = caller.organization;
        let declaration = DeclareStream { organization, id: secret::new_id(), names, application };
        Ok(self.committer.submit(once_less(caller), declaration).await?.outcome)
    }

    /// The application of this name that is not archived; made if there is none.
    pub async fn application_named(&self, caller: &Caller, name: &str) -> Result<Application, Error> {
        let made = self.made(name)?;
        let found = self.live_application_named(caller, &made.name);
        if let Some(found) = found {
            return Ok(found);
        }
        let ensured = EnsureApplication { organization: caller.organization, created: made };
        Ok(self.committer.submit(once_less(caller), ensured).await?.outcome)
    }

    /// The application of this name, if it is not archived.
    pub fn live_application_named(&self, caller: &Caller, name: &str) -> Option<Application> {
        let known = self.gate.known();
        let mut own = known.applications.values().filter(|one| {
            one.organization == caller.organization
                && one.archived_at.is_none()
                && caller.may_touch(one.number)
        });
        own.find(|one| one.name == name).cloned()
    }

    /// How an application is made that another system names.
    fn made(&self, name: &str) -> Result<ApplicationCreated, Error> {
        let new = NewApplication { name: name.to_owned(), ..NewApplication::default() };
        Ok(ApplicationCreated { on_the_way: true, ..self.application_created(None, new)?.0 })
    }
}

/// By whom, for work that is only the ground for what the request is about, and may be done twice.
fn once_less(caller: &Caller) -> Origin {
    Origin { once: None, ..Origin::caller(caller) }
}

//! Shows the first credentials of an organization, once, on standard output, ready to be pasted into a shell, or in a file
//! that only we can read. The organization is created only after they could be shown.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use sessiond_core::shown;

use super::print;
use crate::directory::{CreatedOrganization, Credentials, Organizations, Plan, Recovery, Reset};
use crate::error::Error;

/// Shows the credentials of a planned organization, and then creates it.
pub async fn show_and_create(
    organizations: &Organizations,
    plan: Plan,
    file: Option<&Path>,
) -> anyhow::Result<CreatedOrganization> {
    show(&plan.credentials(), file)?;
    organizations.create_planned(plan).await.map_err(|error| taken_back(error, file))
}

/// Gives a service account another secret, once that was shown.
pub async fn show_and_reset(recovery: &Recovery, reset: Reset, file: Option<&Path>) -> anyhow::Result<()> {
    show(&reset.credentials(), file)?;
    recovery.reset(reset).await.map_err(|error| taken_back(error, file))
}

/// What was shown and then could not be made.
fn taken_back(error: Error, file: Option<&Path>) -> anyhow::Error {
    if let Some(file) = file {
        fs::remove_file(file).ok();
    }
    anyhow::Error::new(error).context("nothing was changed, and the credentials above open nothing")
}

fn show(credentials: &Credentials<'_>, file: Option<&Path>) -> anyhow::Result<()> {
    let text = text(credentials);
    match file {
        None => print::out(&text).context(
            "the credentials cannot be shown on standard output, so none were made; name a file with --credentials-file, or \
             show them somewhere else",
        ),
        Some(path) => write(path, &text).with_context(|| {
            format!("the credentials cannot be written to {}, so none were made", path.display())
        }),
    }
}

/// Writes to a new file, because the content of an existing one may still be wanted.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        fs::remove_file(path).ok();
    })
}

fn text(credentials: &Credentials<'_>) -> String {
    let Credentials { organization: (name, id), application, client_id, client_secret } = credentials;
    let mut text = format!("organization   {} ({id})\n", shown::line(name));
    // Writing to a string cannot fail.
    if let Some(application) = application {
        writeln!(text, "application    default ({application})").ok();
    }
    text += &format!(
        "client id      {client_id}\n\
         client secret  {client_secret}\n\
         Keep the secret: it is shown this once and stored only as a hash. For a shell:\n\n  \
         export CLIENT='{client_id}:{client_secret}'\n"
    );
    if let Some(application) = application {
        writeln!(text, "  export APP={application}").ok();
    }
    text + "\n"
}

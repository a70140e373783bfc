//! `sessiond organizations`: what is done with organizations at the console, while the service is stopped.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sessiond_core::shown;

use super::house::House;
use super::{Installation, credentials, print};

#[derive(Debug, Subcommand)]
pub enum Organizations {
    /// Make another organization and print its service account, once; the service must not be running
    Create {
        name: String,
        /// Its service account may found and name other organizations too
        #[arg(long)]
        platform_admin: bool,
        /// Write its credentials to this new file, readable by its owner only, instead of standard output
        #[arg(long, value_name = "FILE")]
        credentials_file: Option<PathBuf>,
        #[command(flatten)]
        installation: Installation,
    },
    /// Give an administrator whose secret is lost another one and print it, once; the service must not be running
    Recover {
        /// Its name or id
        organization: String,
        /// Which service account, by name, id or client id [default: the only administrator; where none is left, a new one]
        #[arg(long, value_name = "ACCOUNT")]
        service_account: Option<String>,
        /// Write its credentials to this new file, readable by its owner only, instead of standard output
        #[arg(long, value_name = "FILE")]
        credentials_file: Option<PathBuf>,
        #[command(flatten)]
        installation: Installation,
    },
}

impl Organizations {
    /// Runs one of them to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create { name, platform_admin, credentials_file, installation } => {
                let (_lock, house) = installation.open().await?;
                let outcome = create(&house, &name, platform_admin, credentials_file.as_deref()).await;
                house.close().await;
                outcome
            }
            Self::Recover { organization, service_account, credentials_file, installation } => {
                let (_lock, house) = installation.open().await?;
                let (account, file) = (service_account.as_deref(), credentials_file.as_deref());
                let outcome = recover(&house, &organization, account, file).await;
                house.close().await;
                outcome
            }
        }
    }
}

async fn create(house: &House, name: &str, platform_admin: bool, file: Option<&Path>) -> anyhow::Result<()> {
    let organizations = &house.directory.organizations;
    let plan = organizations.plan(name, None, platform_admin)?;
    credentials::show_and_create(organizations, plan, file).await.map(|_| ())
}

async fn recover(
    house: &House,
    organization: &str,
    account: Option<&str>,
    file: Option<&Path>,
) -> anyhow::Result<()> {
    let recovery = &house.directory.recovery;
    let reset = recovery.plan(organization, account)?;
    let name = shown::line(reset.name()).into_owned();
    credentials::show_and_reset(recovery, reset, file).await?;
    print::aside(&format!("{name}: what was issued for the secret before opens nothing any more\n"));
    Ok(())
}

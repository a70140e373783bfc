//! The command line.

mod backup;
mod credentials;
mod descriptors;
pub mod fill;
pub mod house;
mod key_file;
mod listener;
mod migrate_store;
mod note;
mod organizations;
mod place;
mod print;
mod restore;
mod rotate;
pub mod serve;
mod tls;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use sessiond_core::shown;
use sessiond_store::check::Report;

use crate::clock::Clock;
use crate::config::{self, Config, environment};
use crate::{http, logs};
use house::{House, Purpose};
use organizations::Organizations;
use place::{Lock, Place};

/// The durable record of who is connected to what.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, propagate_version = true)]
pub struct Cli {
    /// Read options from this file [default: /etc/sessiond/sessiond.toml, else ./sessiond.toml, if there is one]
    #[arg(long, global = true, env = CONFIG, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    #[command(after_help = SERVE_EXAMPLES, args_override_self = true)]
    Serve(Box<Config>),
    /// Print every option, the value in force and where it came from; or an example of a configuration file
    #[command(args_override_self = true)]
    Config(Shown),
    /// Check the log against itself and every row against the log; exits with 1 at the first difference
    Verify(Database),
    /// Make the rows again from the log; the service must not be running
    Rebuild(Database),
    /// Copy the installation into a directory, also while the service is running
    Backup {
        /// A new directory, an empty one, or one with a backup in it, which is replaced
        directory: PathBuf,
        /// Copy the secret key too: whoever has both has everything
        #[arg(long)]
        with_key: bool,
        #[command(flatten)]
        installation: Installation,
    },
    /// Put a backup where there is no installation, and bar what was issued before
    Restore {
        /// Where the backup is
        directory: PathBuf,
        #[command(flatten)]
        options: restore::Options,
        #[command(flatten)]
        installation: Installation,
    },
    /// Replace the secret key with another; the service must not be running
    RotateKey(Installation),
    /// Copy the installation from a file to a PostgreSQL server, or back, and prove the copy; the service must not be running
    #[command(after_help = MIGRATE_STORE_EXAMPLE)]
    MigrateStore(migrate_store::Options),
    /// Organizations
    #[command(subcommand)]
    Organizations(Organizations),
    /// Print the OpenAPI document
    Openapi,
}

/// The variable that names the configuration file.
const CONFIG: &str = "SESSIOND_CONFIG";

const SERVE_EXAMPLES: &str = "Examples:
  sessiond serve
  sessiond serve --listen 127.0.0.1:9000 --database sqlite:/var/lib/sessiond/sessions.db
  sessiond serve --database 'postgres://sessiond@db.example.com/sessiond?sslmode=verify-full' --secret-key-file /etc/sessiond/key
  sessiond serve --idle-after 1m --stale-after 5m --public-url https://sessions.example.com";

const MIGRATE_STORE_EXAMPLE: &str = "Example:
  sessiond migrate-store --from sqlite:sessiond.db --to 'postgres://sessiond@db.example.com/sessiond?sslmode=verify-full'";

#[derive(Debug, clap::Args)]
struct Shown {
    /// Print an example of a configuration file instead
    #[arg(long)]
    example: bool,
    #[command(flatten)]
    config: Box<Config>,
}

#[derive(Debug, clap::Args)]
struct Database {
    /// Where sessions are recorded: sqlite:FILE, or postgres://USER@HOST/NAME
    #[arg(
        long,
        env = "SESSIOND_DATABASE",
        hide_env_values = true,
        default_value = "sqlite:sessiond.db",
        value_name = "URL"
    )]
    database: String,
}

/// A database with its key.
#[derive(Debug, clap::Args)]
struct Installation {
    #[command(flatten)]
    database: Database,
    /// The secret key, where it is not beside the database's file
    #[arg(long, env = "SESSIOND_SECRET_KEY_FILE", value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
}

impl Installation {
    fn place(&self) -> anyhow::Result<Place> {
        Place::at(&self.database.database, self.secret_key_file.as_deref())
    }

    /// The configuration of a service that would run on it, all else as it is by default.
    fn config(&self) -> anyhow::Result<Config> {
        let mut arguments: Vec<OsString> = ["sessiond", "--database"].map(OsString::from).to_vec();
        arguments.push(self.place()?.url().into());
        if let Some(file) = &self.secret_key_file {
            arguments.extend(["--secret-key-file".into(), file.into()]);
        }
        let command = <Config as clap::Args>::augment_args(clap::Command::new("sessiond"));
        Ok(<Config as clap::FromArgMatches>::from_arg_matches(&command.try_get_matches_from(arguments)?)?)
    }

    /// Opens it for a command that changes it. Nobody else does so as long as the lock is held.
    async fn open(&self) -> anyhow::Result<(Lock, House)> {
        let (config, place) = (self.config()?, self.place()?);
        place.must_exist().await?;
        let lock = place.lock()?;
        let house = House::open(
            &config,
            &place,
            Clock::system(),
            Purpose::Command,
            &http::health::Progress::default(),
        )
        .await?;
        Ok((lock, house))
    }
}

/// Reads the command line, the environment and the configuration file.
fn read(arguments: &[OsString]) -> anyhow::Result<(Cli, ArgMatches, config::file::File)> {
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    environment::check(&Cli::command(), variables).map_err(anyhow::Error::msg)?;
    let file = config::file::File::read(named_file(arguments).as_deref()).map_err(anyhow::Error::msg)?;
    let matches = file.onto(Cli::command()).try_get_matches_from(arguments)?;
    Ok((Cli::from_arg_matches(&matches)?, matches, file))
}

/// Finds the name of the configuration file, which must be known before the command line can be read, because its values are
/// the options' defaults.
fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    let mut named = None;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            break;
        } else if text == "--config" {
            named = arguments.next().map(PathBuf::from);
        } else if let Some(path) = text.strip_prefix("--config=") {
            named = Some(path.into());
        }
    }
    named.or_else(|| std::env::var_os(CONFIG).map(PathBuf::from))
}

/// Runs the command of this process to its end.
pub fn run() -> ExitCode {
    place::private();
    let arguments: Vec<_> = std::env::args_os().collect();
    let (cli, matches, file) = match read(&arguments) {
        Ok(read) => read,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(error) => error.exit(),
            Err(error) => return failed(&format!("{error:#}")),
        },
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(config) => serve::run(*config, || serve_config(&arguments)).await,
            Command::Config(Shown { example, .. }) => {
                let effective = || matches.subcommand().map(|(_, matches)| file.effective(matches));
                print::document(&if example {
                    config::file::example()
                } else {
                    effective().unwrap_or_default()
                })
            }
            Command::Verify(database) => verify(&database.database).await,
            Command::Rebuild(database) => rebuild(&database.database).await,
            Command::Backup { directory, with_key, installation } => {
                backup::run(&directory, &installation, with_key).await
            }
            Command::Restore { directory, options, installation } => {
                restore::run(&directory, &installation, &options).await
            }
            Command::RotateKey(installation) => rotate::run(&installation).await,
            Command::MigrateStore(options) => migrate_store::run(&options).await,
            Command::Organizations(organizations) => organizations.run().await,
            Command::Openapi => print::document(&http::openapi_yaml()),
        }
    });
    logs::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{error:#}")),
    }
}

/// The configuration with which the service would run if it were started now with the same arguments.
fn serve_config(arguments: &[OsString]) -> anyhow::Result<Config> {
    match read(arguments)?.0.command {
        Command::Serve(config) => Ok(*config),
        _ => anyhow::bail!("this is no serve command"),
    }
}

fn failed(message: &str) -> ExitCode {
    print::aside(&format!("sessiond: {}\n", shown::lines(message)));
    ExitCode::FAILURE
}

async fn verify(database: &str) -> anyhow::Result<()> {
    let place = Place::at(database, None)?;
    place.must_exist().await?;
    let store = sessiond_store::open_to_look(place.url()).await?;
    let report = store.verify(&mut progress("events")).await?;
    store.close().await;
    print_report("verified", &report)
}

async fn rebuild(database: &str) -> anyhow::Result<()> {
    let place = Place::at(database, None)?;
    place.must_exist().await?;
    let _lock = place.lock()?;
    let report = sessiond_store::rebuild(place.url(), &mut progress("events")).await?;
    sessiond_store::recount(place.url(), &mut progress("events counted")).await?;
    print_report("rebuilt", &report)
}

/// Shows how far something has come, of so many of what is named, where somebody watches.
fn progress(what: &'static str) -> impl FnMut(u64, u64) {
    let watched = std::io::stderr().is_terminal();
    let mut shown = u64::MAX;
    move |done, total| {
        let percent = (done * 100).checked_div(total).unwrap_or(100);
        if watched && percent != shown {
            shown = percent;
            let end = if percent == 100 { "\n" } else { "" };
            print::aside(&format!("\r{done} of {total} {what} ({percent} %){end}"));
        }
    }
}

fn print_report(what: &str, report: &Report) -> anyhow::Result<()> {
    let Report { events, let_go, streams, sessions, unknown, erased, position, commit_hash } = report;
    let mut text = format!("{what}: {events} events in {streams} streams, {sessions} sessions\n");
    if *let_go > 0 {
        text += &format!(
            "{let_go} events more were let go: that it was so many, and what the chains of hashes go on from, is taken from \
             what they left\n"
        );
    }
    if *unknown > 0 {
        text += &format!("{unknown} events are of types that only a newer release knows\n");
    }
    if *erased > 0 {
        text +=
            &format!("{erased} events had personal facts in their bodies, which were erased on request\n");
    }
    text += &format!("the log ends at position {position}, commit hash {}\n", hex::encode(commit_hash));
    print::document(&text)
}

//! `sessiond migrate-store`: copies an installation from a file to a server, or back, while the service is stopped. Where it was
//! it stays as it was.

use anyhow::Context;
use sessiond_core::shown;
use sessiond_store::{Copied, CopyStep, Whereabouts};

use super::place::Place;
use super::{print, progress};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where the installation is: sqlite:FILE, or postgres://USER@HOST/NAME; the service must not be running
    #[arg(long, value_name = "URL")]
    from: String,
    /// Where it is to be: the same, where nothing is but what an interrupted copy has left
    #[arg(long, value_name = "URL")]
    to: String,
}

/// Copies it, and proves that what is there then is the same.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let (from, to) = (Place::at(&options.from, None)?, Place::at(&options.to, None)?);
    from.must_exist().await?;
    let _locks = (from.lock()?, to.lock()?);
    let (of_from, of_to) = (from.journals_url(), to.journals_url());
    let (mut copying, mut rebuilding, mut verifying) =
        (progress("rows copied"), progress("events rebuilt"), progress("events verified"));
    let mut progress = |step, done, total| match step {
        CopyStep::Copying => copying(done, total),
        CopyStep::Rebuilding => rebuilding(done, total),
        CopyStep::Verifying => verifying(done, total),
    };
    let source = Whereabouts { store: from.url(), journals: &of_from };
    let target = Whereabouts { store: to.url(), journals: &of_to };
    let copied = sessiond_store::copy(source, target, &mut progress).await;
    let copied = copied.with_context(|| format!("{from} was not copied to {to}"))?;
    print::document(&said(&from, &to, &copied))
}

fn said(from: &Place, to: &Place, copied: &Copied) -> String {
    let Copied { report, sessions, blocks } = copied;
    let kinds: Vec<_> =
        sessions.iter().map(|(kind, count)| format!("{} {count}", shown::line(kind))).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    let key = from.key_file();
    let its = if key.exists() { format!(", {}", key.display()) } else { String::new() };
    let told = match to {
        Place::Files(files) => format!("is looked for at {}", files.key_file().display()),
        Place::Server(_) => "is named with --secret-key-file".to_owned(),
    };
    format!(
        "copied: {} events in {} streams, {} sessions{kinds}, {blocks} blocks of log lines and recordings\n\
         verified: the log ends at position {}, commit hash {}\n\
         The secret key is no part of it: what is in {to} opens with the key that it had{its}, which {told}\n\
         What is in {from} was left as it was. Start the service on one of the two and never again on the other\n",
        report.events,
        report.streams,
        report.sessions,
        report.position,
        hex::encode(report.commit_hash),
    )
}

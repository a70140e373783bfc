//! `sessiond rotate-key`: another secret key. All that is sealed is sealed anew, and people are known by new digests, in one
//! transaction.

use std::collections::HashMap;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use sessiond_core::application::Application;
use sessiond_core::streams::Registered;
use sessiond_store::{Batch, Principal, Sealed, SealedFor, SideWrite, Store};
use uuid::Uuid;

use super::{Installation, key_file, place, print};
use crate::secret::{SecretKey, labels};

/// What a rotation came to.
#[derive(Default)]
struct Counts {
    secrets: u64,
    people: u64,
    erased: u64,
}

/// Replaces the secret key.
pub async fn run(installation: &Installation) -> anyhow::Result<()> {
    let place = installation.place()?;
    place.must_exist().await?;
    let _lock = place.lock()?;
    let contents = place.look().await?;
    let mut open = sessiond_store::open(place.url()).await.context("cannot open the database")?;
    let old = place::key(&place, &contents, &mut open).await?;
    let (path, new) = (place.key_file(), SecretKey::random());
    let batch = carried_over(open.store.as_ref(), &old, &new).await;
    let outcome = match batch {
        Ok((batch, counts)) => {
            new.write(&key_file::new_file(&path)).context("the key was not replaced")?;
            key_file::sync_directory(&path)?;
            open.writer.commit(&batch).await.map(|()| counts).map_err(anyhow::Error::from)
        }
        Err(error) => Err(error),
    };
    open.store.close().await;
    open.writer.close().await?;
    let counts = match outcome {
        Ok(counts) => counts,
        Err(error) => {
            // What did not come to a commit has left the new key; where even that is not known, the next start settles it.
            let known = sessiond_store::look(place.url()).await?.key_check;
            key_file::settle(&path, known)?;
            return Err(error.context("the key was not replaced"));
        }
    };
    let kept = key_file::take_the_place(&path)?;
    let Counts { secrets, people, erased } = counts;
    let mut text = format!(
        "{} holds another key: {secrets} secrets are sealed with it, and {people} people are known by it\n",
        path.display()
    );
    if let Some(kept) = kept {
        text += &format!(
            "backups from before open with the key before alone, which is kept in {}: delete it once there are none\n",
            kept.display()
        );
    }
    if erased > 0 {
        text +=
            &format!("{erased} people whose names were erased will not be recognised if they come back\n");
    }
    print::document(&text)
}

/// What is to be written so that another key takes the place of this one.
async fn carried_over(
    store: &dyn Store,
    old: &SecretKey,
    new: &SecretKey,
) -> anyhow::Result<(Batch, Counts)> {
    let (mut side, mut counts) = (vec![SideWrite::KeyCheck(new.check())], Counts::default());
    let loaded = store.load().await?;
    let applications: HashMap<_, _> =
        loaded.streams.iter().filter_map(Application::of).map(|one| (one.id, one)).collect();
    let mut all = store.all_sealed();
    while let Some(sealed) = all.try_next().await? {
        counts.secrets += 1;
        side.push(SideWrite::Reseal(resealed(&sealed, &applications, old, new)?));
    }
    let mut people = store.all_principals();
    while let Some(principal) = people.try_next().await? {
        if principal.subject.is_some() {
            counts.people += 1
        } else {
            counts.erased += 1
        }
        side.push(redigested(&principal, new));
    }
    Ok((Batch { side, ..Batch::default() }, counts))
}

/// A person's digest under another key. Whose name was erased can be recognised by none; what is kept of the old digest is a
/// digest of that, so that whoever has the old key cannot try names on it.
fn redigested(principal: &Principal, new: &SecretKey) -> SideWrite {
    let subject_digest = match &principal.subject {
        Some(subject) => new.subject_digest(&principal.issuer, subject),
        None => new.digest("erased subject", &[&principal.subject_digest]),
    };
    SideWrite::Redigest { number: principal.number, subject_digest, kept_id: principal.id() }
}

fn resealed(
    sealed: &Sealed,
    applications: &HashMap<Uuid, &Application>,
    old: &SecretKey,
    new: &SecretKey,
) -> anyhow::Result<Sealed> {
    let labels = seal_labels(sealed, |id| applications.get(&id).copied());
    let opened = labels.iter().find_map(|label| Some((label, old.open(label, &sealed.bytes).ok()?)));
    let Some((label, plain)) = opened else {
        bail!(
            "what is sealed for {} {} does not open with the key of this database: it is damaged. Set that secret anew, \
             or delete what it belongs to, and try again",
            word(sealed.kind),
            sealed.id
        )
    };
    Ok(Sealed { bytes: new.seal(label, &plain), ..sealed.clone() })
}

/// The labels that something may have been sealed with. Of an upstream that is not known there is none.
pub fn seal_labels<'a>(
    sealed: &Sealed,
    application: impl FnOnce(Uuid) -> Option<&'a Application>,
) -> Vec<String> {
    let id = sealed.id;
    match sealed.kind {
        // Webhooks and hooks keep their secrets in one place.
        SealedFor::Webhook | SealedFor::WebhookBefore => vec![labels::webhook(id), labels::hook(id)],
        SealedFor::Machine => vec![labels::machine(id)],
        SealedFor::McpSession => vec![labels::mcp_session(id)],
        SealedFor::Upstream => {
            let set = application(id).and_then(labels::upstream_set);
            set.map(|set| labels::upstream(id, &set)).into_iter().collect()
        }
    }
}

fn word(kind: SealedFor) -> &'static str {
    match kind {
        SealedFor::Webhook | SealedFor::WebhookBefore => "webhook or hook",
        SealedFor::Machine => "machine",
        SealedFor::McpSession => "MCP session",
        SealedFor::Upstream => "the upstream of application",
    }
}

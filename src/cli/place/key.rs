//! The secret key of an installation. What its database knows it by says whether a file holds the right one.

use anyhow::{bail, ensure};
use sessiond_store::{Batch, Contents, Open, Sealed, SideWrite, Store, Witnesses};

use super::Place;
use crate::cli::key_file;
use crate::cli::rotate::seal_labels;
use crate::secret::SecretKey;

/// Loads the key of this installation. The first start decides on one, and from then on no other is accepted.
pub async fn key(place: &Place, contents: &Contents, open: &mut Open) -> anyhow::Result<SecretKey> {
    let path = place.key_file();
    let file = path.display();
    key_file::settle(&path, contents.key_check)?;
    match (SecretKey::load(&path)?, contents.key_check) {
        (Some(key), Some(check)) => {
            ensure!(
                key.check() == check,
                "{file} is not the secret key of {place}: what was sealed with the other key would not open, and people \
                 would not be recognised. Put the key back that belongs to this database"
            );
            Ok(key)
        }
        (Some(key), None) => {
            ensure!(
                !contents.events || fits(&key, open.store.as_ref()).await?,
                "{file} opens nothing of what is sealed in {place}: it is not its secret key. Put the key back that \
                 belongs to this database"
            );
            set_key_check(open, &key).await?;
            Ok(key)
        }
        (None, _) if !contents.events && place.makes_key() => {
            let key = SecretKey::random();
            set_key_check(open, &key).await?;
            key.write(&path)?;
            Ok(key)
        }
        (None, _) => bail!(
            "the secret key file {file} is missing. Without it nothing opens that is sealed in {place}, and nobody is \
             recognised: put it back, or say with --secret-key-file where it is"
        ),
    }
}

/// Records the value by which the key of this installation is recognised.
async fn set_key_check(open: &mut Open, key: &SecretKey) -> anyhow::Result<()> {
    let side = vec![SideWrite::KeyCheck(key.check())];
    Ok(open.writer.commit(&Batch { side, ..Batch::default() }).await?)
}

/// Whether a key fits the sealed secrets of a store from a release that did not yet record a key's check value; true if
/// there are none.
async fn fits(key: &SecretKey, store: &dyn Store) -> anyhow::Result<bool> {
    let Witnesses { people, sealed } = store.witnesses().await?;
    let known = |(issuer, subject, digest): &(String, String, [u8; 32])| {
        key.subject_digest(issuer, subject) == *digest
    };
    let opens = |sealed: &Sealed| {
        seal_labels(sealed, |_| None).iter().any(|label| key.open(label, &sealed.bytes).is_ok())
    };
    let nothing = people.is_empty() && sealed.is_empty();
    Ok(nothing || people.iter().any(known) || sealed.iter().any(opens))
}

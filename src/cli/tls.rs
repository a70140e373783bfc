//! Encryption by rustls: the certificate as it is in its files, read again when asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::secret::exposure;

/// The certificate in force, and where it came from.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads what the configuration names; `None` if it names nothing.
    pub fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        match (&config.tls_certificate, &config.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let current = RwLock::new(load(certificate, key)?);
                Ok(Some(Self { certificate: certificate.clone(), key: key.clone(), current }))
            }
            _ => anyhow::bail!("--tls-certificate and --tls-key go together: name both, or neither"),
        }
    }

    /// Reads the files again: new connections get the new certificate, open ones keep theirs. If anything is wrong with the
    /// files, all stays as it was.
    pub fn reload(&self) -> anyhow::Result<()> {
        let new = load(&self.certificate, &self.key)?;
        *self.current.write() = new;
        Ok(())
    }

    /// What accepts connections from now on.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().clone().into()
    }
}

fn load(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let cannot = |path: &Path| format!("cannot read {}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| cannot(certificate))?;
    anyhow::ensure!(!chain.is_empty(), "there is no certificate in {}", certificate.display());
    let secret = PrivateKeyDer::from_pem_file(key).with_context(|| cannot(key))?;
    if let Some(fault) = std::fs::metadata(key).ok().and_then(|metadata| exposure(&metadata)) {
        tracing::warn!("the certificate's private key {} {fault}", key.display());
    }
    // Named rather than the process's default: no other may slip in with a dependency.
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("{} and {} do not fit", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

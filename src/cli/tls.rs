//! TLS by rustls, with a certificate from files that are read again on request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, TimeDelta};
use metrics::gauge;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sessiond_core::Time;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Config;
use crate::meter;
use crate::secret::exposure;

/// The certificate in force, and where it came from.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

/// A certificate as it was read.
struct Current {
    config: Arc<ServerConfig>,
    ends_at: Time,
}

impl Tls {
    /// Reads what the configuration names; `None` if it names nothing.
    pub fn new(config: &Config, now: Time) -> anyhow::Result<Option<Self>> {
        match (&config.tls_certificate, &config.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let current = RwLock::new(load(certificate, key, now)?);
                Ok(Some(Self { certificate: certificate.clone(), key: key.clone(), current }))
            }
            _ => anyhow::bail!("--tls-certificate and --tls-key go together: name both, or neither"),
        }
    }

    /// Reads the files again: new connections get the new certificate, open ones keep theirs. If anything is wrong with the
    /// files, all stays as it was.
    pub fn reload(&self, now: Time) -> anyhow::Result<()> {
        let new = load(&self.certificate, &self.key, now)?;
        *self.current.write() = new;
        self.measure();
        Ok(())
    }

    /// Sets the metric that says when the certificate in force ends.
    pub fn measure(&self) {
        gauge!(meter::CERTIFICATE_EXPIRY).set(self.current.read().ends_at.timestamp() as f64);
    }

    /// The acceptor for connections from now on.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().config.clone().into()
    }
}

/// How long before its end a certificate is warned of.
const SOON: TimeDelta = TimeDelta::days(14);

/// The time at which a certificate ends.
fn ends_at(certificate: &CertificateDer<'_>) -> anyhow::Result<Time> {
    let (_, certificate) = X509Certificate::from_der(certificate)?;
    let ends_at = certificate.validity().not_after.timestamp();
    DateTime::from_timestamp(ends_at, 0).context("the end of the certificate is not a time")
}

fn load(certificate: &Path, key: &Path, now: Time) -> anyhow::Result<Current> {
    let cannot = |path: &Path| format!("cannot read {}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| cannot(certificate))?;
    anyhow::ensure!(!chain.is_empty(), "there is no certificate in {}", certificate.display());
    let ends_at = ends_at(&chain[0]).with_context(|| cannot(certificate))?;
    let secret = PrivateKeyDer::from_pem_file(key).with_context(|| cannot(key))?;
    if let Some(fault) = std::fs::metadata(key).ok().and_then(|metadata| exposure(&metadata)) {
        tracing::warn!("the certificate's private key {} {fault}", key.display());
    }
    // The provider is named here, so that no dependency can bring in another as the process's default.
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("{} and {} do not fit", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if ends_at - now < SOON {
        tracing::warn!(%ends_at, "the certificate in {} ends soon, or has ended", certificate.display());
    }
    Ok(Current { config: Arc::new(config), ends_at })
}

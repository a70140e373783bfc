//! Whom to believe at the other end of an encrypted connection.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

/// The settings of TLS for connections to others. They trust the authorities that the system trusts, and those in the file
/// that `option` names.
pub fn tls(authorities: Option<&Path>, option: &str) -> anyhow::Result<ClientConfig> {
    let extra = authorities.map(|path| read(path, option)).transpose()?.unwrap_or_default();
    // The provider is named here, so that no dependency can bring in another as the process's default.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone())
        .with_context(|| format!("cannot set up whom to believe beside those in {option}"))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous() // the builder's word for any verifier but its own
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn read(path: &Path, option: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let cannot = || format!("cannot read {option} {}", path.display());
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).with_context(cannot)?;
    anyhow::ensure!(!found.is_empty(), "there is no certificate in {option} {}", path.display());
    Ok(found)
}

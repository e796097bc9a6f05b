//! TLS to a service: checked against the authority that its recipe names, or those that this machine trusts.

use std::sync::{Arc, OnceLock};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::wire::Stream;

/// Speaks TLS on a stream; `ca` is PEM. An error says why not in one line.
pub(super) async fn wrap(
    stream: Box<dyn Stream>,
    name: &str,
    ca: Option<&[u8]>,
) -> Result<Box<dyn Stream>, String> {
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("`{name}` is no name that a certificate can have; set `server_name`"))?;
    let config = match ca {
        Some(pem) => of_authority(pem)?,
        None => of_system()?,
    };
    match TlsConnector::from(config).connect(server, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(format!("TLS as `{name}`: {error}")),
    }
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let versions = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

fn of_authority(pem: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("`ca` of [service.api]: {error}"))?;
        roots.add(certificate).map_err(|error| format!("`ca` of [service.api]: {error}"))?;
    }
    if roots.is_empty() {
        return Err("`ca` of [service.api] holds no certificate".to_owned());
    }
    config(roots)
}

/// What this machine trusts, read once.
fn of_system() -> Result<Arc<ClientConfig>, String> {
    static SYSTEM: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let made = SYSTEM.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("this machine trusts no authority; name one as `ca` in [service.api]".to_owned());
        }
        config(roots)
    });
    made.clone()
}

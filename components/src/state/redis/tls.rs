//! TLS towards Redis: Dapr's `enableTLS`, `insecureSkipTLSVerify`, `clientCert` and `clientKey`.
//!
//! The certificate of a server must name the host that was connected to, and lead to one of the root certificates of
//! the system, as with Dapr, which has no option for others: those of the file system that components are loaded in,
//! in a container the image's and what is mounted into it (`/etc/ssl/certs` and its like). They are read once, before a
//! guest runs, which therefore has no say in them. `SSL_CERT_FILE` and `SSL_CERT_DIR` count in the environment of
//! this process, which is never the container's.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use super::fields;
use crate::properties::{InvalidProperty, Properties};
use crate::state::tls::{Trust, client_config, system_roots};

/// None without `enableTLS`.
pub(super) fn connector(properties: &Properties) -> Result<Option<TlsConnector>, InvalidProperty> {
    if !properties.flag(&fields::ENABLE_TLS) {
        return Ok(None);
    }
    let trust = if properties.flag(&fields::SKIP_VERIFY) { Trust::Anybody } else { Trust::SignedAndNamed(roots()?) };
    let builder = client_config(trust).map_err(InvalidProperty::Other)?;
    let config = match client_certificate(properties)? {
        None => builder.with_no_client_auth(),
        // What the error says may hold parts of the key.
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|_| InvalidProperty::Malformed {
            name: fields::CLIENT_KEY.name,
            expected: "the private key of `clientCert`, of RSA or ECDSA or Ed25519",
        })?,
    };
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

/// Of what the system has, that which can be read.
fn roots() -> Result<RootCertStore, InvalidProperty> {
    let roots = system_roots();
    if roots.is_empty() {
        let message = "`enableTLS` needs root certificates, and there are none in /etc/ssl/certs or its like";
        return Err(InvalidProperty::Other(message.to_owned()));
    }
    Ok(roots)
}

/// As with Dapr, one without the other counts as neither.
type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(properties: &Properties) -> Result<Option<ClientCertificate>, InvalidProperty> {
    let (Some(chain), Some(key)) = (properties.text(&fields::CLIENT_CERT), properties.text(&fields::CLIENT_KEY)) else {
        return Ok(None);
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap_or_default();
    if chain.is_empty() {
        return Err(InvalidProperty::Malformed { name: fields::CLIENT_CERT.name, expected: "certificates in PEM" });
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| InvalidProperty::Malformed { name: fields::CLIENT_KEY.name, expected: "a private key in PEM" })?;
    Ok(Some((chain, key)))
}

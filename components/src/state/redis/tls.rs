//! TLS towards Redis: Dapr's `enableTLS`, `insecureSkipTLSVerify`, `clientCert` and `clientKey`.
//!
//! The certificate of a server must name the host that was connected to, and lead to one of the root certificates of
//! the system, as with Dapr, which has no option for others: those of the file system that components are loaded in,
//! in a container the image's and what is mounted into it (`/etc/ssl/certs` and its like). They are read once, before a
//! guest runs, which therefore has no say in them. `SSL_CERT_FILE` and `SSL_CERT_DIR` count in the environment of
//! this process, which is never the container's.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::fields;
use crate::properties::{InvalidProperty, Properties};

/// None without `enableTLS`.
pub(super) fn connector(properties: &Properties) -> Result<Option<TlsConnector>, InvalidProperty> {
    if !properties.flag(&fields::ENABLE_TLS) {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidProperty::Other(error.to_string()))?;
    let builder = if properties.flag(&fields::SKIP_VERIFY) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
    } else {
        builder.with_root_certificates(roots()?)
    };
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
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
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

/// Takes the certificate of any server; that the server holds its key is still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

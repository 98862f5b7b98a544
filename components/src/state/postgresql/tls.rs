//! TLS, with the modes of libpq: <https://www.postgresql.org/docs/current/libpq-ssl.html>.
//!
//! The files that are named are read again for each connection, so that a certificate that was replaced counts from then on.
//! The system's root certificates are read once, before a guest runs, which therefore has no say in them.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::state::tls::{Trust, client_config, system_roots};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// How to connect: the first way, and the one to go where the server refuses that.
    pub(super) fn ways(self) -> (Negotiation, Option<Negotiation>) {
        match self {
            Self::Disable => (Negotiation::Disable, None),
            Self::Allow => (Negotiation::Disable, Some(Negotiation::Require)),
            Self::Prefer => (Negotiation::Prefer, Some(Negotiation::Disable)),
            Self::Require | Self::VerifyCa | Self::VerifyFull => (Negotiation::Require, None),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) mode: SslMode,
    pub(super) roots: Roots,
    /// `sslcert` and `sslkey`: who this is.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// Who vouches for the server.
#[derive(Clone, Debug)]
pub(super) enum Roots {
    Nobody,
    /// `sslrootcert`.
    File(PathBuf),
    /// As with Go's driver; libpq asks for `sslrootcert=system`.
    System(RootCertStore),
}

impl Roots {
    pub(super) fn of(mode: SslMode, root_certificate: Option<PathBuf>) -> Self {
        match (mode, root_certificate) {
            (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) | (SslMode::Require, None) => Self::Nobody,
            // As libpq and Go's driver: who names a root certificate wants it to count.
            (SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull, Some(file)) => Self::File(file),
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => Self::System(system_roots()),
        }
    }

    fn read(&self) -> Result<Option<RootCertStore>, TlsError> {
        match self {
            Self::Nobody => Ok(None),
            Self::System(roots) if roots.is_empty() => Err(TlsError::NoSystemRoots),
            Self::System(roots) => Ok(Some(roots.clone())),
            Self::File(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("sslrootcert", path)? {
                    roots.add(certificate).map_err(|error| unreadable("sslrootcert", path, &error))?;
                }
                Ok(Some(roots))
            }
        }
    }
}

/// Why there can be no TLS on this side.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{keyword}: cannot read {}: {reason}", path.display())]
    File { keyword: &'static str, path: PathBuf, reason: String },
    #[error("no certificate of the system can be read, and there is no sslrootcert")]
    NoSystemRoots,
    #[error("no certificates: {0}")]
    Certificates(String),
}

impl Tls {
    /// Reads the files, and takes its time: not for an async context.
    pub(super) fn connector(&self) -> Connector {
        Connector(self.client_config().map(MakeRustlsConnect::new))
    }

    fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let trust = match self.roots.read()? {
            None => Trust::Anybody,
            Some(roots) if self.mode == SslMode::VerifyFull => Trust::SignedAndNamed(roots),
            Some(roots) => Trust::Signed(roots),
        };
        let builder = client_config(trust).map_err(TlsError::Certificates)?;
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("sslcert", certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("sslkey", key, &error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::Certificates(error.to_string()))
    }
}

fn certificates(keyword: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    certificates.map_err(|error| unreadable(keyword, path, &error))
}

fn unreadable(keyword: &'static str, path: &Path, error: &dyn std::error::Error) -> TlsError {
    TlsError::File { keyword, path: path.to_owned(), reason: error.to_string() }
}

/// For the driver, which asks only where it comes to TLS: until then, unreadable files do not matter.
pub(super) struct Connector(Result<MakeRustlsConnect, TlsError>);

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = TlsError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, TlsError> {
        let connector = self.0.as_mut().map_err(|error| error.clone())?;
        let Ok(connect) = MakeTlsConnect::<Socket>::make_tls_connect(connector, host);
        Ok(connect)
    }
}

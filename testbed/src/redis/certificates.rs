//! An authority of a test's own, and what it signs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use tempfile::TempDir;

/// PEM files: `ca.pem`; `server.pem` and `server.key`, for 127.0.0.1; `client.pem` and `client.key`.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// # Panics
    /// They cannot be made or written.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("temporary folder");
        let authority = authority(&folder.path().display().to_string());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("PEM file");
        write("ca.pem", &authority.pem());
        for (name, usage) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let key = KeyPair::generate().expect("key");
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &authority).expect("signature");
            write(&format!("{name}.pem"), &certificate.pem());
            write(&format!("{name}.key"), &key.serialize_pem());
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The content of a file.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn pem(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("PEM file")
    }

    /// Of a `redis-server` that serves TLS, and speaks it to other servers, to which it is a client.
    pub(super) fn arguments(&self) -> Vec<String> {
        let files = [
            ("--tls-cert-file", "server.pem"),
            ("--tls-key-file", "server.key"),
            ("--tls-client-cert-file", "client.pem"),
            ("--tls-client-key-file", "client.key"),
            ("--tls-ca-cert-file", "ca.pem"),
        ];
        let path = |name| self.path(name).to_str().expect("UTF-8").to_owned();
        let files = files.map(|(option, name)| [option.to_owned(), path(name)]);
        let switches = ["--tls-auth-clients", "--tls-replication", "--tls-cluster"];
        let switches = switches.map(|option| [option.to_owned(), "yes".to_owned()]);
        files.into_iter().chain(switches).flatten().collect()
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

/// Authorities of one name would be taken for each other.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("signature")
}

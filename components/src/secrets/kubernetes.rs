//! `secretstores.kubernetes`: the Secrets that are mounted into the container.
//!
//! Dapr's store of this name asks the API of the cluster, for which a pod needs an account with rights to Secrets. Here
//! a pod has what its own specification mounts, and nothing has to be granted:
//!
//! ```yaml
//! volumeMounts:
//! - {name: redis, mountPath: /var/run/secrets/dapr.wasm/redis, readOnly: true}
//! volumes:
//! - {name: redis, secret: {secretName: redis}}
//! ```
//!
//! Each folder in `secretsFolder`, a field that Dapr's store does not have, is a secret, each file in that a key, as
//! Kubernetes mounts a Secret; one projected volume with all of them does as well. Files are read at each call, so that
//! a guest gets what was changed. A value that is no UTF-8 text is left out, as is any file or folder with a name that
//! no Secret and no key could have. Dapr's `defaultNamespace` and `kubeconfigPath`, and `namespace` in a request, mean
//! nothing here: a pod mounts Secrets of its own namespace.
//!
//! In Kubernetes there is a store of this type with the name `kubernetes` without any component, as in Dapr.
//!
//! Source: dapr/components-contrib `secretstores/kubernetes/kubernetes.go`.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use host_abi::error::{Error, ErrorClass};
use host_abi::secrets::Secret;

use super::{Budget, NONBLOCK, SecretSource};
use crate::app::App;
use crate::field::{Description, Field, fields};
use crate::properties::{InvalidProperty, Properties};

const DEFAULT_FOLDER: &str = "/var/run/secrets/dapr.wasm";

fields! {
    FIELDS {
        SECRETS_FOLDER = Field::text(
            "secretsFolder",
            "a folder in the container, which need not be there yet: each folder in it is a secret, each file in that \
             a key",
        ).or(DEFAULT_FOLDER);
    }
}

pub const DESCRIPTION: Description = Description {
    about: "The Secrets that are mounted into the container. No account needs rights to Secrets. In Kubernetes there \
            is one with the name `kubernetes` without any component, and components that name no store mean it.",
    fields: FIELDS,
    without_effect: &["defaultNamespace", "kubeconfigPath"],
};

/// What a name of a Secret or of a key may be long in Kubernetes.
const MAX_NAME: usize = 253;

struct MountedSecrets {
    folder: PathBuf,
}

/// The folder need not be there yet.
///
/// # Errors
/// None.
pub fn construct(properties: &Properties, _: &App) -> Result<Arc<dyn SecretSource>, InvalidProperty> {
    let folder = properties.required(&SECRETS_FOLDER)?.into();
    Ok(Arc::new(MountedSecrets { folder }))
}

impl SecretSource for MountedSecrets {
    fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        if !is_name(name) {
            return Ok(None);
        }
        read_secret(&self.open()?, name, &mut Budget::new()).map_err(unreadable)
    }

    fn all(&self) -> Result<BTreeMap<String, Secret>, Error> {
        read_all(&self.open()?).map_err(unreadable)
    }
}

impl MountedSecrets {
    fn open(&self) -> Result<Dir, Error> {
        Dir::open_ambient_dir(&self.folder, ambient_authority()).map_err(|error| {
            let message = format!(
                "Secrets are to be mounted below `secretsFolder` (by default {DEFAULT_FOLDER}), each in a folder of its \
                 name: {error}"
            );
            Error::new(ErrorClass::Unavailable, message)
        })
    }
}

fn read_all(folder: &Dir) -> io::Result<BTreeMap<String, Secret>> {
    let mut budget = Budget::new();
    let mut secrets = BTreeMap::new();
    for name in names(folder)? {
        if let Some(secret) = read_secret(folder, &name, &mut budget)? {
            budget.take(name.len())?;
            secrets.insert(name, secret);
        }
    }
    Ok(secrets)
}

/// None where there is no folder of that name.
fn read_secret(folder: &Dir, name: &str, budget: &mut Budget) -> io::Result<Option<Secret>> {
    let inside = |error| inside(name, &error);
    let Some(secret) = open_secret(folder, name).map_err(inside)? else { return Ok(None) };
    let mut values = Secret::new();
    for key in names(&secret).map_err(inside)? {
        let value = read_value(&secret, &key, budget).map_err(|error| inside(self::inside(&key, &error)))?;
        if let Some(value) = value {
            values.insert(key, value.into());
        }
    }
    Ok(Some(values))
}

/// What links lead to lies in `folder`, or is not opened. Kubernetes has each key be a link through `..data`, a link
/// too, which it turns when the Secret changes: followed once, so that all values are of one time.
fn open_secret(folder: &Dir, name: &str) -> io::Result<Option<Dir>> {
    match folder.open_dir(format!("{name}/..data")).or_else(|_| folder.open_dir(name)) {
        Ok(secret) => Ok(Some(secret)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// None where it is a folder, or no text.
fn read_value(secret: &Dir, key: &str, budget: &mut Budget) -> io::Result<Option<String>> {
    budget.take(key.len())?;
    let file = secret.open_with(key, OpenOptions::new().read(true).custom_flags(NONBLOCK))?;
    if file.metadata()?.is_dir() {
        return Ok(None);
    }
    Ok(String::from_utf8(budget.read(&mut file.into_std())?).ok())
}

/// Of everything in a folder but what is Kubernetes' own.
fn names(folder: &Dir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in folder.entries()? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| is_name(name)));
    }
    Ok(names)
}

/// What Kubernetes takes as the name of a key; names of Secrets are fewer. Its own files begin with `..`.
fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let special = name.is_empty() || name == "." || name.starts_with("..") || name.len() > MAX_NAME;
    !special && name.bytes().all(known)
}

fn inside(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorClass::Unavailable, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubernetes_takes_as_a_name_is_looked_for() {
        for name in ["redis", "tls.crt", "a_b-C.0", ".dockerconfigjson"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for name in ["", ".", "..", "..data", "../redis", "a/b", "/etc", "a b", "a\0", "ключ", &long] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}

//! Secret stores, asked by a guest.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use anyhow::ensure;
use components::{App, Registry};
use host_abi::error::ErrorClass;
use host_abi::secrets::SecretStore;

use crate::guest::{Ended, Program, Subject};
use crate::runner::{Case, cases};

const SECRETS: Program = Program::Rust("secrets");

/// What every case asks: three secrets, of which the guest may not have one.
const CONTENT: &str = r#"{"greeting": "hello", "login": {"user": "u", "password": "p ключ"}, "hidden": "h"}"#;

pub(super) fn cases() -> Vec<Case> {
    cases![
        "secrets", SECRETS;
        a_secret_comes_back_with_all_its_keys,
        all_secrets_come_back_but_the_denied,
        a_denied_secret_is_refused,
        a_missing_secret_is_not_found,
        an_empty_name_of_a_secret_is_refused,
        an_unknown_secret_store_is_refused_by_its_name,
    ]
}

/// The store `vault`, which is read when it is made.
fn stores() -> anyhow::Result<BTreeMap<String, Arc<dyn SecretStore>>> {
    let folder = tempfile::tempdir()?;
    let secrets = folder.path().join("secrets.json");
    fs::write(&secrets, CONTENT)?;
    let manifest = format!(
        "apiVersion: dapr.io/v1alpha1\n\
         kind: Component\n\
         metadata: {{name: vault}}\n\
         spec:\n  \
           type: secretstores.local.file\n  \
           version: v1\n  \
           metadata: [{{name: secretsFile, value: {secrets:?}}}, {{name: multiValued, value: true}}]\n\
         ---\n\
         apiVersion: dapr.io/v1alpha1\n\
         kind: Configuration\n\
         metadata: {{name: scopes}}\n\
         spec: {{secrets: {{scopes: [{{storeName: vault, deniedSecrets: [hidden]}}]}}}}\n"
    );
    let file = folder.path().join("vault.yaml");
    fs::write(&file, manifest)?;
    Ok(Registry::builtin().load(&[file], &App::default())?.secret_stores)
}

async fn run(subject: &Subject, words: &[&str]) -> anyhow::Result<Ended> {
    let guest = subject.guest()?.args(&[&["secrets"], words].concat());
    guest.secret_stores(stores()?).start().await
}

/// The guest must print an error of this class and end.
async fn refuse(subject: &Subject, words: &[&str], class: ErrorClass) -> anyhow::Result<()> {
    let ended = run(subject, words).await?;
    let refused = ended.exit_code()? == 1 && ended.stderr().starts_with(&format!("{class}: component vault: "));
    ensure!(refused && ended.stdout.is_empty(), "{}: {ended:?}, not {class}", words.join(" "));
    Ok(())
}

async fn a_secret_comes_back_with_all_its_keys(subject: Subject) -> anyhow::Result<()> {
    let printed = run(&subject, &["get", "vault", "login"]).await?.success()?;
    ensure!(printed == "password=p ключ\nuser=u\n".as_bytes(), "{printed:?}");
    let printed = run(&subject, &["get", "vault", "greeting"]).await?.success()?;
    ensure!(printed == b"greeting=hello\n", "{printed:?}");
    Ok(())
}

async fn all_secrets_come_back_but_the_denied(subject: Subject) -> anyhow::Result<()> {
    let printed = run(&subject, &["list", "vault"]).await?.success()?;
    let expected = "greeting: greeting=hello\nlogin: password=p ключ\nlogin: user=u\n";
    ensure!(printed == expected.as_bytes(), "{printed:?}");
    Ok(())
}

async fn a_denied_secret_is_refused(subject: Subject) -> anyhow::Result<()> {
    refuse(&subject, &["get", "vault", "hidden"], ErrorClass::PermissionDenied).await
}

async fn a_missing_secret_is_not_found(subject: Subject) -> anyhow::Result<()> {
    refuse(&subject, &["get", "vault", "missing"], ErrorClass::NotFound).await
}

async fn an_empty_name_of_a_secret_is_refused(subject: Subject) -> anyhow::Result<()> {
    refuse(&subject, &["get", "vault", ""], ErrorClass::InvalidArgument).await
}

async fn an_unknown_secret_store_is_refused_by_its_name(subject: Subject) -> anyhow::Result<()> {
    for words in [&["get", "another", "login"][..], &["list", "another"]] {
        let ended = run(&subject, words).await?;
        let message = "not-found: no secret store \"another\"; configured: vault\n";
        ensure!(ended.exit_code()? == 1 && ended.stderr() == message, "{ended:?}");
    }
    Ok(())
}

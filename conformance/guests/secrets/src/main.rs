//! A program that asks a Dapr secret store and prints what it gets.

use std::env;
use std::process;

use dapr::secrets::secret_store::{self as store, Error, GetRequest};

wit_bindgen::generate!({ path: "../../../host-abi/wit", world: "dapr:guest/command-guest", generate_all });

const USAGE: &str = "\
usage: secrets get NAME KEY      the secret KEY of the store NAME: a line `key=value` for each of its values
       secrets list NAME         every secret of the store NAME: lines `secret: key=value`";

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["get", name, key] => get(name, key),
        ["list", name] => list(name),
        _ => {
            eprintln!("{USAGE}");
            process::exit(2);
        }
    };
    if let Err(error) = result {
        eprintln!("{}", explain(error));
        process::exit(1);
    }
}

fn get(name: &str, key: &str) -> Result<(), Error> {
    for (key, value) in store::get(name, &GetRequest { key: key.to_owned(), metadata: None })? {
        println!("{key}={value}");
    }
    Ok(())
}

fn list(name: &str) -> Result<(), Error> {
    for (secret, values) in store::bulk_get(name, None)? {
        for (key, value) in values {
            println!("{secret}: {key}={value}");
        }
    }
    Ok(())
}

/// As the original interface of state stores writes its errors.
fn explain(error: Error) -> String {
    let (class, message) = match error {
        Error::NotFound(message) => ("not-found", message),
        Error::InvalidArgument(message) => ("invalid-argument", message),
        Error::Unavailable(message) => ("unavailable", message),
        Error::PermissionDenied(message) => ("permission-denied", message),
        Error::Internal(message) => ("internal", message),
    };
    format!("{class}: {message}")
}

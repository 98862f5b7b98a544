//! A program that reads and writes a Dapr state store. Without arguments it sets `z` in the store `state`
//! and reads it back.

mod options;
mod several;

use std::env;
use std::io::{self, Read, Write};
use std::process;

use dapr::state::state_interface::{self as store, DeleteRequest, GetOptions, GetRequest, SetRequest, WriteOptions};
use options::{Command, Options};

wit_bindgen::generate!({ path: "../../../host-abi/wit", world: "dapr:guest/command-guest", generate_all });

const USAGE: &str = "\
usage: state                      sets z to `value`, reads it back, prints it
       state get KEY [OPTION..]
       state set KEY [VALUE] [OPTION..]     without VALUE: standard input
       state delete KEY [OPTION..]
       state bulk-get KEY.. [OPTION..]
       state bulk-set KEY=VALUE[#ETAG].. [OPTION..]
       state bulk-delete KEY[#ETAG].. [OPTION..]
       state transact set:KEY=VALUE[#ETAG]|delete:KEY[#ETAG].. [OPTION..]
  --store NAME                    default: state
  --etag ETAG
  --first-write, --last-write
  --consistency eventual|strong
  --ttl SECONDS                   the same as --metadata ttlInSeconds=SECONDS
  --metadata NAME=VALUE
  --content-type TYPE
  --show-etag                     get: prints a line `etag: ...` as well, if there is one
  --show-metadata                 get: lines `content-type: ...` and `metadata: NAME=VALUE`";

fn main() {
    let options = Options::parse(env::args().skip(1)).unwrap_or_else(|error| {
        eprintln!("state: {error}\n{USAGE}");
        process::exit(2);
    });
    if let Err(error) = run(options) {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn run(options: Options) -> Result<(), String> {
    match options.command {
        Command::Demo => {
            set("z", b"value", &options)?;
            get("z", &options)
        }
        Command::Get { ref key } => get(key, &options),
        Command::Set { ref key, value: Some(ref value) } => set(key, value.as_bytes(), &options),
        Command::Set { ref key, value: None } => set(key, &standard_input()?, &options),
        Command::Delete { ref key } => delete(key, &options),
        Command::BulkGet { ref keys } => several::bulk_get(keys, &options),
        Command::BulkWrite { ref writes } => several::bulk_write(writes, &options),
        Command::Transact { ref writes } => several::transact(writes, &options),
    }
}

fn standard_input() -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(|error| format!("standard input: {error}"))?;
    Ok(bytes)
}

fn get(key: &str, options: &Options) -> Result<(), String> {
    let response = store::get(&options.store, &get_request(key, options))?;
    let mut lines = response.data;
    lines.push(b'\n');
    if let (true, Some(etag)) = (options.show_etag, response.etag) {
        lines.extend(format!("etag: {etag}\n").into_bytes());
    }
    if options.show_metadata {
        if let Some(content_type) = response.content_type {
            lines.extend(format!("content-type: {content_type}\n").into_bytes());
        }
        for (name, value) in response.metadata.unwrap_or_default() {
            lines.extend(format!("metadata: {name}={value}\n").into_bytes());
        }
    }
    io::stdout().write_all(&lines).map_err(|error| format!("standard output: {error}"))
}

fn set(key: &str, value: &[u8], options: &Options) -> Result<(), String> {
    store::set(&options.store, &set_request(key, value, options)).map(drop)
}

fn delete(key: &str, options: &Options) -> Result<(), String> {
    store::delete(&options.store, &delete_request(key, options)).map(drop)
}

fn get_request(key: &str, options: &Options) -> GetRequest {
    GetRequest {
        key: key.to_owned(),
        metadata: options.metadata(),
        options: GetOptions { consistency: options.consistency },
    }
}

fn set_request(key: &str, value: &[u8], options: &Options) -> SetRequest {
    SetRequest {
        key: key.to_owned(),
        value: value.to_owned(),
        etag: options.etag.clone(),
        metadata: options.metadata(),
        options: write_options(options),
        content_type: options.content_type.clone(),
    }
}

fn delete_request(key: &str, options: &Options) -> DeleteRequest {
    DeleteRequest {
        key: key.to_owned(),
        etag: options.etag.clone(),
        metadata: options.metadata(),
        options: write_options(options),
    }
}

fn write_options(options: &Options) -> WriteOptions {
    WriteOptions { concurrency: options.concurrency, consistency: options.consistency }
}

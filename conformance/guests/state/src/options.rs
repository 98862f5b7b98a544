//! The command line.

use crate::dapr::state::state_interface::{Concurrency, Consistency};

pub enum Command {
    /// Sets `z` and reads it back.
    Demo,
    Get {
        key: String,
    },
    Set {
        key: String,
        value: Option<String>,
    },
    Delete {
        key: String,
    },
    BulkGet {
        keys: Vec<String>,
    },
    BulkWrite {
        writes: Vec<Write>,
    },
    Transact {
        writes: Vec<Write>,
    },
}

/// One of several writes.
pub enum Write {
    Set { key: String, value: String, etag: Option<String> },
    Delete { key: String, etag: Option<String> },
}

pub struct Options {
    pub command: Command,
    pub store: String,
    pub etag: Option<String>,
    pub concurrency: Concurrency,
    pub consistency: Consistency,
    metadata: Vec<(String, String)>,
    pub content_type: Option<String>,
    pub show_etag: bool,
    pub show_metadata: bool,
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            command: Command::Demo,
            store: "state".to_owned(),
            etag: None,
            concurrency: Concurrency::Unspecified,
            consistency: Consistency::Unspecified,
            metadata: Vec::new(),
            content_type: None,
            show_etag: false,
            show_metadata: false,
        };
        let mut words = Vec::new();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--store" => options.store = value()?,
                "--etag" => options.etag = Some(value()?),
                "--first-write" => options.concurrency = Concurrency::FirstWrite,
                "--last-write" => options.concurrency = Concurrency::LastWrite,
                "--consistency" => options.consistency = parse_consistency(&value()?)?,
                "--ttl" => options.metadata.push(("ttlInSeconds".to_owned(), value()?)),
                "--metadata" => options.metadata.push(parse_pair(&value()?)?),
                "--content-type" => options.content_type = Some(value()?),
                "--show-etag" => options.show_etag = true,
                "--show-metadata" => options.show_metadata = true,
                option if option.starts_with("--") => {
                    return Err(format!("no such option: {option}"));
                }
                _ => words.push(argument),
            }
        }
        options.command = parse_command(words)?;
        Ok(options)
    }

    /// What a request carries: nothing at all, rather than an empty list, where no metadata was given.
    pub fn metadata(&self) -> Option<Vec<(String, String)>> {
        (!self.metadata.is_empty()).then(|| self.metadata.clone())
    }
}

fn parse_command(words: Vec<String>) -> Result<Command, String> {
    let mut words = words.into_iter();
    let Some(name) = words.next() else {
        return Ok(Command::Demo);
    };
    match name.as_str() {
        "bulk-get" => return Ok(Command::BulkGet { keys: words.collect() }),
        "bulk-set" => return Ok(Command::BulkWrite { writes: words.map(parse_set).collect::<Result<_, _>>()? }),
        "bulk-delete" => return Ok(Command::BulkWrite { writes: words.map(parse_delete).collect() }),
        "transact" => return Ok(Command::Transact { writes: words.map(parse_write).collect::<Result<_, _>>()? }),
        _ => {}
    }
    let key = words.next().ok_or_else(|| format!("{name} needs a key"))?;
    let command = match name.as_str() {
        "get" => Command::Get { key },
        "set" => Command::Set { key, value: words.next() },
        "delete" => Command::Delete { key },
        _ => return Err(format!("no such command: {name}")),
    };
    match words.next() {
        Some(word) => Err(format!("one word too many: {word}")),
        None => Ok(command),
    }
}

fn parse_write(word: String) -> Result<Write, String> {
    match word.split_once(':') {
        Some(("set", word)) => parse_set(word.to_owned()),
        Some(("delete", word)) => Ok(parse_delete(word.to_owned())),
        _ => Err(format!("neither set:KEY=VALUE nor delete:KEY: {word}")),
    }
}

fn parse_set(word: String) -> Result<Write, String> {
    let (word, etag) = split_etag(word);
    let (key, value) = parse_pair(&word)?;
    Ok(Write::Set { key, value, etag })
}

fn parse_delete(word: String) -> Write {
    let (key, etag) = split_etag(word);
    Write::Delete { key, etag }
}

fn split_etag(word: String) -> (String, Option<String>) {
    match word.rsplit_once('#') {
        Some((word, etag)) => (word.to_owned(), Some(etag.to_owned())),
        None => (word, None),
    }
}

fn parse_consistency(name: &str) -> Result<Consistency, String> {
    match name {
        "eventual" => Ok(Consistency::Eventual),
        "strong" => Ok(Consistency::Strong),
        _ => Err(format!("no such consistency: {name}")),
    }
}

fn parse_pair(pair: &str) -> Result<(String, String), String> {
    let (name, value) = pair.split_once('=').ok_or_else(|| format!("not NAME=VALUE: {pair}"))?;
    Ok((name.to_owned(), value.to_owned()))
}

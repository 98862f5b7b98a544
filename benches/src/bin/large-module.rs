//! `large-module FILE MEGABYTES`: writes a program that prints `hi` and is that large.

use std::env;
use std::fs;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let (file, megabytes) = match &words[..] {
        [file, megabytes] => (file, megabytes.parse::<usize>()),
        _ => return usage(),
    };
    let Ok(megabytes @ 1..=400) = megabytes else { return usage() };
    match fs::write(file, benches::large_module(megabytes * 1_000_000)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: large-module FILE MEGABYTES (1 to 400)");
    ExitCode::from(2)
}

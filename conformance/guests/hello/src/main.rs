//! A plain WASI program: each command shows one thing that every host of WASI preview 1 provides.

use std::env;
use std::error::Error;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::hint;
use std::io;
use std::process;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const USAGE: &str = "\
usage: hello [COMMAND]
  echo WORD..      env               cat FILE..      write FILE TEXT
  ls DIR           stdin             stderr TEXT     clock
  random           sleep SECONDS     daemon          exit CODE
  spin             trap              allocate MIB";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Err(error) = run(&words) {
        eprintln!("hello: {error}");
        process::exit(1);
    }
}

fn run(words: &[&str]) -> Result<(), Box<dyn Error>> {
    match words {
        [] => println!("Hello from WASM!"),
        ["echo", words @ ..] => println!("{}", words.join(" ")),
        ["env"] => print_environment(),
        ["cat", files @ ..] => files.iter().try_for_each(|file| cat(file))?,
        ["write", file, text] => fs::write(file, text).map_err(|error| format!("{file}: {error}"))?,
        ["ls", directory] => list(directory).map_err(|error| format!("{directory}: {error}"))?,
        ["stdin"] => io::copy(&mut io::stdin(), &mut io::stdout()).map(drop)?,
        ["stderr", text] => eprintln!("{text}"),
        ["clock"] => print_clocks()?,
        ["random"] => print_random_numbers(),
        ["sleep", seconds] => thread::sleep(Duration::try_from_secs_f64(seconds.parse()?)?),
        ["daemon"] => print_a_line_each_second(),
        ["exit", code] => process::exit(code.parse()?),
        ["spin"] => spin(),
        ["trap"] => process::abort(),
        ["allocate", mebibytes] => hold_memory(mebibytes.parse()?),
        _ => {
            eprintln!("{USAGE}");
            process::exit(2);
        }
    }
    Ok(())
}

fn print_environment() {
    let mut variables: Vec<(String, String)> = env::vars().collect();
    variables.sort();
    for (name, value) in variables {
        println!("{name}={value}");
    }
}

fn cat(file: &str) -> Result<(), String> {
    fs::File::open(file)
        .and_then(|mut file| io::copy(&mut file, &mut io::stdout()))
        .map(drop)
        .map_err(|error| format!("{file}: {error}"))
}

fn list(directory: &str) -> io::Result<()> {
    let mut names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        println!("{}", name.to_string_lossy());
    }
    Ok(())
}

/// The time of day, and how long a sleep of 10 ms took by the monotonic clock.
fn print_clocks() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    thread::sleep(Duration::from_millis(10));
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    println!("unix-seconds: {}", since_1970.as_secs());
    println!("slept-microseconds: {}", started.elapsed().as_micros());
    Ok(())
}

/// Two numbers made from the random keys that the host gave this process.
fn print_random_numbers() {
    let keys = RandomState::new();
    println!("{:016x} {:016x}", keys.hash_one(1), keys.hash_one(2));
}

fn print_a_line_each_second() -> ! {
    for second in 0_u64.. {
        println!("running for {second} s");
        thread::sleep(Duration::from_secs(1));
    }
    unreachable!("584 billion years have passed")
}

/// Writes to each page of that much memory, says so, and keeps it.
fn hold_memory(mebibytes: usize) -> ! {
    let memory: Vec<Vec<u8>> = (0..mebibytes).map(|_| vec![1; 1 << 20]).collect();
    println!("holding {} MiB", hint::black_box(&memory).len());
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

fn spin() -> ! {
    loop {
        hint::spin_loop();
    }
}

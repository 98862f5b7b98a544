//! Requests to an HTTP guest, and to a bare hyper server that gives the same answer.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::interruption;
use crate::machine::output;
use crate::node::{Node, Runtime};
use crate::report::{Goal, Line, Measurement, Unit, Value, median};

const BARE_SERVER: &str = "bare hyper";

/// Requests per second, and the time in which 99 of 100 are answered.
pub(crate) fn requests(rounds: usize, seconds: u32) -> Result<Vec<Measurement>> {
    let node = Node::start()?;
    let bare = BareServer::start()?;
    let mut servers = vec![Server::new(BARE_SERVER, bare.port)];
    for runtime in Runtime::engines() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        node.start_http(runtime, port)?;
        servers.push(Server::new(runtime.name(), port));
    }
    for round in 1..=rounds {
        eprintln!("requests for {seconds} s, {round} of {rounds}, to each server");
        for server in &mut servers {
            server.measure(seconds)?;
        }
    }
    let values = |number: fn(&Load) -> f64| -> Vec<Value> {
        servers
            .iter()
            .map(|server| Value { name: server.name, number: median(server.loads.iter().map(number)) })
            .collect()
    };
    let rate_goals = vec![Goal::at_least(0.5).of_baseline().on("wasmtime"), Goal::at_least(15_000.0).on("wasmer")];
    let title = "HTTP hello, a fresh instance for each request";
    Ok(vec![
        Measurement {
            title: format!("{title}: requests, median of {rounds}"),
            unit: Unit::PerSecond,
            lines: vec![Line::new("", values(|load| load.requests_per_second), rate_goals)],
        },
        Measurement {
            title: format!("{title}: p99, median of {rounds}"),
            unit: Unit::Milliseconds,
            lines: vec![Line::new("", values(|load| load.p99), vec![Goal::at_most(3.0).on("wasmtime")])],
        },
    ])
}

struct Server {
    name: &'static str,
    port: u16,
    loads: Vec<Load>,
}

/// What `wrk` saw.
struct Load {
    requests_per_second: f64,
    /// In milliseconds.
    p99: f64,
}

impl Server {
    fn new(name: &'static str, port: u16) -> Self {
        Self { name, port, loads: Vec::new() }
    }

    fn measure(&mut self, seconds: u32) -> Result<()> {
        interruption::check()?;
        let (duration, url) = (format!("-d{seconds}s"), format!("http://127.0.0.1:{}/", self.port));
        let printed = output(Command::new("wrk").args(["-t1", "-c50", "--latency", &duration, &url]))?;
        self.loads.push(Load::parse(&printed).with_context(|| format!("{}: {printed}", self.name))?);
        Ok(())
    }
}

impl Load {
    fn parse(printed: &str) -> Result<Self> {
        ensure!(!printed.contains("Non-2xx") && !printed.contains("Socket errors"), "requests failed");
        let value = |name: &str| printed.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        let p99 = value("99%").context("no 99% in the output of wrk")?;
        let rate = value("Requests/sec:").context("no rate in the output of wrk")?;
        Ok(Self { requests_per_second: rate.parse()?, p99: milliseconds(p99)? })
    }
}

/// A time as `wrk` writes it: `870.00us`, `1.50ms`, `1.01s`.
fn milliseconds(text: &str) -> Result<f64> {
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).context("a time without a unit")?);
    let factor = match unit {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => anyhow::bail!("{text:?} is not a time"),
    };
    Ok(number.parse::<f64>()? * factor)
}

/// The program `bare-hyper` of this crate, until it is dropped.
struct BareServer {
    process: Child,
    port: u16,
}

impl BareServer {
    fn start() -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("bare-hyper");
        let mut process = Command::new(&program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let stdout = process.stdout.take().context("a pipe")?;
        let mut server = Self { process, port: 0 };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        server.port = line.trim().parse().context("the port of bare-hyper")?;
        Ok(server)
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

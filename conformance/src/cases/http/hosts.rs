//! The host that a request names.

use anyhow::ensure;

use super::Server;
use super::limits::sent_until_closed;
use crate::guest::{Program, Subject};
use crate::runner::{Case, cases};

pub(super) fn cases() -> Vec<Case> {
    cases! {
        "http-hosts", Program::Rust("http");
        a_request_names_one_host_or_is_400,
        the_host_of_a_target_counts_more_than_the_header,
    }
}

async fn a_request_names_one_host_or_is_400(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let requests = [
        ("GET / HTTP/1.1", 400),
        ("GET http://a/ HTTP/1.1", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a", 400),
        ("GET / HTTP/1.1\r\nhost: a/b", 400),
        ("GET / HTTP/1.1\r\nhost: a, b", 400),
        ("GET / HTTP/1.1\r\nhost: user@a", 400),
        ("GET / HTTP/1.0\r\nhost: a\r\nhost: b", 400),
        ("GET / HTTP/1.0", 200),
        ("GET / HTTP/1.1\r\nhost:", 200),
        ("GET / HTTP/1.1\r\nhost: [::1]:8080", 200),
        ("GET / HTTP/1.1\r\nhost: some_name-1.example.:80", 200),
    ];
    for (head, status) in requests {
        let sent = sent_until_closed(server.address, &format!("{head}\r\nconnection: close\r\n\r\n")).await?;
        let answered = sent.split(' ').nth(1);
        ensure!(answered == Some(status.to_string().as_str()), "{head:?}: {sent}");
    }
    server.stop().await
}

async fn the_host_of_a_target_counts_more_than_the_header(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for (target, host) in [("http://target:81/inspect", "target:81"), ("http://user@target/inspect", "target")] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n");
        let sent = sent_until_closed(server.address, &request).await?;
        let hosts = sent.lines().filter_map(|line| line.strip_prefix("header: host: "));
        ensure!(hosts.eq([host]) && sent.contains("\nuri: /inspect\n"), "{target}: {sent}");
    }
    server.stop().await
}

//! `session`: values that the store forgets.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Example, groups};
use crate::cases::on_stores::on_stores;
use crate::runner::Case;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    on_stores! {
        groups("session"), Example;
        a_session_is_there_until_it_is_closed,
        one_of_several_opens_the_session,
        a_session_that_is_closed_while_it_is_touched_stays_closed,
        a_session_is_gone_when_its_time_is_over,
        a_session_that_was_touched_lives_on,
        what_is_no_command_prints_the_usage,
    }
}

const SHOW: &[&str] = &["show", "ann"];
const MISSING: &str = "there is no session/ann\n";

/// The line that is the token.
async fn open(example: &Example, seconds: &str) -> anyhow::Result<String> {
    let token = example.printed(&["open", "ann", seconds]).await?;
    let digits = token.strip_suffix('\n').context("no line")?;
    ensure!(digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{token:?}");
    Ok(token)
}

async fn a_session_is_there_until_it_is_closed(example: Example) -> anyhow::Result<()> {
    ensure!(example.refused(SHOW).await? == MISSING);
    let token = open(&example, "1000").await?;
    example.find_no_other_store(SHOW).await?;
    ensure!(example.printed(SHOW).await? == token);
    for _ in 0..2 {
        example.printed(&["close", "ann"]).await?;
        ensure!(example.refused(SHOW).await? == MISSING);
        ensure!(example.refused(&["touch", "ann", "1000"]).await? == MISSING);
    }
    ensure!(open(&example, "1000").await? != token);
    Ok(())
}

async fn one_of_several_opens_the_session(example: Example) -> anyhow::Result<()> {
    let mut tokens = Vec::new();
    for ended in example.at_once(&[["open", "ann", "1000"].as_slice(); 4]).await? {
        match ended.exit_code()? {
            0 => tokens.push(ended.stdout()),
            _ => ensure!(ended.stderr() == "session/ann is open already\n", "{ended:?}"),
        }
    }
    ensure!(tokens == [example.printed(SHOW).await?], "{tokens:?}");
    Ok(())
}

async fn a_session_that_is_closed_while_it_is_touched_stays_closed(example: Example) -> anyhow::Result<()> {
    let touch: &[&str] = &["touch", "ann", "1000"];
    for _ in 0..3 {
        open(&example, "1000").await?;
        for ended in example.at_once(&[touch, touch, &["close", "ann"], touch, touch]).await? {
            ensure!(ended.exit_code()? == 0 || ended.stderr() == MISSING, "{ended:?}");
        }
        ensure!(example.refused(SHOW).await? == MISSING);
    }
    Ok(())
}

async fn a_session_is_gone_when_its_time_is_over(example: Example) -> anyhow::Result<()> {
    open(&example, "2").await?;
    let opened = Instant::now();
    loop {
        let asked = opened.elapsed();
        let ended = example.guest(SHOW)?.start().await?;
        if ended.exit_code()? == 1 {
            ensure!(ended.stderr() == MISSING, "{ended:?}");
            break;
        }
        ensure!(asked < Duration::from_secs(3), "it was there after {asked:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    open(&example, "1000").await.map(drop)
}

async fn a_session_that_was_touched_lives_on(example: Example) -> anyhow::Result<()> {
    let token = open(&example, "2").await?;
    example.printed(&["touch", "ann", "1000"]).await?;
    // Time is all that there is to wait for.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    ensure!(example.printed(SHOW).await? == token);
    Ok(())
}

async fn what_is_no_command_prints_the_usage(example: Example) -> anyhow::Result<()> {
    let commands: [&[&str]; 6] =
        [&[], &["show"], &["open", "ann"], &["open", "ann", "0"], &["touch", "ann", "soon"], &["close", "ann", "bob"]];
    example.know_none_of(&commands).await
}

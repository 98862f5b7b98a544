//! `cart`: a transaction that moves a value from one key to another.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use super::{Example, groups};
use crate::cases::on_stores::on_stores;
use crate::guest::Ended;
use crate::runner::Case;

pub(super) fn cases() -> impl Iterator<Item = Case> {
    on_stores! {
        groups("cart"), Example;
        what_is_added_adds_up,
        additions_at_once_lose_nothing,
        a_checkout_moves_the_cart_to_an_order,
        one_of_several_checkouts_has_the_cart,
        nothing_is_lost_between_carts_and_orders,
        a_value_that_is_no_cart_is_left_alone,
        what_is_no_command_prints_the_usage,
    }
}

const ADD_AN_APPLE: &[&str] = &["add", "ann", "apple", "1"];
const CHECKOUT: &[&str] = &["checkout", "ann"];

type Cart = BTreeMap<String, u32>;

fn parse(cart: &str) -> anyhow::Result<Cart> {
    serde_json::from_str(cart).with_context(|| cart.to_owned())
}

fn cart<const ITEMS: usize>(items: [(&str, u32); ITEMS]) -> Cart {
    items.into_iter().map(|(item, count)| (item.to_owned(), count)).collect()
}

/// The key of the order.
async fn checkout(example: &Example) -> anyhow::Result<String> {
    let printed = example.printed(CHECKOUT).await?;
    Ok(printed.strip_suffix('\n').context("no line")?.to_owned())
}

async fn what_is_added_adds_up(example: Example) -> anyhow::Result<()> {
    ensure!(example.printed(&["show", "ann"]).await? == "{}\n");
    for (item, count) in [("apple", "2"), ("pear", "1"), ("apple", "3")] {
        example.printed(&["add", "ann", item, count]).await?;
    }
    ensure!(parse(&example.printed(&["show", "ann"]).await?)? == cart([("apple", 5), ("pear", 1)]));
    example.write("cart/bob", " { \"apple\" : 1 ,\n\"pear\":2 } ").await?;
    example.printed(&["add", "bob", "pear", "1"]).await?;
    ensure!(parse(&example.value("cart/bob").await?)? == cart([("apple", 1), ("pear", 3)]));
    example.find_no_other_store(&["show", "ann"]).await
}

async fn additions_at_once_lose_nothing(example: Example) -> anyhow::Result<()> {
    for ended in example.at_once(&[ADD_AN_APPLE; 8]).await? {
        ended.success()?;
    }
    ensure!(parse(&example.value("cart/ann").await?)? == cart([("apple", 8)]));
    Ok(())
}

async fn a_checkout_moves_the_cart_to_an_order(example: Example) -> anyhow::Result<()> {
    let mut orders = Vec::new();
    for count in [1, 2] {
        example.printed(&["add", "ann", "apple", &count.to_string()]).await?;
        let order = checkout(&example).await?;
        ensure!(order.starts_with("order/") && !orders.contains(&order), "{order:?} after {orders:?}");
        ensure!(parse(&example.value(&order).await?)? == cart([("apple", count)]));
        ensure!(example.value("cart/ann").await? == "{}");
        orders.push(order);
    }
    ensure!(example.refused(CHECKOUT).await? == "cart/ann is empty\n");
    Ok(())
}

/// The keys of the orders; the other checkouts found nothing in the cart.
fn orders(ended: Vec<Ended>) -> anyhow::Result<Vec<String>> {
    let mut orders = Vec::new();
    for ended in ended {
        match ended.exit_code()? {
            0 => orders.push(ended.stdout().trim_end().to_owned()),
            _ => ensure!(ended.stderr() == "cart/ann is empty\n", "{ended:?}"),
        }
    }
    Ok(orders)
}

async fn one_of_several_checkouts_has_the_cart(example: Example) -> anyhow::Result<()> {
    example.printed(ADD_AN_APPLE).await?;
    let orders = orders(example.at_once(&[CHECKOUT; 4]).await?)?;
    ensure!(orders.len() == 1, "{orders:?}");
    ensure!(parse(&example.value(&orders[0]).await?)? == cart([("apple", 1)]));
    Ok(())
}

async fn nothing_is_lost_between_carts_and_orders(example: Example) -> anyhow::Result<()> {
    let commands = [ADD_AN_APPLE, CHECKOUT, ADD_AN_APPLE].repeat(4);
    let mut checkouts = Vec::new();
    for (words, ended) in commands.iter().zip(example.at_once(&commands).await?) {
        if *words == CHECKOUT {
            checkouts.push(ended);
        } else {
            ended.success()?;
        }
    }
    let mut keys = orders(checkouts)?;
    keys.push("cart/ann".to_owned());
    let mut apples = 0;
    for key in keys {
        apples += parse(&example.value(&key).await?)?.get("apple").copied().unwrap_or_default();
    }
    ensure!(apples == 8, "{apples}");
    Ok(())
}

async fn a_value_that_is_no_cart_is_left_alone(example: Example) -> anyhow::Result<()> {
    let values = [
        "text",
        "[]",
        "{",
        "{}}",
        "{\"apple\":1",
        "{\"apple\":1,}",
        "{\"apple\"}",
        "{\"apple\":-1}",
        "{\"apple\":4294967296}",
        "{\"apple\":\"1\"}",
    ];
    for value in values {
        example.write("cart/ann", value).await?;
        let said = example.refused(ADD_AN_APPLE).await?;
        ensure!(said.starts_with("cart/ann is no cart"), "{value:?}: {said}");
        ensure!(example.value("cart/ann").await? == value);
    }
    example.write("cart/ann", "{\"apple\":4294967295}").await?;
    ensure!(example.refused(ADD_AN_APPLE).await? == "too many: apple\n");
    Ok(())
}

async fn what_is_no_command_prints_the_usage(example: Example) -> anyhow::Result<()> {
    let commands: [&[&str]; 7] = [
        &[],
        &["pay", "ann"],
        &["show"],
        &["add", "ann", "an apple", "1"],
        &["add", "ann", "", "1"],
        &["add", "ann", "apple", "0"],
        &["checkout", "ann", "bob"],
    ];
    example.know_none_of(&commands).await
}

//! A shopping cart in a Dapr state store: a JSON object at `cart/USER`, and, once it is checked out, the same at
//! `order/ID`. The order appears and the cart becomes empty in one transaction, so that nobody finds both or neither.
//!
//! An empty cart stays as `{}`. In Redis a write with an etag succeeds on a key that was deleted, so that of two
//! checkouts both would have an order, and an addition could bring back what was checked out.
//!
//! A store that becomes unavailable ends the program: whether its last write was done, `cart show` tells.

use std::collections::BTreeMap;
use std::process::ExitCode;

use store::{Failure, Item, Operation, Outcome, Store, positive, random_id, set_request};

const USAGE: &str = "\
usage: cart [--store NAME] add USER ITEM COUNT
       cart [--store NAME] checkout USER     prints the key of the order
       cart [--store NAME] show USER
An ITEM is of letters, digits, `-`, `_` and `.`";

/// How many there are of each item.
type Cart = BTreeMap<String, u32>;

fn main() -> ExitCode {
    store::run(USAGE, |store, words| match *words {
        ["add", user, item, count] if is_item(item) => add(store, &cart_key(user), item, positive(count)?),
        ["checkout", user] => checkout(store, &cart_key(user)),
        ["show", user] => show(store, &cart_key(user)),
        _ => Err(Failure::Usage),
    })
}

fn cart_key(user: &str) -> String {
    format!("cart/{user}")
}

fn is_item(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn add(store: &Store, key: &str, item: &str, count: u32) -> Result<(), Failure> {
    loop {
        let seen = store.get(key)?;
        let mut cart = parse(key, seen.as_ref())?;
        let sum = cart.get(item).copied().unwrap_or_default().checked_add(count);
        cart.insert(item.to_owned(), sum.ok_or_else(|| Failure::Other(format!("too many: {item}")))?);
        if let Outcome::Written = store.set(key, json(&cart), seen.as_ref())? {
            return Ok(());
        }
    }
}

fn checkout(store: &Store, key: &str) -> Result<(), Failure> {
    let order = format!("order/{}", random_id());
    loop {
        let seen = store.get(key)?;
        let cart = parse(key, seen.as_ref())?;
        if cart.is_empty() {
            return Err(Failure::Other(format!("{key} is empty")));
        }
        let operations = vec![
            Operation::Upsert(set_request(&order, json(&cart), None)),
            Operation::Upsert(set_request(key, json(&Cart::new()), seen.as_ref())),
        ];
        if let Outcome::Written = store.transact(operations)? {
            println!("{order}");
            return Ok(());
        }
    }
}

fn show(store: &Store, key: &str) -> Result<(), Failure> {
    let cart = parse(key, store.get(key)?.as_ref())?;
    println!("{}", String::from_utf8_lossy(&json(&cart)));
    Ok(())
}

/// What is not there is an empty cart.
fn parse(key: &str, seen: Option<&Item>) -> Result<Cart, Failure> {
    let Some(item) = seen else { return Ok(Cart::new()) };
    serde_json::from_slice(&item.data).map_err(|error| Failure::Other(format!("{key} is no cart: {error}")))
}

fn json(cart: &Cart) -> Vec<u8> {
    serde_json::json!(cart).to_string().into_bytes()
}

//! `bindings WIT FOLDER`: writes the C bindings of the world `dapr:guest/command-guest`, as `wit-bindgen c` does, in
//! the version that the Rust guests have theirs from.

use std::path::Path;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [wit, folder] = &arguments[..] else { bail!("usage: bindings WIT FOLDER") };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some("command-guest"))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    for (name, content) in files.iter() {
        let path = Path::new(folder).join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

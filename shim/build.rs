//! The programs have the compiler's own library in them: a node need not have it, and each execution has one library less to
//! find and to map (docs/decisions/0009-a-short-way-to-the-start.md).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
}

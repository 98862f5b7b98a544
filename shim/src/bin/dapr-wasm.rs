//! What the operator of a node does by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    shim::operator_tool::main()
}

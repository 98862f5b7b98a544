//! The shim that containerd starts for `io.containerd.dapr.v1`.

fn main() {
    shim::shim_process::main("io.containerd.dapr.v1");
}

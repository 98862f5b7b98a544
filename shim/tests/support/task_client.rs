//! The task API of a container's shim, without containerd between: for requests that `ctr` cannot make, and for the
//! codes of errors.

use std::fs;

use containerd_shim::api::{ExecProcessRequest, StartRequest, StatsRequest, UpdateTaskRequest};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim_sync::{Client, TaskClient};
use containerd_shim::protos::ttrpc::context::{Context, with_duration};
use containerd_shim::protos::ttrpc::{self, Code};
use testbed::containerd::PATIENCE;

use super::Node;

/// For one request.
pub fn context() -> Context {
    with_duration(PATIENCE)
}

/// The code and the message of the error that a request was answered with.
pub fn refusal<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> (Code, String) {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message),
        other => panic!("no refusal: {other:?}"),
    }
}

impl Node {
    /// Talks to the shim of a container.
    pub fn task_client(&self, container: &str) -> TaskClient {
        let file = self.containerd.bundle(container).join("address");
        let address = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        TaskClient::new(Client::connect(&address).expect("the shim accepts connections"))
    }

    /// Registers a process without starting it.
    pub fn add_exec(&self, container: &str, exec_id: &str, arguments: &[&str]) -> Result<(), (Code, String)> {
        let process = serde_json::json!({"args": arguments, "cwd": "/", "user": {"uid": 0, "gid": 0}});
        self.add_process(container, exec_id, &process)
    }

    /// The same with everything that an OCI specification can say of it.
    pub fn add_process(
        &self,
        container: &str,
        exec_id: &str,
        process: &serde_json::Value,
    ) -> Result<(), (Code, String)> {
        let request = ExecProcessRequest {
            id: container.to_owned(),
            exec_id: exec_id.to_owned(),
            spec: Some(Any { value: process.to_string().into_bytes(), ..Any::default() }).into(),
            ..ExecProcessRequest::default()
        };
        match self.task_client(container).exec(context(), &request) {
            Ok(_) => Ok(()),
            refused => Err(refusal(refused)),
        }
    }

    /// Starts it, and answers its pid.
    pub fn start_exec(&self, container: &str, exec_id: &str) -> Result<u32, (Code, String)> {
        let request = StartRequest { id: container.to_owned(), exec_id: exec_id.to_owned(), ..StartRequest::default() };
        match self.task_client(container).start(context(), &request) {
            Ok(started) => Ok(started.pid),
            refused => Err(refusal(refused)),
        }
    }

    /// Changes a running container's limits, as CRI does: `resources` is the OCI specification's `linux.resources`.
    pub fn update(&self, container: &str, resources: &serde_json::Value) -> ttrpc::Result<()> {
        let resources = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources.to_string().into_bytes(),
            ..Any::default()
        };
        let request =
            UpdateTaskRequest { id: container.to_owned(), resources: Some(resources).into(), ..Default::default() };
        self.task_client(container).update(context(), &request).map(drop)
    }

    /// What a container has used, as its shim says it.
    pub fn stats(&self, container: &str) -> ttrpc::Result<Any> {
        let request = StatsRequest { id: container.to_owned(), ..Default::default() };
        self.task_client(container).stats(context(), &request).map(|response| response.stats.unwrap_or_default())
    }
}

//! Pods, as a kubelet has containerd run them: through CRI, version 1.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use images::Image;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStats, ContainerStatsRequest, ContainerStatus,
    ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec, ImageStatusRequest,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus, PodSandboxStatusRequest,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopContainerRequest,
    StopPodSandboxRequest,
};
use tokio::runtime::{self, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::containerd::Containerd;
use crate::pause::PAUSE_IMAGE;

/// The name of the runtime under test in containerd's configuration.
const RUNTIME: &str = "dapr";
const PATIENCE: Duration = Duration::from_secs(10);

/// What a kubelet does on a node, on demand: it runs pods and asks how they are.
pub struct Kubelet {
    connection: Channel,
    runtime: Runtime,
    pub containerd: Containerd,
}

impl Kubelet {
    /// Takes over a containerd that was started for pods.
    ///
    /// # Panics
    ///
    /// When its CRI does not answer.
    pub fn start(containerd: Containerd) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
        let address = format!("unix://{}", containerd.address().display());
        let endpoint = Endpoint::from_shared(address).expect("the address of a socket");
        let connection = runtime.block_on(endpoint.connect()).expect("containerd listens");
        let kubelet = Self { connection, runtime, containerd };
        kubelet.wait_for_image(PAUSE_IMAGE);
        kubelet
    }

    /// Makes a call of CRI's runtime service and waits for the answer.
    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let client = RuntimeServiceClient::new(self.connection.clone());
        self.runtime.block_on(call(client)).map(Response::into_inner)
    }

    /// Imports an image and waits until pods can have it.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn import(&self, name: &str, image: &Image) {
        self.containerd.import_image(image);
        self.wait_for_image(name);
    }

    /// A pod with a network of its own, and nothing else that is special.
    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("{name}-uid"),
            namespace: "default".to_owned(),
            attempt: 0,
        };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(namespaces()), ..Default::default() };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}", self.containerd.cgroup()),
            security_context: Some(security),
            ..Default::default()
        };
        PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_owned(),
            log_directory: self.containerd.folder().join("pods").join(name).display().to_string(),
            linux: Some(linux),
            ..PodSandboxConfig::default()
        }
    }

    /// Starts a pod without containers, with the runtime under test.
    pub fn run(&self, config: PodSandboxConfig) -> Result<Pod<'_>, Status> {
        self.run_with(RUNTIME, config)
    }

    /// The same, with another runtime of containerd's configuration.
    pub fn run_with(&self, runtime: &str, config: PodSandboxConfig) -> Result<Pod<'_>, Status> {
        fs::create_dir_all(&config.log_directory)?;
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: runtime.to_owned() };
        let id = self.call(async |mut cri| cri.run_pod_sandbox(request).await)?.pod_sandbox_id;
        Ok(Pod { kubelet: self, id, config, attempts: AtomicU32::new(0) })
    }

    /// An image is imported at once, but CRI only hears of it.
    fn wait_for_image(&self, name: &str) {
        let mut client = ImageServiceClient::new(self.connection.clone());
        let request = ImageStatusRequest { image: Some(image_spec(name)), verbose: false };
        wait_until(&format!("CRI knows the image {name}"), || {
            let status = self.runtime.block_on(client.image_status(request.clone())).expect("CRI answers");
            status.into_inner().image
        });
    }
}

/// A pod that was started.
pub struct Pod<'a> {
    kubelet: &'a Kubelet,
    pub id: String,
    config: PodSandboxConfig,
    attempts: AtomicU32,
}

impl Pod<'_> {
    pub fn status(&self) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let answer = self.kubelet.call(async |mut cri| cri.pod_sandbox_status(request).await)?;
        answer.status.ok_or_else(|| Status::not_found("a pod without a status"))
    }

    /// Its address; none where it uses the node's network.
    pub fn ip(&self) -> Option<IpAddr> {
        self.status().ok()?.network?.ip.parse().ok()
    }

    /// Creates a container and does not start it. Its log is its own, whether or not its name was there before.
    pub fn create(&self, mut config: ContainerConfig) -> Result<Container<'_>, Status> {
        let metadata = config.metadata.get_or_insert_default();
        metadata.attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        config.log_path = format!("{}-{}.log", metadata.name, metadata.attempt);
        let log = Path::new(&self.config.log_directory).join(&config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = self.kubelet.call(async |mut cri| cri.create_container(request).await)?.container_id;
        Ok(Container { kubelet: self.kubelet, id, log })
    }

    /// Creates a container and starts it.
    pub fn start(&self, config: ContainerConfig) -> Result<Container<'_>, Status> {
        let container = self.create(config)?;
        container.start()?;
        Ok(container)
    }

    /// Ends the pod with whatever runs in it.
    pub fn stop(&self) -> Result<(), Status> {
        let request = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.kubelet.call(async |mut cri| cri.stop_pod_sandbox(request).await).map(drop)
    }

    /// Removes the pod with its containers.
    pub fn remove(self) -> Result<(), Status> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.kubelet.call(async |mut cri| cri.remove_pod_sandbox(request).await).map(drop)
    }
}

/// A container of `image`, with nothing that is special.
pub fn container(name: &str, image: &str, arguments: &[&str]) -> ContainerConfig {
    let security = LinuxContainerSecurityContext { namespace_options: Some(namespaces()), ..Default::default() };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(image_spec(image)),
        command: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        linux: Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
        ..ContainerConfig::default()
    }
}

/// What a pod shares unless it says otherwise: network and IPC among its containers, processes not at all.
fn namespaces() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }
}

/// A container that was created.
pub struct Container<'a> {
    kubelet: &'a Kubelet,
    pub id: String,
    log: PathBuf,
}

impl Container<'_> {
    pub fn start(&self) -> Result<(), Status> {
        let request = StartContainerRequest { container_id: self.id.clone() };
        self.kubelet.call(async |mut cri| cri.start_container(request).await).map(drop)
    }

    pub fn status(&self) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let answer = self.kubelet.call(async |mut cri| cri.container_status(request).await)?;
        answer.status.ok_or_else(|| Status::not_found("a container without a status"))
    }

    /// Waits until it has ended, and answers how.
    ///
    /// # Panics
    ///
    /// When it still runs after ten seconds.
    pub fn exited(&self) -> ContainerStatus {
        wait_until("the container ends", || {
            let status = self.status().expect("a status");
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
    }

    /// Runs a command in it, to its end.
    pub fn exec(&self, command: &[&str]) -> Result<ExecSyncResponse, Status> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: self.id.clone(), cmd, timeout: 10 };
        self.kubelet.call(async |mut cri| cri.exec_sync(request).await)
    }

    pub fn stats(&self) -> Result<ContainerStats, Status> {
        let request = ContainerStatsRequest { container_id: self.id.clone() };
        let answer = self.kubelet.call(async |mut cri| cri.container_stats(request).await)?;
        answer.stats.ok_or_else(|| Status::not_found("a container without stats"))
    }

    /// Asks it to end, and kills it after `grace` seconds.
    pub fn stop(&self, grace: i64) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: self.id.clone(), timeout: grace };
        self.kubelet.call(async |mut cri| cri.stop_container(request).await).map(drop)
    }

    pub fn remove(self) -> Result<(), Status> {
        let request = RemoveContainerRequest { container_id: self.id.clone() };
        self.kubelet.call(async |mut cri| cri.remove_container(request).await).map(drop)
    }

    /// The lines it has written so far.
    pub fn log(&self) -> Vec<LogLine> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(LogLine::parse).collect()
    }

    /// Waits for a line with this text on either stream.
    ///
    /// # Panics
    ///
    /// When there is none within ten seconds.
    pub fn wait_for_line(&self, text: &str) -> LogLine {
        wait_until(&format!("the container writes {text:?}"), || self.log().into_iter().find(|line| line.text == text))
    }
}

/// A line of a container's log, as the kubelet reads it: `2026-01-31T12:00:00.123456789Z stdout F text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// `F` for a full line, `P` for the part of a long one.
    pub tag: String,
    pub text: String,
}

impl LogLine {
    fn parse(line: &str) -> Self {
        let mut words = line.splitn(4, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_else(|| panic!("not a line of CRI's log: {line:?}"));
        Self { time: word(), stream: word(), tag: word(), text: word() }
    }
}

fn image_spec(name: &str) -> ImageSpec {
    ImageSpec { image: name.to_owned(), ..ImageSpec::default() }
}

fn wait_until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

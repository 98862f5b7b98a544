//! Fields of a pod's spec, each as a guest sees it.

use testbed::kubernetes::NODE_ADDRESS;

use crate::images::{HELLO, HTTP, get, shell};
use crate::namespace::Namespace;

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_native_sidecar_and_a_guest_share_localhost() {
    let namespace = Namespace::create("sidecar");
    let ask = shell(&(get("localhost", 8080) + "; sleep 3600"));
    namespace.pod("pod", &format!("containers: [{{name: guest, image: {HTTP}}}, {{name: native, {ask}}}]"));
    namespace.wait_until_ready("pod");
    assert!(namespace.follow("pod", "native").any(|line| line == "Hello from WASM!"));
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn init_containers_run_before_the_guest() {
    let namespace = Namespace::create("init");
    let volume = "volumeMounts: [{name: shared, mountPath: /shared}]";
    let native = shell("echo from-native >/shared/native");
    let printed = namespace.run_to_the_end(
        "pod",
        &format!(
            "volumes: [{{name: shared, emptyDir: {{}}}}],
             initContainers: [
               {{name: wasm, image: {HELLO}, args: [write, /shared/wasm, from-wasm], {volume}}},
               {{name: native, {native}, {volume}}}
             ],
             containers: [{{name: guest, image: {HELLO}, args: [cat, /shared/native, /shared/wasm], {volume}}}]"
        ),
    );
    assert_eq!(printed, "from-native\nfrom-wasm");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_guest_has_the_pod_s_address_name_hosts_and_environment() {
    let namespace = Namespace::create("identity");
    let alias = "hostAliases: [{ip: 10.1.2.3, hostnames: [elsewhere.test]}]";
    let container = |arguments: &str| {
        format!(
            "{alias}, hostname: chosen, containers: [{{name: guest, image: {HELLO}, args: {arguments}, env: [
               {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}, {{name: GREETING, value: hello}}
             ]}}]"
        )
    };
    let hosts = namespace.run_to_the_end("hosts", &container("[cat, /etc/hosts]"));
    let address = namespace.address("hosts");
    assert!(hosts.contains(&format!("{address}\tchosen")) && hosts.contains("10.1.2.3\telsewhere.test"), "{hosts}");
    assert_eq!(namespace.run_to_the_end("hostname", &container("[cat, /etc/hostname]")), "chosen\n");
    let environment = namespace.run_to_the_end("environment", &container("[env]"));
    let address = namespace.address("environment");
    for variable in [format!("POD_IP={address}"), "GREETING=hello".to_owned(), "HOSTNAME=chosen".to_owned()] {
        assert!(environment.lines().any(|line| line == variable), "no {variable} in {environment}");
    }
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn with_host_network_a_guest_serves_on_the_node_s_address() {
    let namespace = Namespace::create("host-network");
    let container = format!("{{name: guest, image: {HTTP}}}");
    namespace.annotated_pod("pod", "dapr.wasm/port: '18080'", &format!("hostNetwork: true, containers: [{container}]"));
    namespace.wait_until_ready("pod");
    assert_eq!(namespace.address("pod"), NODE_ADDRESS);
    assert_eq!(namespace.curl(&format!("http://{NODE_ADDRESS}:18080/")), "Hello from WASM!");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn with_a_shared_process_namespace_containers_see_each_other() {
    let namespace = Namespace::create("processes");
    let list = shell("until ps | grep -q dapr-guest-hos[t]; do sleep 0.1; done; ps -o pid,args; echo end; sleep 3600");
    namespace.pod(
        "pod",
        &format!(
            "shareProcessNamespace: true,
             containers: [{{name: guest, image: {HELLO}, args: [daemon]}}, {{name: native, {list}}}]"
        ),
    );
    namespace.wait_until_ready("pod");
    let processes: Vec<String> = namespace.follow("pod", "native").take_while(|line| line != "end").collect();
    assert!(processes.iter().any(|process| process.trim() == "1 /pause"), "{processes:?}");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_read_only_root_cannot_be_written_to_but_an_empty_dir_can() {
    let namespace = Namespace::create("read-only");
    let container = |file: &str| {
        format!(
            "volumes: [{{name: scratch, emptyDir: {{}}}}], containers: [{{
               name: guest, image: {HELLO}, args: [write, {file}, text],
               securityContext: {{readOnlyRootFilesystem: true}}, volumeMounts: [{{name: scratch, mountPath: /scratch}}]
             }}]"
        )
    };
    let refused = namespace.run_to_the_end("root", &container("/file"));
    assert!(refused.starts_with("hello: /file: Read-only file system"), "{refused}");
    assert_eq!(namespace.run_to_the_end("scratch", &container("/scratch/file")), "");
    assert_eq!(namespace.get("pod/scratch", "{.status.phase}"), "Succeeded");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn config_maps_and_secrets_are_files_that_a_guest_can_read_and_not_write() {
    let namespace = Namespace::create("volumes");
    namespace.kubectl(&["create", "configmap", "settings", "--from-literal=colour=green"]);
    namespace.kubectl(&["create", "secret", "generic", "keys", "--from-literal=door=open sesame"]);
    let container = |arguments: &str| {
        format!(
            "volumes: [{{name: settings, configMap: {{name: settings}}}}, {{name: keys, secret: {{secretName: keys}}}}],
             containers: [{{name: guest, image: {HELLO}, args: {arguments}, volumeMounts: [
               {{name: settings, mountPath: /etc/settings}}, {{name: keys, mountPath: /etc/keys}},
               {{name: settings, mountPath: /colour, subPath: colour}}
             ]}}]"
        )
    };
    let read = namespace.run_to_the_end("read", &container("[cat, /etc/settings/colour, /etc/keys/door, /colour]"));
    assert_eq!(read, "greenopen sesamegreen");
    for (name, file) in [("settings", "/etc/settings/colour"), ("keys", "/etc/keys/door")] {
        let refused = namespace.run_to_the_end(name, &container(&format!("[write, {file}, text]")));
        assert!(refused.starts_with(&format!("hello: {file}: Read-only file system")), "{refused}");
    }
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_guest_writes_files_as_the_user_and_group_that_its_pod_names() {
    let namespace = Namespace::create("user");
    let stat = shell("stat -c '%u %g' /shared /shared/file");
    namespace.pod(
        "pod",
        &format!(
            "restartPolicy: Never, volumes: [{{name: shared, emptyDir: {{}}}}],
             securityContext: {{runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456}},
             initContainers: [{{
               name: guest, image: {HELLO}, args: [write, /shared/file, text],
               securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}},
               volumeMounts: [{{name: shared, mountPath: /shared}}]
             }}],
             containers: [{{
               name: native, {stat},
               volumeMounts: [{{name: shared, mountPath: /shared}}]
             }}]"
        ),
    );
    namespace.wait_for("pod/pod", "{.status.phase}", |phase| phase == "Succeeded");
    // The group of a volume is that of the files made in it.
    assert_eq!(namespace.kubectl(&["logs", "pod", "-c", "native"]), "0 3456\n1234 3456\n");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn the_last_words_of_a_guest_are_its_termination_message() {
    let namespace = Namespace::create("last-words");
    namespace.run_to_the_end(
        "pod",
        &format!("containers: [{{name: guest, image: {HELLO}, args: [write, /dev/termination-log, farewell]}}]"),
    );
    assert_eq!(namespace.get("pod/pod", "{.status.containerStatuses[0].state.terminated.message}"), "farewell");
}

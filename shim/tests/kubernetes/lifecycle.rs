//! Probes, logs, commands in running pods, limits, ends.

use std::thread;

use serde_json::Value;

use crate::images::{GREEDY, HELLO, HTTP, shell};
use crate::namespace::{Namespace, PATIENCE};

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_guest_is_ready_when_its_http_or_tcp_or_exec_probe_succeeds() {
    let namespace = Namespace::create("readiness");
    let probes = [
        ("http", HTTP, "httpGet: {path: /, port: 8080}"),
        ("tcp", HTTP, "tcpSocket: {port: 8080}"),
        ("exec", HELLO, "exec: {command: [/hello.wasm, ls, /]}"),
    ];
    for (name, image, probe) in probes {
        let probe = format!("args: [daemon], readinessProbe: {{{probe}, periodSeconds: 1}}");
        namespace.pod(name, &format!("containers: [{{name: guest, image: {image}, {probe}}}]"));
    }
    let failing = "readinessProbe: {httpGet: {path: /status/503, port: 8080}, periodSeconds: 1}";
    namespace.pod("never", &format!("containers: [{{name: guest, image: {HTTP}, {failing}}}]"));
    for (name, ..) in probes {
        namespace.wait_until_ready(name);
    }
    namespace.wait_for("events", "{.involvedObject.name}: {.message}", |event| {
        event == "never: Readiness probe failed: HTTP probe failed with statuscode: 503"
    });
    assert_eq!(namespace.get("pod/never", "{.status.containerStatuses[0].ready}"), "false");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_guest_whose_liveness_probe_fails_is_restarted() {
    let namespace = Namespace::create("liveness");
    let probe = "livenessProbe: {httpGet: {path: /status/500, port: 8080}, periodSeconds: 1, failureThreshold: 1}";
    namespace.pod("sick", &format!("containers: [{{name: guest, image: {HTTP}, {probe}}}]"));
    let restarted = "{.status.containerStatuses[0].restartCount} \
                     {.status.containerStatuses[0].lastState.terminated.exitCode}";
    // The kubelet may report several restarts as one change.
    let was_stopped = |status: &str| status.split_once(' ').is_some_and(|(count, code)| count != "0" && code == "143");
    namespace.wait_for("pod/sick", restarted, was_stopped);
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_guest_is_restarted_when_its_tcp_or_exec_liveness_probe_fails_and_not_before() {
    let namespace = Namespace::create("liveness-kinds");
    let probes = [
        ("tcp-dead", HTTP, "tcpSocket: {port: 1}"),
        ("exec-dead", HELLO, "exec: {command: [/hello.wasm, cat, /missing]}"),
        ("tcp-alive", HTTP, "tcpSocket: {port: 8080}"),
        ("exec-alive", HELLO, "exec: {command: [/hello.wasm, ls, /]}"),
    ];
    for (name, image, probe) in probes {
        let probe = format!("args: [daemon], livenessProbe: {{{probe}, periodSeconds: 1, failureThreshold: 1}}");
        namespace.pod(name, &format!("containers: [{{name: guest, image: {image}, {probe}}}]"));
    }
    let restarts = "{.status.containerStatuses[0].restartCount}";
    for name in ["tcp-dead", "exec-dead"] {
        let was_restarted = |count: &str| count.parse::<u32>().is_ok_and(|count| count > 0);
        namespace.wait_for(&format!("pod/{name}"), restarts, was_restarted);
    }
    for name in ["tcp-alive", "exec-alive"] {
        assert_eq!(namespace.get(&format!("pod/{name}"), restarts), "0", "{name}");
    }
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn lifecycle_hooks_run_in_the_guest_s_container() {
    let namespace = Namespace::create("hooks");
    // Deleted as well, it has the whole grace period to say what it found.
    let watch = shell("until [ -e /shared/stopping ]; do sleep 0.1; done; cat /shared/started /shared/stopping; echo");
    let volume = "volumeMounts: [{name: shared, mountPath: /shared}]";
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: pod}}
spec:
  runtimeClassName: dapr
  terminationGracePeriodSeconds: 60
  volumes: [{{name: shared, emptyDir: {{}}}}]
  containers:
  - name: guest
    image: {HELLO}
    args: [daemon]
    {volume}
    lifecycle:
      postStart: {{exec: {{command: [/hello.wasm, write, /shared/started, began-]}}}}
      preStop: {{exec: {{command: [/hello.wasm, write, /shared/stopping, ended]}}}}
  - {{name: native, {watch}, {volume}}}
"
    ));
    namespace.wait_until_ready("pod");
    let mut lines = namespace.follow("pod", "native");
    namespace.kubectl(&["delete", "pod", "pod", "--wait=false"]);
    assert_eq!(lines.next().as_deref(), Some("began-ended"));
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_guest_over_its_memory_limit_is_oom_killed_and_its_neighbour_is_not() {
    let namespace = Namespace::create("memory");
    namespace.pod(
        "pod",
        &format!(
            "restartPolicy: Never, containers: [
               {{name: greedy, image: {GREEDY}, resources: {{limits: {{memory: 96Mi}}}}}},
               {{name: modest, image: {HELLO}, args: [daemon], resources: {{limits: {{memory: 96Mi}}}}}}
             ]"
        ),
    );
    let states = "{.status.containerStatuses[?(@.name=='greedy')].state.terminated.reason} \
                  {.status.containerStatuses[?(@.name=='greedy')].state.terminated.exitCode} \
                  {.status.containerStatuses[?(@.name=='modest')].ready}";
    namespace.wait_for("pod/pod", states, |states| states == "OOMKilled 137 true");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn kubectl_logs_follows_a_guest_until_it_ends() {
    let namespace = Namespace::create("logs");
    namespace.pod("daemon", &format!("containers: [{{name: guest, image: {HELLO}, args: [daemon]}}]"));
    namespace.wait_until_ready("daemon");
    let mut lines = namespace.follow("daemon", "guest");
    for second in 0..3 {
        assert_eq!(lines.next(), Some(format!("running for {second} s")));
    }
    namespace.kubectl(&["delete", "pod", "daemon"]);
    lines.by_ref().for_each(drop);
    assert!(lines.ended_well());
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn kubectl_exec_runs_guests_and_native_programs_in_a_running_pod() {
    let namespace = Namespace::create("exec");
    let sleep = shell("sleep 3600");
    namespace.pod(
        "pod",
        &format!(
            "containers: [
               {{name: guest, image: {HELLO}, args: [daemon]}},
               {{name: native, {sleep}}}
             ]"
        ),
    );
    namespace.wait_until_ready("pod");
    assert_eq!(namespace.kubectl(&["exec", "pod", "-c", "guest", "--", "/hello.wasm", "echo", "hi"]), "hi\n");
    assert_eq!(namespace.kubectl(&["exec", "pod", "-c", "native", "--", "echo", "hi"]), "hi\n");
    let failed = namespace.try_kubectl(&["exec", "pod", "-c", "guest", "--", "/hello.wasm", "exit", "7"]);
    assert_eq!(failed.status.code(), Some(7), "{}", String::from_utf8_lossy(&failed.stderr));
    let missing = namespace.try_kubectl(&["exec", "pod", "-c", "guest", "--", "/missing"]);
    assert!(!missing.status.success());
    let message = String::from_utf8_lossy(&missing.stderr);
    assert!(message.contains("/missing"), "{message}");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn kubectl_exec_passes_on_standard_input() {
    let namespace = Namespace::create("exec-stdin");
    namespace.pod("pod", &format!("containers: [{{name: guest, image: {HELLO}, args: [daemon]}}]"));
    namespace.wait_until_ready("pod");
    let words = ["--namespace", "exec-stdin", "exec", "--stdin", "pod", "--", "/hello.wasm", "stdin"];
    let output = namespace.cluster.kubectl(&words, "one\ntwo\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn kubectl_exec_gives_a_program_the_user_s_terminal() {
    let namespace = Namespace::create("exec-terminal");
    let image = shell("sleep 3600");
    namespace.pod(
        "pod",
        &format!("containers: [{{name: guest, image: {HELLO}, args: [daemon]}}, {{name: native, {image}}}]"),
    );
    namespace.wait_until_ready("pod");
    let exec = ["exec", "--stdin", "--tty", "pod", "--container"];
    let script = r#"until [ "$(stty size 2>/dev/null)" = "33 77" ]; do :; done; stty size; read word; exit $word"#;
    let mut terminal = namespace.kubectl_at_a_terminal(&[&exec[..], &["native", "--", "sh", "-c", script]].concat());
    assert_eq!(terminal.line(), "33 77");
    terminal.type_line("9");
    assert_eq!(terminal.exit_code(), 9);
    let mut terminal =
        namespace.kubectl_at_a_terminal(&[&exec[..], &["guest", "--", "/hello.wasm", "echo", "hi"]].concat());
    assert_eq!(terminal.line(), "hi");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_request_in_flight_is_answered_when_its_pod_is_deleted() {
    let namespace = Namespace::create("graceful");
    let upstream = shell(
        r"mkfifo /tmp/answer
          nc -l -p 80 </tmp/answer >/tmp/request &
          exec 3>/tmp/answer
          until grep -q GET /tmp/request; do sleep 0.1; done
          echo asked
          until [ -e /tmp/go ]; do sleep 0.1; done
          printf 'HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate' >&3
          sleep 3600",
    );
    namespace.pod("upstream", &format!("containers: [{{name: native, {upstream}}}]"));
    namespace.pod("guest", &format!("containers: [{{name: guest, image: {HTTP}}}]"));
    namespace.wait_until_ready("upstream");
    namespace.wait_until_ready("guest");
    let [guest, upstream] = ["guest", "upstream"].map(|pod| namespace.address(pod));
    let url = format!("http://{guest}:8080/upstream?url=http://{upstream}/");
    thread::scope(|scope| {
        let answer = scope.spawn(|| namespace.curl(&url));
        assert_eq!(namespace.follow("upstream", "native").next().as_deref(), Some("asked"));
        namespace.kubectl(&["delete", "pod", "guest", "--grace-period=60", "--wait=false"]);
        namespace.wait_for("events", "{.involvedObject.name} {.reason}", |event| event == "guest Killing");
        namespace.kubectl(&["exec", "upstream", "--", "mkfifo", "/tmp/go"]);
        assert_eq!(answer.join().expect("an answer"), "late");
    });
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn kubectl_delete_does_not_have_to_wait_for_the_end_of_the_grace_period() {
    let namespace = Namespace::create("delete");
    for (name, image, argument) in [("spinning", HELLO, "spin"), ("sleeping", HELLO, "daemon"), ("serving", HTTP, "")] {
        namespace.pod(name, &format!("containers: [{{name: guest, image: {image}, args: [{argument}]}}]"));
        namespace.wait_until_ready(name);
    }
    namespace.kubectl(&["delete", "pods", "--all", "--grace-period=3600", &format!("--timeout={PATIENCE}")]);
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_deleted_pod_leaves_nothing_on_its_node() {
    let namespace = Namespace::create("leftovers");
    let sleep = shell("sleep 3600");
    namespace.pod(
        "pod",
        &format!(
            "containers: [
               {{name: guest, image: {HTTP}}}, {{name: native, {sleep}}}
             ]"
        ),
    );
    namespace.wait_until_ready("pod");
    let id = namespace.get("pod/pod", "{.metadata.uid}");
    let sandbox = namespace.get("pod/pod", "{.status.containerStatuses[*].containerID}").replace("containerd://", "");
    let containers: Vec<&str> = sandbox.split(' ').collect();
    let remains = || {
        let found = namespace.cluster.within(|containerd| containerd.present());
        found
            .into_iter()
            .filter(|item| item.contains(&id) || containers.iter().any(|container| item.contains(container)))
            .collect::<Vec<_>>()
    };
    assert!(!remains().is_empty());
    namespace.kubectl(&["delete", "pod", "pod"]);
    assert_eq!(remains(), [""; 0]);
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn what_a_guest_uses_is_in_the_kubelet_s_summary() {
    let namespace = Namespace::create("summary");
    namespace.pod("busy", &format!("containers: [{{name: guest, image: {HELLO}, args: [spin]}}]"));
    namespace.wait_until_ready("busy");
    // A kubelet looks again every ten seconds.
    loop {
        let summary = namespace.kubectl(&["get", "--raw=/api/v1/nodes/node/proxy/stats/summary"]);
        let summary: Value = serde_json::from_str(&summary).expect("a summary");
        let pods = summary["pods"].as_array().expect("pods");
        let Some(pod) = pods.iter().find(|pod| pod["podRef"]["namespace"] == "summary") else { continue };
        let guest = &pod["containers"][0];
        let figures = [
            &guest["cpu"]["usageCoreNanoSeconds"],
            &guest["memory"]["workingSetBytes"],
            &pod["cpu"]["usageCoreNanoSeconds"],
            &pod["memory"]["workingSetBytes"],
        ];
        if figures.iter().all(|figure| figure.as_u64().is_some_and(|figure| figure > 0)) {
            return;
        }
    }
}

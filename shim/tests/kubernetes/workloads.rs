//! Deployments, Services, jobs.

use crate::images::{HELLO, HTTP, get, shell};
use crate::namespace::{Namespace, PATIENCE};

const EXAMPLE: &str = include_str!("../../../deploy/example.yaml");

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_deployment_of_three_becomes_ready_and_scales_to_ten_and_back() {
    let namespace = Namespace::create("deployment");
    namespace.apply(&deployment("web", 3));
    let rolled_out = || namespace.kubectl(&["rollout", "status", "deployment/web", &format!("--timeout={PATIENCE}")]);
    for replicas in ["3", "10", "3"] {
        namespace.kubectl(&["scale", "deployment/web", &format!("--replicas={replicas}")]);
        rolled_out();
        let ready = format!("{replicas} {replicas}");
        namespace.wait_for("deployment/web", "{.status.replicas} {.status.readyReplicas}", |status| status == ready);
    }
    // Those that are ended are deleted, and none was ever restarted.
    namespace.wait_for("pods", "{.metadata.name}", |_| {
        namespace.get("pods", "{.items[*].status.containerStatuses[*].restartCount}") == "0 0 0"
    });
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn the_example_of_the_readme_counts_visits_behind_its_service() {
    let namespace = Namespace::create("example");
    namespace.apply(EXAMPLE);
    namespace.kubectl(&["rollout", "status", "deployment/hello", &format!("--timeout={PATIENCE}")]);
    let service = namespace.get("service/hello", "{.spec.clusterIP}");
    assert_eq!(namespace.curl(&format!("http://{service}/visits")).trim_end(), "1");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_service_is_reached_from_guests_and_native_containers_of_other_pods() {
    let namespace = Namespace::create("service");
    namespace.apply(&deployment("web", 2));
    namespace.apply(
        "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
",
    );
    namespace.kubectl(&["rollout", "status", "deployment/web", &format!("--timeout={PATIENCE}")]);
    let service = namespace.get("service/web", "{.spec.clusterIP}");

    namespace.pod("client", &format!("containers: [{{name: guest, image: {HTTP}}}]"));
    namespace.wait_until_ready("client");
    let upstream = format!("http://{}:8080/upstream?url=http://{service}/", namespace.address("client"));
    assert_eq!(namespace.curl(&upstream), "Hello from WASM!");

    let native = format!("containers: [{{name: native, {}}}]", shell(&get(&service, 80)));
    let answer = namespace.run_to_the_end("native", &native);
    assert_eq!(answer.lines().last(), Some("Hello from WASM!"), "{answer}");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_cron_job_s_guest_succeeds_or_fails_with_its_own_exit_code() {
    let namespace = Namespace::create("jobs");
    for (name, arguments, condition, end) in
        [("good", "[echo, done]", "Complete", "Succeeded 0"), ("bad", "[exit, '7']", "Failed", "Failed 7")]
    {
        namespace.apply(&format!(
            "apiVersion: batch/v1beta1
kind: CronJob
metadata: {{name: {name}}}
spec:
  schedule: '0 0 1 1 *'
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          runtimeClassName: dapr
          restartPolicy: Never
          containers: [{{name: guest, image: {HELLO}, args: {arguments}}}]
"
        ));
        namespace.kubectl(&["create", "job", name, &format!("--from=cronjob/{name}")]);
        let condition = format!("--for=condition={condition}");
        namespace.kubectl(&["wait", &condition, &format!("job/{name}"), &format!("--timeout={PATIENCE}")]);
        let pods = namespace.kubectl(&[
            "get",
            "pods",
            &format!("--selector=job-name={name}"),
            "--output=jsonpath={.items[*].status.phase} {.items[*].status.containerStatuses[*].state.terminated.exitCode}",
        ]);
        assert_eq!(pods, end);
    }
    assert_eq!(namespace.kubectl(&["logs", "job/good"]), "done\n");
}

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn an_annotation_of_the_pod_chooses_the_engine() {
    let namespace = Namespace::create("engines");
    let spec = format!("restartPolicy: Never, containers: [{{name: guest, image: {HELLO}, args: [trap]}}]");
    for engine in crate::support::ENGINES {
        namespace.annotated_pod(engine, &format!("dapr.wasm/engine: {engine}"), &spec);
        namespace.wait_for(&format!("pod/{engine}"), "{.status.phase}", |phase| phase == "Failed");
        let code = namespace.get(&format!("pod/{engine}"), "{.status.containerStatuses[0].state.terminated.exitCode}");
        assert_eq!(code, "134");
        let logs = namespace.logs(engine);
        assert!(logs.contains("trap: unreachable instruction executed"), "{logs}");
    }
    // That it was heard is seen from one that does not exist.
    namespace.annotated_pod("unknown", "dapr.wasm/engine: abacus", &spec);
    namespace.wait_for("pod/unknown", "{.status.containerStatuses[0].state}", |state| {
        state.contains(r#"unknown engine \"abacus\"; this runtime knows "#)
    });
}

fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      runtimeClassName: dapr
      containers:
      - name: guest
        image: {HTTP}
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
"
    )
}

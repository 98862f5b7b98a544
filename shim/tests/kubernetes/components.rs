//! Dapr components of pods.

use testbed::kubernetes::NODE_ADDRESS;
use testbed::redis::RedisServer;

use crate::images::STATE;
use crate::namespace::Namespace;

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn components_come_from_a_config_map_and_one_with_a_password_from_a_secret() {
    let namespace = Namespace::create("components");
    let redis = |arguments: &[&str]| {
        let bind = ["--bind", NODE_ADDRESS, "127.0.0.1", "--protected-mode", "no"];
        namespace.cluster.within(|_| RedisServer::start_with(&[&bind, arguments].concat()))
    };
    let (open, locked) = (redis(&[]), redis(&["--requirepass", "swordfish"]));
    namespace.apply(&format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: components}}
data:
  open.yaml: |
    apiVersion: dapr.io/v1alpha1
    kind: Component
    metadata: {{name: open}}
    spec: {{type: state.redis, version: v1, metadata: [{{name: redisHost, value: 'redis.test:{}'}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: components}}
stringData:
  locked.yaml: |
    apiVersion: dapr.io/v1alpha1
    kind: Component
    metadata: {{name: locked}}
    spec:
      type: state.redis
      version: v1
      metadata:
      - {{name: redisHost, value: 'redis.test:{}'}}
      - {{name: redisPassword, value: swordfish}}
",
        open.port(),
        locked.port()
    ));
    for store in ["open", "locked"] {
        let spec = format!(
            "hostAliases: [{{ip: {NODE_ADDRESS}, hostnames: [redis.test]}}],
             containers: [{{
               name: guest, image: {STATE}, args: [--store, {store}],
               volumeMounts: [{{name: components, mountPath: /components, readOnly: true}}]
             }}],
             volumes: [{{name: components, projected: {{
               sources: [{{configMap: {{name: components}}}}, {{secret: {{name: components}}}}]
             }}}}]"
        );
        assert_eq!(namespace.run_to_the_end(store, &spec), "value\n");
    }
    let stored: String = namespace.cluster.within(|_| open.command(&["HGET", "z", "data"]));
    assert_eq!(stored, "value");
}

//! Resiliency documents, good and bad.

use crate::{load, log};

const CACHE: &str = "kind: Component\nmetadata: {name: cache}\nspec: {type: state.in-memory}\n";

/// What is wrong, a line each, without the folder.
fn faults(documents: &str) -> Vec<String> {
    let faults = load(documents).err().expect("faults").to_string();
    faults.lines().map(|line| line.split_once("c.yaml: ").expect("the file's name").1.to_owned()).collect()
}

#[test]
fn the_document_of_daprs_own_tests_is_read() {
    let document = "
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata:
  name: resiliency
  namespace: ns
version: v1alpha1
scopes: []
spec:
  policies:
    timeouts:
      general: 5s
      largeResponse: 10000
    retries:
      serviceRetry: {policy: constant, duration: 5s, maxRetries: 10}
      retryForever: {policy: exponential, maxInterval: 15s, maxRetries: -1}
      matched: {policy: constant, matching: {httpStatusCodes: '429,500-599', gRPCStatusCodes: '1-4'}}
    circuitBreakers:
      stateCB: {maxRequests: 1, interval: 8s, timeout: 45s, trip: consecutiveFailures > 8}
  targets:
    apps:
      appB: {timeout: general, retry: unknown, circuitBreaker: unknown, circuitBreakerCacheSize: 100}
    actors:
      myActorType: {timeout: unknown, circuitBreakerScope: both, circuitBreakerCacheSize: 5000}
    components:
      cache:
        outbound: {timeout: general, retry: retryForever, circuitBreaker: stateCB}
      not-there:
        inbound: {timeout: general, retry: serviceRetry}
";
    let warnings = log::warnings(|| assert!(load(&format!("{CACHE}---{document}")).is_ok()));
    // What would have an effect elsewhere, and has none here.
    for target in ["apps", "actors"] {
        assert!(warnings.contains(&format!("`spec.targets.{target}` has no effect")), "{warnings}");
    }
    assert!(warnings.lines().all(|line| line.contains("c.yaml: document 2, line 5")), "{warnings}");
    assert!(warnings.contains("not-there"), "{warnings}");
    assert_eq!(warnings.lines().count(), 3, "{warnings}");
}

#[test]
fn all_that_is_wrong_is_told_with_what_is_wrong_with_components() {
    let documents = "kind: Resiliency
spec:
  policies:
    timeouts: {soon: 5 s}
    retries: {linear: {policy: linear}, late: {duration: later}}
    circuitBreakers: {never: {trip: failures > 1}, half: {trip: 'consecutiveFailures >'}}
  targets:
    components:
      cache:
        outbound: {timeout: soon, retry: gone, circuitBreaker: never}
        inbound: {timeout: lost}
---
kind: Component
metadata: {name: odd}
spec: {type: state.odd}
---
kind: Resiliency
spec:
  policies:
    retries: {wrong: {maxRetries: many}}
---
kind: Resiliency
spec:
  targets: {components: {cache2: {outbound: {circuitBreaker: soon}}}}
";
    let faults = faults(documents);
    let expected = [
        "document 1, line 1: `spec.policies.timeouts.soon`: must be a duration such as `500ms` or `5s`",
        "document 1, line 1: `spec.policies.retries.late`: `duration` must be a duration such as `500ms` or `5s`",
        "document 1, line 1: `spec.policies.retries.linear`: `policy` must be `constant` or `exponential`",
        "document 1, line 1: `spec.policies.circuitBreakers.half`: `trip` is no condition: ",
        "document 1, line 1: `spec.policies.circuitBreakers.never`: `trip` is no condition: \"failures\" is not counted",
        "document 1, line 1: `spec.targets.components.cache.outbound.retry` names \"gone\", and there is no such policy; known: late, linear",
        "document 1, line 1: `spec.targets.components.cache.inbound.timeout` names \"lost\", and there is no such policy; known: soon",
        "document 2, line 13: component odd: unknown type state.odd",
        "document 3, line 20: spec.policies.retries.wrong.maxRetries: invalid type: string, expected i64",
        "document 4, line 22: `spec.targets.components.cache2.outbound.circuitBreaker` names \"soon\", and there is no such policy; known: half, never",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\n  does not begin with\n{expected}");
    }
}

#[test]
fn a_document_for_other_apps_is_not_looked_into() {
    let other = "kind: Resiliency\nscopes: [other]\nspec: {policies: {timeouts: {soon: 5 s}}}\n";
    assert!(load(&format!("{CACHE}---\n{other}")).is_ok());
}

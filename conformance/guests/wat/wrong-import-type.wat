;; Imports a host function as if it took one number.
(module
  (import "dapr:state/state-interface" "get" (func (param i64)))
  (func (export "_start")))

;; Imports a function of WASI as if it took a wide number.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func (param i64)))
  (func (export "_start")))

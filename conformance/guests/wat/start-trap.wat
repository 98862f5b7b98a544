;; Traps before anything can be called.
(module
  (func $start unreachable)
  (start $start)
  (func (export "_start")))

;; A Wasm component, which is another format than a module.
(component)

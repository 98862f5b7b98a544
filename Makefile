# Everything is compiled once, in one profile and for the whole workspace: another selection of packages or
# features compiles the engines again, which takes 20 minutes.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PREFIX := /usr/local
GUESTS := cart counter greeter hello http secrets session state
GUESTS_IN_C := cart counter session
IMAGES := $(GUESTS) $(addsuffix -c,$(GUESTS_IN_C))
DEBIAN_PACKAGES := busybox-static containerd containernetworking-plugins curl gcc iproute2 libc6-dev libseccomp-dev \
  mmdebstrap pkg-config procps protobuf-compiler redis-server runc
WASM_PACKAGES := clang libclang-rt-dev-wasm32 lld wasi-libc
MACHINE_PACKAGES := e2fsprogs jq qemu-system-x86
CGROUP2_TESTS := exec lifecycle limits systemd_cgroups
BENCH_PACKAGES := wrk
KUBERNETES_PACKAGES := dpkg-dev etcd-server golang-go iptables openssl rsync
NEWER_DEBIANS := trixie sid
END_TO_END_TESTS := $(patsubst %.rs,--test %,$(notdir $(wildcard shim/tests/*.rs testbed/tests/*.rs)))
# Containers take root, compilers do not.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
CARGO_TEST := cargo test --release $(if $(SUDO),--config 'target."cfg(unix)".runner = "sudo --preserve-env"')

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install the Debian packages that are missing
	@scripts/install-packages.sh $(DEBIAN_PACKAGES)

.PHONY: postgresql
postgresql:
	@scripts/install-postgresql.sh

.PHONY: build
build: deps ## Compile everything, into target/release
	cargo build --release --workspace

.PHONY: guests
guests: deps ## Compile the guests to Wasm, into target/guests
	@scripts/install-packages.sh $(WASM_PACKAGES)
	scripts/build-guests.sh $(TARGET_DIR)
	scripts/build-c-guests.sh $(TARGET_DIR)

.PHONY: images
images: guests ## Pack the guests as OCI archives, into target/images
	cargo build --release --workspace --bin pack-image
	scripts/pack-images.sh $(TARGET_DIR) $(IMAGES)

.PHONY: node-installer
node-installer: build ## Pack the node installer as an OCI archive, into target/images
	scripts/pack-node-installer.sh $(TARGET_DIR)

.PHONY: load
load: images ## Import the images into the containerd of this machine
	$(foreach image,$(IMAGES),$(SUDO) ctr images import $(TARGET_DIR)/images/$(image).tar &&) true

.PHONY: demo
demo: build images ## Show guests on both engines under a containerd of its own
	$(SUDO) scripts/demo.sh $(TARGET_DIR)

.PHONY: check
check: deps ## Check format and lints
	cargo fmt --all --check
	cargo fmt --all --check --manifest-path conformance/guests/Cargo.toml
	cargo clippy --release --workspace --all-targets -- --deny warnings
	cargo clippy --release --workspace --manifest-path conformance/guests/Cargo.toml --target-dir $(TARGET_DIR)/guests/cargo \
	  -- --deny warnings

.PHONY: test
test: images postgresql ## Run the tests, with containerd, Redis and PostgreSQL
	$(CARGO_TEST) --workspace

.PHONY: test-one-engine
test-one-engine: images postgresql ## Run every test with each engine alone (the first time compiles it again: 10 minutes each)
	$(CARGO_TEST) --workspace --no-default-features --features postgresql,redis,sqlite,wasmtime
	$(CARGO_TEST) --workspace --no-default-features --features postgresql,redis,sqlite,wasmer

.PHONY: test-cgroup2
test-cgroup2: images ## Run the tests of cgroups in a virtual machine with cgroup v2 and systemd
	@scripts/install-packages.sh $(MACHINE_PACKAGES)
	cargo test --release --workspace --no-run --message-format=json-render-diagnostics > $(TARGET_DIR)/tests.json
	set -- $$(jq --raw-output \
	    'select(.target.kind == ["test"]) | select(.target.name | IN($$ARGS.positional[])) | .executable' \
	    --args $(CGROUP2_TESTS) < $(TARGET_DIR)/tests.json); \
	  [ $$# = $(words $(CGROUP2_TESTS)) ] || { echo "of $(CGROUP2_TESTS) there are only: $$*" >&2; exit 1; }; \
	  scripts/test-cgroup2.sh "$$@"

# The two hundred runs are not about containerd.
.PHONY: test-containerd-versions
test-containerd-versions: images ## Run the end-to-end tests with the containerd of newer Debians
	set -e; for suite in $(NEWER_DEBIANS); do \
	  CONTAINERD_FOLDER=$$(scripts/fetch-containerd.sh $$suite); export CONTAINERD_FOLDER; \
	  $(CARGO_TEST) --workspace $(END_TO_END_TESTS) -- --skip two_hundred; \
	done

.PHONY: test-500-pods
test-500-pods: images ## Start and remove 500 pods and look for what they leave
	$(CARGO_TEST) --workspace --test cri -- --ignored --nocapture five_hundred

.PHONY: test-growth
test-growth: images ## Send 100,000 requests, execute 1,000 programs, and look whether anything grew
	$(CARGO_TEST) --workspace --test growth -- --ignored

.PHONY: kubernetes
kubernetes:
	@scripts/install-packages.sh $(KUBERNETES_PACKAGES)
	scripts/build-kubernetes.sh $(TARGET_DIR)

.PHONY: test-kubernetes
test-kubernetes: images kubernetes ## Run the tests in a Kubernetes cluster (the first time compiles it: 8 minutes)
	$(CARGO_TEST) --workspace --test kubernetes -- --ignored --test-threads 4 $(ARGS)

.PHONY: cluster
cluster: build images kubernetes ## Start a Kubernetes cluster of one node, with a shell on it (compiles it as well)
	$(SUDO) $(addprefix $(abspath $(TARGET_DIR))/,release/cluster-shell kubernetes release $(GUESTS:%=images/%.tar))

.PHONY: conformance
conformance: build guests postgresql ## Run the conformance suite; ARGS='--filter state' narrows it
	$(TARGET_DIR)/release/conformance --engine all $(ARGS)

.PHONY: docs
docs: ## Write what docs/components.md has of the code's own descriptions
	WRITE_DOCS=1 cargo test --release --workspace --test documentation

.PHONY: bench
bench: deps guests ## Run the benchmarks
	cargo bench --workspace --bench '*' $(if $(ARGS),-- $(ARGS))

.PHONY: bench-e2e
bench-e2e: build guests ## Measure containers beside runc's, into target/bench (some minutes); ARGS=--quick for a glance
	@scripts/install-packages.sh $(BENCH_PACKAGES)
	$(SUDO) $(TARGET_DIR)/release/bench-e2e $(ARGS)

.PHONY: install
install: build ## Install the shim, the guest host and the operator's tool to PREFIX/bin
	$(SUDO) install -D --target-directory=$(DESTDIR)$(PREFIX)/bin \
	  $(addprefix $(TARGET_DIR)/release/,containerd-shim-dapr-v1 dapr-guest-host dapr-wasm)

.PHONY: clean
clean: ## Remove what was compiled
	cargo clean

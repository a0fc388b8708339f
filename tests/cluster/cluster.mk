# The real cluster for tests. Included by the Makefile; CONTRIBUTING.md tells what it needs.
HARNESS = cd tests/cluster && $(CURDIR)/$(BIN)/python -m harness

.PHONY: cluster-build
cluster-build: install ## only what takes long the first time: compile the cluster, build our images
	@$(HARNESS) build

.PHONY: cluster-up
cluster-up: install ## a real Kubernetes with both Argos, S3 and our images, on this machine (root; first time: builds it)
	@$(HARNESS) up

.PHONY: cluster-images
cluster-images: install ## build our images again when their inputs changed, and load them into the cluster
	@$(HARNESS) images

.PHONY: cluster-status
cluster-status: install ## what runs of the cluster
	@$(HARNESS) status

.PHONY: cluster-down
cluster-down: install ## remove the cluster; what was built stays in the cache
	@$(HARNESS) down

.PHONY: test-cluster
test-cluster: install ## the tests that need the cluster; brings it up first [BRIEF=1: without those that take longest]
	@$(HARNESS) up
	@$(HARNESS) judges
	STAC_WATCH_TEST_CLUSTER=$(if $(BRIEF),brief,1) $(BIN)/pytest -q $(AGAIN) --durations=10 tests/cluster

.PHONY: test-cluster-rebuild
test-cluster-rebuild: install ## idem, and kills the cluster with SIGKILL, looks for leftovers, brings it up again
	@$(HARNESS) up
	STAC_WATCH_TEST_CLUSTER=rebuild $(BIN)/pytest -q tests/cluster

.PHONY: test-gitops
test-gitops: install ## the chart under Flux's controller and Argo CD's comparison, on the cluster; compiles them first; no part of make ci
	@$(HARNESS) up
	@$(HARNESS) gitops
	STAC_WATCH_TEST_CLUSTER=gitops $(BIN)/pytest -q $(AGAIN) --durations=10 tests/cluster/test_gitops.py

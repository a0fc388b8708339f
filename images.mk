# Images, and bringing them and the rest to a cluster. Included by the Makefile; docs/deploy.md tells what each parameter means.
# A value goes to the program as one argument, quoted; nothing of it is seen by the shell.
quote = '$(subst ','\'',$(1))'
KIT = @python=$$(cat .tools/python); "$${python:-python3}" tools/kit
BOTH_IMAGES = --image=$(call quote,$(IMAGE)) --poller-image=$(call quote,$(POLLER_IMAGE)) --tag=$(call quote,$(TAG))
BUILD = --tag=$(call quote,$(TAG)) --builder=$(call quote,$(BUILDER)) --platform=$(call quote,$(PLATFORM)) --base-image=$(call quote,$(BASE_IMAGE))

.PHONY: build
build: .tools/bin/uv ## the runner's image [REF=sha-or-tag SUBDIR=…/ DATA_MODEL=url] [TAG IMAGE PORTABLE=1 BUILDER PLATFORM]
	$(KIT) build runner $(BUILD) --image=$(call quote,$(IMAGE)) --ref=$(call quote,$(REF)) --subdir=$(call quote,$(SUBDIR)) \
	  --data-model=$(call quote,$(DATA_MODEL)) --portable=$(call quote,$(PORTABLE)) --no-binary=$(call quote,$(NO_BINARY)) --uv=$(UV)

.PHONY: build-poller
build-poller: .tools/bin/uv ## the poller's image [TAG POLLER_IMAGE BUILDER PLATFORM]
	$(KIT) build poller $(BUILD) --image=$(call quote,$(POLLER_IMAGE))

.PHONY: load load-k3d load-kind load-minikube
load: .tools/bin/uv ## bring both images to the current k3d, kind or minikube cluster [TAG IMAGE POLLER_IMAGE CLUSTER]
	$(KIT) load $(BOTH_IMAGES) --builder=$(call quote,$(BUILDER)) --cluster=$(call quote,$(CLUSTER))
load-k3d: .tools/bin/uv ## idem, to a k3d cluster
	$(KIT) load k3d $(BOTH_IMAGES) --builder=$(call quote,$(BUILDER)) --cluster=$(call quote,$(CLUSTER))
load-kind: .tools/bin/uv ## idem, to a kind cluster
	$(KIT) load kind $(BOTH_IMAGES) --builder=$(call quote,$(BUILDER)) --cluster=$(call quote,$(CLUSTER))
load-minikube: .tools/bin/uv ## idem, to a minikube cluster
	$(KIT) load minikube $(BOTH_IMAGES) --builder=$(call quote,$(BUILDER)) --cluster=$(call quote,$(CLUSTER))

.PHONY: push
push: .tools/bin/uv ## send both images to their registry [IMAGE=registry/… POLLER_IMAGE=registry/… TAG]
	$(KIT) push $(BOTH_IMAGES) --builder=$(call quote,$(BUILDER))

.PHONY: push-index
push-index: .tools/bin/uv ## join pushed images of several architectures under one tag [TAG=main PARTS="sha-amd64 sha-arm64"]
	$(KIT) push-index $(BOTH_IMAGES) --parts=$(call quote,$(PARTS))

.PHONY: sign
sign: .tools/bin/uv ## sign pushed images with cosign, attest bill of materials and provenance [IMAGE POLLER_IMAGE TAG]
	$(KIT) sign $(BOTH_IMAGES)

.PHONY: check-tag
check-tag: .tools/bin/uv ## whether a git tag is the project's version [NAME=v1.2.3]
	$(KIT) check-tag --name=$(call quote,$(NAME))

.PHONY: push-chart
push-chart: .tools/bin/uv ## package deploy/chart and send it to a registry, signed [CHARTS=oci://registry/charts]
	$(KIT) push-chart --charts=$(call quote,$(CHARTS))

.PHONY: k3d-up
k3d-up: .tools/bin/uv ## a cluster for development in Docker [CLUSTER=stac-watch]
	$(KIT) k3d-up --cluster=$(call quote,$(CLUSTER))

.PHONY: argo-install
argo-install: .tools/bin/uv ## pinned Argo Workflows and Argo Events, from their official manifests [DRY_RUN=server]
	$(KIT) argo-install --argo-workflows=$(call quote,$(ARGO_WORKFLOWS_MANIFEST)) --argo-events=$(call quote,$(ARGO_EVENTS_MANIFEST)) \
	  --dry-run=$(call quote,$(DRY_RUN))

.PHONY: template
template: .tools/bin/uv ## the WorkflowTemplate alone [NAMESPACE IMAGE TAG DRY_RUN=server]
	$(KIT) template $(BOTH_IMAGES) --namespace=$(call quote,$(NAMESPACE)) --dry-run=$(call quote,$(DRY_RUN))

.PHONY: manifests
manifests: install ## render the committed YAML anew, from the examples of a configuration and of values
	@$(BIN)/python tools/manifests.py

.PHONY: deploy
deploy: .tools/bin/uv ## everything, by kubectl apply -k [OVERLAY=k3d IMAGE POLLER_IMAGE TAG DRY_RUN=server]
	$(KIT) deploy $(BOTH_IMAGES) --overlay=$(call quote,$(OVERLAY)) --dry-run=$(call quote,$(DRY_RUN))

.PHONY: test-images
test-images: install ## builds both images with buildah, docker and podman, and runs them (root, Debian) [PORTABLE=1: with GDAL's toolchain, too]
	STAC_WATCH_TEST_IMAGES=$(if $(PORTABLE),portable,1) $(BIN)/pytest -q $(AGAIN) tests/images

.PHONY: bench-images
bench-images: install ## both images: size, cold start
	STAC_WATCH_TEST_IMAGES=1 $(BIN)/python benchmarks/images.py

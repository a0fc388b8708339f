# The targets of the Makefile that came before, each a line around a verb: `stac-watch cluster --help` has all of them, with all options.
# A value goes to the verb as one argument, quoted; nothing of it is seen by the shell.
CONFIG ?= deploy/base/stac-watch.yaml
WF ?= @latest
OUT ?= runs
ARGO_NAMESPACE ?= argo
UI_PORT ?= 2746
ARGO_UI ?= https://localhost:2746
CLUSTER_VERB = $(if $(NAMESPACE),STAC_WATCH__ENGINE__NAMESPACE=$(call quote,$(NAMESPACE)) )$(BIN)/stac-watch cluster
AT = --config=$(call quote,$(CONFIG))
# GROUPS counts only where it was typed after `make`: in an environment it is somebody else's
WANTED_GROUPS = $(if $(filter command line,$(origin GROUPS)),$(GROUPS),$(ZARR_GROUPS))

.PHONY: submit
submit: install ## one run by hand [STAC_URL OUTPUT_ZARR GROUPS (or ZARR_GROUPS) DASK_PERF_HTML WAIT=1]
	$(if $(STAC_URL),,$(error STAC_URL is missing: make submit STAC_URL=https://…))
	@$(CLUSTER_VERB) submit $(AT) $(if $(OUTPUT_ZARR),--output-zarr=$(call quote,$(OUTPUT_ZARR))) --groups=$(call quote,$(WANTED_GROUPS)) \
	  --dask-perf-html=$(call quote,$(DASK_PERF_HTML)) --ui=$(call quote,$(ARGO_UI)) $(if $(WAIT),--wait) -- $(call quote,$(STAC_URL))

.PHONY: fetch-tar
fetch-tar: install ## a run's package and reports from its volume into OUT/RUN/, resumable [WF=name|@latest OUT=runs]
	@$(CLUSTER_VERB) fetch $(AT) --out=$(call quote,$(OUT)) -- $(call quote,$(WF))

.PHONY: clean
clean: install ## remove Workflows that are over, with their pods; volumes stay; lists them and asks [YES=1 OLDER_THAN=1h]
	@$(CLUSTER_VERB) clean $(AT) $(if $(OLDER_THAN),--older-than=$(call quote,$(OLDER_THAN))) $(if $(YES),--yes)

.PHONY: clean-pvc
clean-pvc: install ## remove volumes of runs that are over or gone; lists them and asks [YES=1]
	@$(CLUSTER_VERB) clean $(AT) --volumes $(if $(YES),--yes)

.PHONY: doctor
doctor: install ## what is wrong with the cluster's installation: one line each, with the remedy
	@$(CLUSTER_VERB) doctor $(AT)

.PHONY: ui
ui: ## the Argo UI on this machine, by kubectl port-forward [UI_PORT ARGO_NAMESPACE]
	kubectl -n $(call quote,$(ARGO_NAMESPACE)) port-forward service/argo-server $(call quote,$(UI_PORT):2746)

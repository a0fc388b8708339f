# Running conversions on a cluster. Included by the Makefile; docs/deploy.md explains each target.
# A value reaches the program as the one argument that was typed: `value` takes it before make expands anything in it, the quotes keep the
# shell out, and it never goes through the environment, where bash has a GROUPS of its own.
verbatim = '$(subst ','\'',$(call one-line,$(1)))'
one-line = $(if $(findstring $(newline),$(value $(1))),$(error $(1) must be one line),$(value $(1)))
define newline


endef

said = $(filter-out 0 no false,$(value $(1)))
CONFIG ?= deploy/base/stac-watch.yaml
WF ?= @latest
OUT ?= runs
ARGO_NAMESPACE ?= argo
UI_PORT ?= 2746
ARGO_UI ?= https://localhost:2746
# What is typed is not expanded for the environment of the commands, either. After the defaults: this line makes a variable defined.
unexport STAC_URL OUTPUT_ZARR GROUPS ZARR_GROUPS DASK_PERF_HTML WAIT WF OUT CONFIG NAMESPACE OLDER_THAN YES ARGO_UI
OPERATE = $(if $(value NAMESPACE),STAC_WATCH__ENGINE__NAMESPACE=$(call verbatim,NAMESPACE) )$(BIN)/stac-watch
OPTIONS = --config=$(call verbatim,CONFIG)
# GROUPS counts only where it was typed after `make`: in an environment it is somebody else's
WANTED_GROUPS = $(if $(filter command line,$(origin GROUPS)),GROUPS,ZARR_GROUPS)

.PHONY: submit
submit: install ## one run by hand [STAC_URL OUTPUT_ZARR GROUPS (or ZARR_GROUPS) DASK_PERF_HTML WAIT=1]
	$(if $(value STAC_URL),,$(error STAC_URL is missing: make submit STAC_URL=https://…))
	@$(OPERATE) submit $(OPTIONS) $(if $(value OUTPUT_ZARR),--output-zarr=$(call verbatim,OUTPUT_ZARR)) \
	  --groups=$(call verbatim,$(WANTED_GROUPS)) --dask-perf-html=$(call verbatim,DASK_PERF_HTML) \
	  --ui=$(call verbatim,ARGO_UI) $(if $(call said,WAIT),--wait) -- $(call verbatim,STAC_URL)

.PHONY: status
status: install ## one run: its steps, and how it ended [WF=name|@latest]
	@$(OPERATE) runs $(OPTIONS) --ui=$(call verbatim,ARGO_UI) -- $(call verbatim,WF)

.PHONY: logs
logs: install ## what a run's steps write, until it is over [WF=name|@latest]
	@$(OPERATE) logs $(OPTIONS) --follow -- $(call verbatim,WF)

.PHONY: ui
ui: ## the Argo UI on this machine, by kubectl port-forward [UI_PORT ARGO_NAMESPACE]
	@scheme=$$(kubectl -n $(call verbatim,ARGO_NAMESPACE) get deployment argo-server --output \
	  'jsonpath={.spec.template.spec.containers[0].readinessProbe.httpGet.scheme}' | tr A-Z a-z) && \
	printf 'Argo UI: %s://localhost:%s/workflows   (Ctrl-C ends it)\n' "$${scheme:-https}" $(call verbatim,UI_PORT) && \
	exec kubectl -n $(call verbatim,ARGO_NAMESPACE) port-forward service/argo-server $(call verbatim,UI_PORT):2746

.PHONY: fetch-tar
fetch-tar: install ## a run's package and reports from its volume into OUT/RUN/, resumable [WF=name|@latest OUT=runs]
	@$(OPERATE) fetch $(OPTIONS) --out=$(call verbatim,OUT) -- $(call verbatim,WF)

.PHONY: clean
clean: install ## remove Workflows that are over, with their pods; volumes stay [OLDER_THAN=1h]
	@$(OPERATE) clean $(OPTIONS) --yes $(if $(value OLDER_THAN),--older-than=$(call verbatim,OLDER_THAN))

.PHONY: clean-pvc
clean-pvc: install ## remove volumes of runs that are over or gone; lists them and asks [YES=1]
	@$(OPERATE) clean $(OPTIONS) --volumes $(if $(call said,YES),--yes)

.PHONY: doctor
doctor: install ## what is wrong with the cluster's installation: one line each, with the remedy
	@$(OPERATE) doctor $(OPTIONS)

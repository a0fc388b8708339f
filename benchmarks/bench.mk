# Benchmarks. Included by the Makefile.

.PHONY: bench-ledger
bench-ledger: install ## the ledger at 1,000,000 items: idle tick, status, admission
	$(BIN)/python benchmarks/ledger.py

.PHONY: bench-conversion
bench-conversion: install ## one full tile: our engines and eopf-geozarr's CLI, against the physical floor and over HTTP (BENCH="--size 1830" for a trial)
	$(BIN)/python benchmarks/conversion.py $(BENCH)

.PHONY: bench-sweep
bench-sweep: install ## 100,000 items on a real pgstac: our sweep beside pystac-client's items()
	$(BIN)/python benchmarks/sweep.py

.PHONY: bench-reconcile
bench-reconcile: install ## a look at 10,000 finished and 500 unfinished runs: requests, bytes, seconds
	$(BIN)/python benchmarks/reconcile.py

.PHONY: bench-year
bench-year: install ## a simulated year, 500,000 items: invariants, memory, cost of a round (BENCH="--items 20000 --tick 7200" for a trial)
	$(BIN)/python benchmarks/year.py --json build/year.json --plot build/year.svg $(BENCH)

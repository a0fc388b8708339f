# Benchmarks. Included by the Makefile.

.PHONY: bench
bench: bench-startup bench-ledger bench-freshness bench-sweep bench-conversion bench-images performance ## all that a page of performance shows (an hour, a quiet machine; root, for the images)

.PHONY: performance
performance: install ## write docs/performance.md from what the benchmarks found last
	$(BIN)/python benchmarks/performance.py

.PHONY: bench-startup
bench-startup: install ## the verbs' start, and the whole demo
	$(BIN)/python benchmarks/startup.py

.PHONY: bench-freshness
bench-freshness: install ## from an item's insertion into a real pgstac to "accepted"
	$(BIN)/python benchmarks/freshness.py $(BENCH)

.PHONY: bench-ledger
bench-ledger: install ## the ledger at 10,000 to 1,000,000 items, SQLite and PostgreSQL: idle tick, status, admissions, moves
	$(BIN)/python benchmarks/ledger.py $(BENCH)

.PHONY: bench-conversion
bench-conversion: install ## one full tile: our engines and eopf-geozarr's CLI, against the physical floor and over HTTP (BENCH="--size 1830" for a trial)
	$(BIN)/python benchmarks/conversion.py $(BENCH)

.PHONY: bench-sweep
bench-sweep: install ## 100,000 items on a real pgstac: our sweep beside pystac-client and rustac, and an idle poll
	$(BIN)/python benchmarks/sweep.py $(BENCH)

.PHONY: bench-reconcile
bench-reconcile: install ## a look at 10,000 finished and 500 unfinished runs: requests, bytes, seconds
	$(BIN)/python benchmarks/reconcile.py

.PHONY: bench-year
bench-year: install ## a simulated year, 500,000 items: invariants, memory, cost of a round (BENCH="--items 20000 --tick 7200" for a trial)
	$(BIN)/python benchmarks/year.py --json build/year.json --plot build/year.svg $(BENCH)

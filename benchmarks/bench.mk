# Benchmarks. Included by the Makefile.

.PHONY: bench
bench: bench-startup bench-loss bench-freshness bench-ledger bench-rebuild bench-sweep bench-conversion bench-mirror bench-publishing bench-cluster bench-images performance ## all that docs/performance.md shows, but the soak (over an hour, a quiet machine, root, the cluster up)

.PHONY: performance
performance: install ## write docs/performance.md from what the benchmarks found last
	$(BIN)/python benchmarks/performance.py

.PHONY: bench-startup
bench-startup: install ## the verbs' start, and the whole demo
	$(BIN)/python benchmarks/startup.py

.PHONY: bench-freshness
bench-freshness: install ## from an item's insertion into a real pgstac to "accepted"
	$(BIN)/python benchmarks/freshness.py $(BENCH)

.PHONY: bench-loss
bench-loss: install ## what each way of reading a real pgstac has wrong after a churn: ours, fixed windows, the newest seen
	$(BIN)/python benchmarks/loss.py $(BENCH)

.PHONY: bench-ledger
bench-ledger: install ## the ledger at 10,000 to 1,000,000 items, SQLite and PostgreSQL: idle tick, status, admissions, moves
	$(BIN)/python benchmarks/ledger.py $(BENCH)

.PHONY: bench-conversion
bench-conversion: install ## one full tile: our engines and eopf-geozarr's CLI, against a floor, and a whole run from HTTP to S3 (BENCH="--size 1830" for a trial)
	$(BIN)/python benchmarks/conversion.py $(BENCH)

.PHONY: bench-mirror
bench-mirror: install ## one full tile of finished GeoZarr: mirrored, beside a plain parallel download; converted, beside a v2 product (BENCH="--size 2196" for a trial)
	$(BIN)/python benchmarks/mirror.py $(BENCH)

.PHONY: bench-publishing
bench-publishing: install ## an archive and an upload of an output: processor seconds beside tarfile's and s3fs's (BENCH="--megabytes 100" for a trial)
	$(BIN)/python benchmarks/publishing.py $(BENCH)

.PHONY: bench-sweep
bench-sweep: install ## 100,000 items on a real pgstac: our sweep beside pystac-client and rustac, and an idle poll
	$(BIN)/python benchmarks/sweep.py $(BENCH)

.PHONY: bench-cluster
bench-cluster: install ## on the development cluster: one item's way to done, submissions a second, what the poller takes
	$(BIN)/python benchmarks/cluster.py $(BENCH)

.PHONY: soak
soak: install ## an hour on the development cluster while something breaks every minute: lost, doubled, leaked? [MINUTES=60]
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),60) $(BENCH)

.PHONY: bench-reconcile
bench-reconcile: install ## a look at 10,000 finished and 500 unfinished runs: requests, bytes, seconds
	$(BIN)/python benchmarks/reconcile.py

.PHONY: bench-rebuild
bench-rebuild: install ## a lost ledger of 500,000 conversions, made again out of markers (BENCH="--outputs 5000" for a trial)
	$(BIN)/python benchmarks/rebuild.py $(BENCH)

.PHONY: bench-year
bench-year: install ## a simulated year, 500,000 items: invariants, memory, cost of a round (BENCH="--items 20000 --tick 7200" for a trial)
	$(BIN)/python benchmarks/year.py --json build/year.json --plot build/year.svg $(BENCH)

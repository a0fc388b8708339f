# Benchmarks. Included by the Makefile.

.PHONY: bench-ledger
bench-ledger: install ## the ledger at 1,000,000 items: idle tick, status, admission
	$(BIN)/python benchmarks/ledger.py

.PHONY: bench-conversion
bench-conversion: install ## one full tile: fast engine, stock engine, eopf-geozarr's CLI, against the physical floor
	$(BIN)/python benchmarks/conversion.py

.PHONY: bench-sweep
bench-sweep: install ## 100,000 items on a real pgstac: our sweep beside pystac-client's items()
	$(BIN)/python benchmarks/sweep.py

# Tests against real servers, which they start and stop by themselves. Included by the Makefile.

.PHONY: test-services
test-services: install ## the tests that need real servers: PostgreSQL with PostGIS, two generations of pgstac
	STAC_WATCH_TEST_SERVICES=1 $(BIN)/pytest -q tests/services

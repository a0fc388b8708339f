# Tests against real servers, which they start and stop by themselves. Included by the Makefile.

.PHONY: test-services
test-services: install ## the tests that need real servers: PostgreSQL with PostGIS, two generations of pgstac, S3, Prometheus, Chromium
	$(BIN)/pytest -q -n auto --dist worksteal $(AGAIN) -m services --ignore=tests/services --ignore=tests/browser
	STAC_WATCH_TEST_SERVICES=1 $(BIN)/pytest -q $(AGAIN) tests/services tests/browser

.PHONY: pictures
pictures: install ## take the documentation's pictures of the status page anew (Chromium)
	STAC_WATCH_TEST_SERVICES=1 STAC_WATCH_PICTURES=docs/pictures $(BIN)/pytest -q tests/browser

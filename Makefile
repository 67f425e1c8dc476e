# Everything a developer needs. `make help` lists it.

GO      ?= go
FUZZTIME ?= 20s
BENCHFLAGS ?=
# A process with the race detector waits a second at its end, and the tests start hundreds. SQLite in Go is C in all but
# syntax: what Go's rules for pointers, and its race detector, say of it is not ours to find out, at four times the cost.
RACE = GORACE=atexit_sleep_ms=20 $(GO) test -race "-gcflags=modernc.org/...=-d=checkptr=0 -race=false"

.PHONY: help build packages image chart demo test test-clocks test-wine check bench bench-quick bench-postgres bench-tools docs \
	pictures fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/postern, static, which signs by Go's RSA; packages have libcrypto's
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/postern ./cmd/postern

packages: docs ## dist/: deb, rpm and apk for amd64 and arm64, an MSI for Windows, what is in them, SHA256SUMS
	./scripts/packages

image: ## dist/: the container image for amd64 and arm64, an OCI archive
	./scripts/image

chart: ## deploy/helm/rendered: the Helm chart, by helm itself and by the types of Kubernetes
	./scripts/chart

demo: ## the whole path of a message on loopback
	@echo "Go compiles Postern, which takes about a minute the first time."
	$(GO) run ./cmd/postern demo --once

test: ## vet and all tests with the race detector; installs the clients they use where it may
	./scripts/test-tools
	$(GO) vet ./...
	$(RACE) -timeout 15m ./...
	if [ -f /usr/include/openssl/evp.h ] || [ "$$CI" = true ]; then $(RACE) -tags openssl ./relay/sign; fi

test-clocks: ## the nodes of one database with clocks an hour ahead and behind: five minutes
	./scripts/test-clocks

test-wine: ## program, service and package for Windows, as far as Wine goes (Debian: wine, wine64, wixl, msitools)
	./scripts/test-wine

check: ## gofmt, vet, sizes and copies, staticcheck, govulncheck
	./scripts/check

bench: ## Postern beside Postfix, three runs: about forty minutes
	$(GO) run ./bench/cmd/run $(BENCHFLAGS)

bench-quick: ## one short run without the backlog, for orientation
	$(GO) run ./bench/cmd/run -runs 1 -scale 0.2 -cases reused,fresh,large,far,idle,syncs $(BENCHFLAGS)

bench-postgres: ## the store at PostgreSQL, one node and two, beside Postfix and SQLite: three runs
	$(GO) run ./bench/cmd/run -cases reused $(BENCHFLAGS)

bench-tools: ## installs what bench compares with (Debian, root)
	./scripts/bench-tools

docs: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
docs: ## dist/man and dist/completions: manual pages, and what shells complete by
	rm -rf dist/man dist/completions
	POSTERN_DOCS=$(CURDIR)/dist $(GO) test ./cmd/postern -run 'TestManualPagesAreRight|TestCompletion$$' -count=1

pictures: ## those of docs/console.md, made by the tests of the pages in Chromium
	rm -rf bin/pictures
	POSTERN_SCREENSHOTS=$(CURDIR)/bin/pictures $(GO) test ./admin/console -run TestAccessibility -count=1
	cp bin/pictures/now-light-1440.png docs/pictures/now.png
	cp bin/pictures/delivered-light-1440.png docs/pictures/message.png
	cp bin/pictures/domain-light-1440.png docs/pictures/domain.png
	cp bin/pictures/learning-light-1440.png docs/pictures/learning.png

fuzz: ## every fuzz target for FUZZTIME (20s)
	./scripts/fuzz $(FUZZTIME)

clean: ## removes what build and packages made
	rm -rf bin dist

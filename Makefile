# `make help` lists the targets.
.NOTPARALLEL:
.PHONY: build deps lab lab-down test bench bench-peers losses soak soak-bfd fuzz lint clean help go root

LAB ?= default
SOAK ?= 30m
N ?= 20
JOBS ?= 1
FUZZTIME ?= $(if $(CI),30s,5s)
VERSION := $(shell git -c safe.directory='*' describe --always --tags --dirty 2>/dev/null || echo unknown)

# Go's directory first: sudo's PATH lacks it, or has a distribution's older one.
export PATH := $(addsuffix :,$(shell scripts/go-path.sh 2>/dev/null))$(PATH)
# git may refuse root a user's checkout; the version comes from VERSION.
export GOFLAGS += -buildvcs=false
# A root that keeps the user's HOME would leave root's files in Go's caches there.
ifeq ($(shell id -u),0)
export HOME := $(or $(if $(SUDO_USER),,$(HOME)),$(shell getent passwd 0 | cut -d: -f6))
give_back = @find bin out -user 0 -exec chown -h --reference=. {} + 2>/dev/null || true
endif

build: go ## bin/msee
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/msee
	$(give_back)

deps: ## install the Debian packages that are missing
	scripts/deps.sh $(DEPS)

lab: root deps build ## build the default lab (or LAB=name), prove that traffic flows
	bin/msee lab up --force $(LAB)
	bin/msee lab check $(LAB)
	@go run ./test/losses -summary out/losses.json

lab-down: root build ## remove it, all of it
	bin/msee lab down $(LAB)

test: DEPS := --test
test: deps build lint ## lint, fuzz, unit tests and (as root) integration tests
	FUZZTIME=$(FUZZTIME) scripts/fuzz.sh
	CGO_ENABLED=1 go test -race -count=1 -p 2 -timeout 60m ./...

bench: root deps build ## measure against the kernel's own forwarding, into out/bench.json (and DOCS=docs)
	mkdir -p out
	go run ./test/bench -out out/bench.json -plot out/bench.svg $(if $(DOCS),-docs $(DOCS))
	$(give_back)

bench-peers: DEPS := --peers
bench-peers: root deps build ## the same and against Open vSwitch and DPDK, which it installs
	mkdir -p out
	go run ./test/bench -peers -out out/bench.json -plot out/bench.svg $(if $(DOCS),-docs $(DOCS))
	$(give_back)

soak: DEPS := --test
soak: root deps ## mixed load for SOAK (30m): nothing may leak, counters must add up
	go test -count=1 -timeout 0 -run '^TestSoak$$' -v ./test -soak $(SOAK)

losses: DEPS := --test
losses: root deps build ## what each fault costs in packets (N runs each, JOBS labs at a time), into out/losses.json and docs
	mkdir -p out
	go run ./test/losses -n $(N) -jobs $(JOBS) -out out/losses.json -docs docs
	$(give_back)

soak-bfd: DEPS := --test
soak-bfd: root deps ## ten minutes of BFD under load: 64 sessions of 50 ms, then one of 10 ms; each ends in a VERDICT
	@failed=0; \
	go test -count=1 ./test -run '^TestBFDSoak$$' -v -timeout 30m -args -bfdsoak 10m -bfdsoak.interval 50ms || failed=1; \
	go test -count=1 ./test -run '^TestBFDSoak$$' -v -timeout 30m -args -bfdsoak 10m -bfdsoak.interval 10ms -bfdsoak.sessions 1 -bfdsoak.rate 500M -bfdsoak.routes 0 || failed=1; \
	exit $$failed

fuzz: go ## fuzz every parser for FUZZTIME
	FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

lint: go ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .) && [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

clean: ## remove bin and out
	rm -rf bin out

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

go:
	@scripts/go-path.sh >/dev/null
root:
	@[ "$$(id -u)" = 0 ] || { echo 'this needs root: sudo make $(MAKECMDGOALS)'; exit 1; }

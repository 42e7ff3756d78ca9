# make setup   a virtual environment in .venv, with every distribution at the version of constraints.txt
# make test    ruff, mypy, unit tests under both runners, integration tests: what CI runs
# make demo    dapi and three simulated ML nodes, until Ctrl-C
# make demo-v2 one stage of PoC v2, without dapi and with it, in two minutes
# make bench   how fast and in how little memory dapi works, beside what it is compared with; bench/results.json
# make bench-go how fast dapi works beside the same work in Go, and which goals that reaches; needs Go
# make profile flame graphs of the intake in build/profile
# make bench-year what a million finished batches in the database cost (2 minutes)
# make bench-abuse  what one broken or hostile peer costs the well-behaved nodes (7 minutes), into the documents
# make relay-faults  what outages cost a host of PoC v2, without dapi and with it; FAULTS="--rounds 20" and more
# make soak    dapi for an hour between a failing chain and 200 nodes; SOAK="--duration 600 --nodes 500" and more
# make model   dapi in memory, through random deliveries, faults, restarts and blocks, for MINUTES=10
# make faults  kills and failures at random moments, ROUNDS=50 of each kind
# make autobahn  all cases of Autobahn's test suite, compression in each way; minutes
# make fuzz    makes new input for each decoder, for ten minutes; FUZZ="--seconds 60 http" and more
# make mutants changes lines of some rooms, and sees whether their unit tests notice; ROOMS="outbox --again" and more
# make audit   asks the package index for known vulnerabilities of what a host installs
# make proto   the generated protobuf code, anew
# make package the wheel and the source distribution in dist/, built twice, checked, and tried in each Python
# make release the same, the unit tests from the source distribution, and the list of components (SBOM)
# make docs    the documentation, in build/docs
# make lock    requirements.txt: what a host installs, each file by its hash
# make screenshots  the pictures of the documentation, anew
# make reference  what docs/ takes from the code, anew

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.dapi-is-set-up
PYTHONS := python3 python3.11 python3.12 python3.13 python3.14
BENCHES := intake http steps nodes signing outbox_to_block large_stage relay relay_nginx scrape

.PHONY: setup test lint types unit integration demo demo-v2 bench bench-abuse relay-faults soak proto reference package release docs screenshots lock

setup: $(STAMP)

$(PY):
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exec $$python -m venv $(VENV); fi; \
	done; echo "dapi needs Python 3.11 or newer; none of these is: $(PYTHONS)" >&2; exit 1

# Built without isolation, so that the build tool is pinned like everything else.
$(STAMP): setup.py constraints.txt | $(PY)
	@echo "== setting up $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip setuptools
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[test,bench,docs,release]'
	@touch $@

test: lint types docs unit steps integration
	@$(PY) -m tests.runners summary

lint: $(STAMP)
	@echo "== ruff"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(STAMP)
	@echo "== mypy"
	@$(PY) -m mypy

unit: $(STAMP)
	@$(PY) -m tests.runners unit

.PHONY: steps model faults fuzz mutants audit

# The model test, with the same steps each time.
steps: $(STAMP)
	@echo "== model test"
	@$(PY) -m pytest -q tests/model

model: $(STAMP)
	@$(PY) -m tests.model $(MINUTES)

ROUNDS ?= 50
KILLS := kills faults test_pull_the_plug.py test_chain_pull_the_plug.py outbox/test_processes.py relay/test_matrix.py relay/test_kill.py

faults: $(STAMP)
	@DAPI_FAULT_ROUNDS=$(ROUNDS) $(PY) -m pytest -q $(addprefix tests/integration/,$(KILLS))

.PHONY: autobahn
autobahn: $(STAMP)
	@DAPI_AUTOBAHN_CASES='*' $(PY) -m pytest -q -s tests/integration/websocket/test_autobahn_suite.py

# It has no wheel for each system and Python, so that it is no part of the set-up.
fuzz: $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	@$(PY) -m tests.fuzz $(FUZZ)

mutants: $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade --target build/mutmut mutmut==3.8.1
	@$(PY) -m tools.mutants $(ROOMS)

audit: $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade --target build/pip-audit pip-audit==2.10.1
	@$(PY) -m tools.audit

# Processes of their own: pytest-twisted and asynchronous trial tests cannot share one.
integration: $(STAMP)
	@$(PY) -m tests.runners integration

demo: $(STAMP)
	@$(PY) -m dapi.simulator.demo

demo-v2: $(STAMP)
	@$(PY) -m dapi.simulator.demo_v2

bench: $(STAMP)
	@failed=""; for bench in $(BENCHES); do \
		echo "== $$bench"; $(PY) -m bench.$$bench || failed="$$failed $$bench"; \
	done; if [ -n "$$failed" ]; then echo "== these failed:$$failed" >&2; exit 1; fi

.PHONY: bench-go
bench-go: $(STAMP)
	@command -v go >/dev/null || { echo "make bench-go needs Go 1.25 or newer, and a C compiler: https://go.dev/dl" >&2; exit 1; }
	@mkdir -p build
	@cd bench/go && go build -o ../../build/bench-go .
	@$(PY) -m bench.against_go

.PHONY: profile
profile: $(STAMP)
	@$(PY) -m bench.flame

.PHONY: bench-year
bench-year: $(STAMP)
	@$(PY) -m bench.year

bench-abuse: $(STAMP)
	@$(PY) -m bench.abuse --write

relay-faults: $(STAMP)
	@$(PY) -m bench.relay_faults $(FAULTS)

soak: $(STAMP)
	@$(PY) -m bench.soak $(SOAK)

proto: $(STAMP)
	@$(PY) -m tools.make_proto

reference: $(STAMP)
	@$(PY) -m tools.make_reference

package: $(STAMP)
	@$(PY) -m tools.release package

release: $(STAMP)
	@$(PY) -m tools.release release

# Warnings are errors: a dead link, a page in no table of contents.
docs: $(STAMP)
	@echo "== documentation"
	@$(PY) -m sphinx --quiet --fail-on-warning --keep-going docs build/docs

screenshots: $(STAMP)
	@$(PY) -m tools.screenshots

# For every Python and system at once, which pip cannot.
UV := build/uv/bin/uv

$(UV): | $(PY)
	@$(PY) -m venv build/uv
	@build/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

lock: $(UV)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make lock' --constraint constraints.txt --extra speedups setup.py --output-file requirements.txt

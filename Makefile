# Every target installs what it needs into .venv; nothing else on the machine is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(shell cat requirements/dev.txt pyproject.toml native/pyproject.toml native/setup.py native/src/* native/stream_native/*.py 2>/dev/null | sha256sum | cut -c1-16)
WORKERS ?= $(shell nproc)
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header

SANITIZED := $(addprefix tests/unit/transform/decoders/,test_json_kernel.py test_avro_plan.py test_kernel_columns.py test_kernel_plans.py test_protobuf_plan.py test_csv.py test_envelope_kernel.py) \
	tests/unit/test_native.py tests/unit/aws/test_pages.py tests/unit/audit/test_native.py $(addprefix tests/unit/transform/,test_fields.py test_ip_addresses.py test_compiled.py test_masking.py test_urls.py)

# Where this is set, every process compiles the tests and the service again.
unexport PYTHONDONTWRITEBYTECODE

SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 install --yes --no-install-recommends postgresql >/dev/null

.PHONY: $(shell grep -hoE '^[a-z-]+:' $(MAKEFILE_LIST) | tr -d ':')

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(INSTALLED) ## Install the locked requirements and this project into .venv

$(INSTALLED): requirements/dev.txt requirements/installer.txt pyproject.toml $(wildcard native/src/* native/stream_native/*.py)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stream needs Python 3.11 or later; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -rf native/build && $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --no-cache --reinstall ./native 2>$(VENV)/native.log \
		|| echo 'The compiled kernel could not be built (see $(VENV)/native.log): all works without it, more slowly. It needs a C compiler and Python.h.'
	@rm -f $(VENV)/.installed-* && touch $@

demo: install ## Run the flights pipeline on local AWS, kill its worker half-way, check the result
	@$(BIN)/stream demo $(ARGS)

backfill-check: install ## Compare flights read from objects with flights read from a stream, row by row
	@$(BIN)/python -m tests.backfill_check $(ARGS)

# One worker more than there are cores, since tests of workers in processes of their own mostly wait.
test: install ## Run the whole suite
	@# Where nobody has done it yet, each worker would rewrite the asserts of all files.
	@ls tests/__pycache__/conftest.*-pytest-*.pyc >/dev/null 2>&1 || $(BIN)/python -m pytest -qq --collect-only >/dev/null || true
	@$(BIN)/python -m pytest -q -n $$(($(WORKERS) + 1)) --dist worksteal $(ARGS)

chaos: install ## Run only the tests that kill workers in processes of their own; they mostly wait
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal tests/chaos $(ARGS)

test-without-kernel: install ## Run once more, with the compiled kernel switched off, the tests that call it
	@STREAM_NATIVE=off $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m 'not compares_kernel' $$($(BIN)/python -m tests.kernel_use) $(ARGS)

postgresql: # Debian, as root or with sudo
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || $(APT) || { $(SUDO) apt-get -qq update && $(APT); }

redshift: install postgresql ## Test loads on a Redshift double; installs PostgreSQL if it is missing (Debian, as root or with sudo)
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -o python_files='campaign_*.py' tests/redshift $(ARGS)

deploy-tools: install # Checkers of charts, templates and images, as wheels
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/deploy.txt

services: postgresql # As Debian packages: PostgreSQL, Prometheus
	@deploy/eks/monitoring/tools.sh

prepare: ## Install what several targets of .ci/run need, so that they can run beside each other
	@$(MAKE) --no-print-directory -j 2 deploy-tools services

check: install ## Check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit-check: install ## Send the demo's 336,776 records to rotel despite kills, and check for one span each
	@AUDIT_CHECK_RECORDS=336776 $(BIN)/python -m pytest -q tests/integration/test_rotel.py -k kill $(ARGS)

chart-check: deploy-tools ## Render the Helm chart over a matrix of values and check every object; needs Node.js and 64-bit Linux on x86
	@mkdir -p .make/chart && cp deploy/eks/check/package*.json deploy/eks/check/crds.mjs .make/chart/ && cd .make/chart && npm ci --silent --no-audit --no-fund
	@$(BIN)/python -m pytest -q deploy/eks/check $(ARGS)

airflow-check: install ## Run the DAGs of examples/airflow in a real Airflow, in an environment of its own
	@test -x .make/airflow/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .make/airflow
	@$(BIN)/uv pip sync --quiet --python .make/airflow/bin/python --require-hashes requirements/airflow.txt
	@PATH="$(abspath $(BIN)):$$PATH" .make/airflow/bin/python -m pytest -q -n $(WORKERS) --dist worksteal \
		-c examples/airflow/pytest.ini -p no:cacheprovider examples/airflow $(ARGS)

readers-check: install ## Read our files with Spark, ClickHouse, DataFusion, DuckDB, pandas and Polars, in an environment of its own; needs Java
	@command -v java >/dev/null || { echo 'Spark needs Java 8, 11 or 17; install one' >&2; exit 1; }
	@test -x .make/readers/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .make/readers
	@$(BIN)/uv pip sync --quiet --python .make/readers/bin/python --require-hashes requirements/readers.txt
	@$(BIN)/python -m tests.readers.sample .make/readers-sample
	@PYTHONPATH=. READERS_SAMPLE=$(abspath .make/readers-sample) .make/readers/bin/python -m pytest -q -c tests/readers/pytest.ini -p no:cacheprovider tests/readers $(ARGS)

iam-check: install ## Check the IAM policies with an independent evaluator; needs Node.js
	@mkdir -p .make/iam && cp deploy/eks/iam/package*.json deploy/eks/iam/iam.mjs .make/iam/ && cd .make/iam && npm ci --silent --no-audit --no-fund
	@$(BIN)/python -m pytest -q deploy/eks/iam $(ARGS)

dashboards-check: install ## Test alerts with promtool, and every panel with Prometheus against a running pipeline; needs root on Debian
	@deploy/eks/monitoring/tools.sh
	@$(BIN)/python -m pytest -q deploy/eks/monitoring $(ARGS)

dashboard-picture: deploy-tools ## Draw the dashboard while a pipeline runs, into docs/images; needs root on Debian
	@deploy/eks/monitoring/tools.sh
	@$(BIN)/python -m deploy.eks.monitoring.draw docs/images/dashboard.png

image-check: deploy-tools ## Build the image without Docker, inspect it, and run the demo's pipeline in it; needs root on Debian
	@$(BIN)/python deploy/image/check.py

fuzz: install ## Send a million mutated records through each decoder; ARGS="--seed N" repeats a run
	@$(BIN)/python -m tests.fuzz.decoders $(ARGS)

native-check: install ## Compile the kernel with AddressSanitizer and UBSan, and compare it with the Python path; needs gcc
	@rm -rf .make/sanitized .make/native && mkdir -p .make && cp -r native .make/native && rm -rf .make/native/build
	@CFLAGS='-g -fsanitize=address,undefined -fno-sanitize-recover=all' $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
		--no-cache --reinstall --target .make/sanitized ./.make/native
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 STREAM_COMPARE=all PYTHONPATH=.make/sanitized \
		$(BIN)/python -m pytest -q -p no:cacheprovider -k 'not ordinary' $(SANITIZED) $(ARGS)

bench: install ## Compare with other consumers; prints ratios, writes .make/bench.json and .make/bench.svg
	@mkdir -p .make
	@$(BIN)/python benchmarks/run.py --json .make/bench.json --svg .make/bench.svg $(ARGS)

localstack: install ## Run the system tests and the commands of docs/install.md against LocalStack, which is installed for it; needs root on Debian
	@deploy/eks/monitoring/tools.sh
	@tests/localstack/run.sh $(abspath $(BIN))/python $(ARGS)

fleet: install ## Run a fleet with kills, freezes, reshards and failing AWS; FLEET_SEED and FLEET_SECONDS choose another run
	@$(BIN)/python -m pytest -q -o python_files='campaign_*.py' tests/fleet $(ARGS)

kcl-interop: install ## Run workers beside those of the real Java KCL, on one lease table (Java, Node.js)
	@tests/kcl/run.sh $(abspath $(BIN))/python tests/interop $(ARGS)

docs: install ## Rewrite the tables in the documentation that are generated from the code
	@$(BIN)/python -m tests.docs.generate

kcl: install ## Run a pipeline under the real MultiLangDaemon of the KCL (Java, Node.js)
	@tests/kcl/run.sh $(abspath $(BIN))/python tests/kcl $(ARGS)

lock: install ## Rewrite the locked requirements from pyproject.toml
	$(COMPILE) --universal --python-version 3.11 --extra dev --extra local pyproject.toml requirements/build.in -o requirements/dev.txt
	$(COMPILE) --universal --python-version 3.11 --extra iceberg --extra postgresql --extra telemetry pyproject.toml -o requirements/run.txt
	$(COMPILE) --universal --python-version 3.11 requirements/build.in -o requirements/build.txt
	$(COMPILE) --universal --python-version 3.11 -c requirements/run.txt requirements/kcl.in -o requirements/kcl.txt
	$(COMPILE) --universal --python-version 3.11 -c requirements/dev.txt requirements/lambda.in -o requirements/lambda.txt
	$(COMPILE) --universal --python-version 3.11 -c requirements/dev.txt requirements/deploy.in -o requirements/deploy.txt
	$(COMPILE) --universal --python-version 3.11 -c requirements/dev.txt requirements/readers.in -o requirements/readers.txt
	$(COMPILE) --python-version 3.13 requirements/localstack.in -o requirements/localstack.txt
	$(COMPILE) --universal --python-version 3.11 requirements/airflow.in -o requirements/airflow.txt
	echo 'uv' | $(COMPILE) --universal - -o requirements/installer.txt

clean: ## Remove everything that the targets made
	findmnt --raw --noheadings --output TARGET | grep "^$(CURDIR)/.make/" | sort --reverse | xargs --no-run-if-empty umount
	rm -rf $(VENV) .make .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache node_modules demo-output

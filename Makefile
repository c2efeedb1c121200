# One gate and one way to run, for people and for CI: `make help` lists the targets.
# Any Python from 3.11 to 3.13 does: `make run PYTHON=python3.12`.

PYTHON ?= python3
DATA ?=
TARGET ?=
ARGS ?=

PY := .venv/bin/python
INSTALLED := .venv/.installed

# The builds use BuildKit's caches, which older engines have to be asked for.
export DOCKER_BUILDKIT := 1
export COMPOSE_DOCKER_CLI_BUILD := 1
# Compose v2 where there is one, else docker-compose.
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
# What has to do with all containers has to do with those who watch them, too.
OBSERVED = --profile observability
# Fresh secrets are made inside the image: with Docker nothing else has to be installed. Where the
# environment is installed, or can be for want of Docker, a key is made without it.
KEYS = docker run --rm -i --network none --read-only loan-predictor-history python -m shared.access.keys
KEY_MAKER = $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(if $(shell command -v docker),history-image,$(INSTALLED)))

.PHONY: help run config test test-fast test-browser check train retrain format wheel client client-models lock clean env up observe down logs ps backup restore key password history-image compose-test bench flame load ladder chaos verify-audit report migration fuzz audit
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: $(INSTALLED) ## Start everything on this machine; Ctrl-C stops it, the data stays in .local
	@exec $(PY) -m services.local

config: $(INSTALLED) ## Check all settings and print those in force; make config FILE=.env for the containers
	@$(PY) -m services.local.config $(FILE)

test: $(INSTALLED) ## Run every test on real servers and processes, with branch coverage
	@# pytest would make the report twice: once for its total.
	$(PY) -m pytest --numprocesses auto --cov --cov-report= --cov-fail-under=0
	$(PY) -m coverage report

test-fast: $(INSTALLED) ## Run the tests that start no server and no process: within a minute
	$(PY) -m pytest --numprocesses auto -m unit

test-browser: $(INSTALLED) ## Test the dashboard in chromium: apt-get install chromium, or CHROMIUM=path; SCREENSHOTS=docs/img
	$(PY) -m pytest -s -o python_files='*_in_browser.py' tests/browser

check: $(INSTALLED) ## Check format, lint, types and import contracts
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

TRAINING = $(if $(TARGET),--target "$(TARGET)") $(if $(MODELS),--models "$(MODELS)") $(if $(MODELS_FILE),--models-file "$(MODELS_FILE)")

train: $(INSTALLED) ## Train models and compare them with those served: make train DATA=loans.csv TARGET=Loan_Status PROMOTE=1
	@test -n "$(DATA)" || { echo "Name the training data: make train DATA=loans.csv" >&2; exit 2; }
	$(PY) -m services.training "$(DATA)" $(TRAINING) $(if $(filter 1,$(PROMOTE)),--promote)

retrain: $(INSTALLED) ## Train with recorded outcomes, and hold the candidate to the gate: make retrain DATA=loans.csv RECORDS=http://127.0.0.1:8001
	@test -n "$(DATA)" -a -n "$(RECORDS)" || { echo "Name data and records: make retrain DATA=loans.csv RECORDS=http://127.0.0.1:8001" >&2; exit 2; }
	$(PY) -m services.training.retrain "$(DATA)" --records "$(RECORDS)" $(TRAINING) $(if $(GATE),--gate "$(GATE)")

format: $(INSTALLED) ## Format the code and mend what lint can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

wheel: $(INSTALLED) ## Build the product's wheel into dist
	rm -rf build
	.venv/bin/uv build --quiet --wheel --out-dir dist .
	@ls dist/loan_predictor-*

client: $(INSTALLED) ## Build the Python client's wheel and source distribution into dist
	.venv/bin/uv build --quiet --out-dir dist client
	@ls dist/loan_predictor_client-*

client-models: $(INSTALLED) ## Generate the Python client's models from the OpenAPI documents
	$(PY) -m tests.client.generate_models

lock: $(INSTALLED) ## Renew requirements.lock from pyproject.toml
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
		--no-emit-find-links --all-extras --python-version 3.11 \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

env: .env ## Write .env with fresh secrets for the containers, unless there is one

.env: | .env.example
	@$(MAKE) --no-print-directory history-image
	@umask 077 && $(KEYS) env < .env.example > .env.new && mv .env.new .env
	@echo "Wrote .env with fresh secrets; it stays on this machine."

up: .env ## Start the whole system in containers: http://localhost:8080
	$(COMPOSE) up --detach --build
	@echo "Ready. Ask for a decision, and for its record:"
	@echo "  open http://localhost:8080/app and sign in with $$(sed -n s/^DASHBOARD_LOGIN=//p .env)"
	@echo "  curl -s http://localhost:8080/predict -H \"X-API-Key: \$$(sed -n s/^API_KEY=//p .env)\" \\"
	@echo "    -H 'Content-Type: application/json' -d '{\"ApplicantIncome\": 5849, \"LoanAmount\": 128, \"Credit_History\": 1}'"
	@echo "  curl -s http://localhost:8080/history -H \"X-API-Key: \$$(sed -n s/^API_KEY=//p .env)\""

observe: .env ## Start Prometheus, Grafana and the Alertmanager beside the containers: http://localhost:3000
	@grep -q '^GRAFANA_PASSWORD=.' .env || { echo "Add a line GRAFANA_PASSWORD=... to .env, which is from before there was Grafana." >&2; exit 2; }
	$(COMPOSE) $(OBSERVED) up --detach --build
	@echo "Ready. Open http://localhost:3000 as admin with $$(sed -n s/^GRAFANA_PASSWORD=//p .env); alerts: docs/operations.md"

down: ## Stop the containers; their data stays
	$(COMPOSE) $(OBSERVED) down

logs: ## Follow the containers' logs
	$(COMPOSE) $(OBSERVED) logs --follow --tail 100

ps: ## Show the containers and their health
	$(COMPOSE) $(OBSERVED) ps

backup: ## Write the containers' records to a file in backups, while they run; FILE=name
	@COMPOSE="$(COMPOSE)" sh services/postgres/backup.sh $(FILE)

restore: ## Put a backup into the containers' empty database: make restore FILE=backups/loan-....dump
	@test -n "$(FILE)" || { echo "Name the backup: make restore FILE=backups/loan-....dump" >&2; exit 2; }
	@COMPOSE="$(COMPOSE)" sh services/postgres/restore.sh "$(FILE)"

key: $(KEY_MAKER) ## Make an API key: make key NAME=bank SCOPES=predict LIMITS=1000/hour
	@test -n "$(NAME)" && test -n "$(SCOPES)" || { echo \
		"Name the client and what it may do: make key NAME=bank SCOPES=predict,history:read" >&2; exit 2; }
	@$(if $(filter $(INSTALLED),$(KEY_MAKER)),$(PY) -m shared.access.keys,$(KEYS)) mint "$(NAME)" "$(SCOPES)" "$(or $(LIMITS),unlimited)"

password: $(INSTALLED) ## Hash a password for DASHBOARD_PASSWORD
	@$(PY) -m shared.access.keys password

history-image:
	@docker build --quiet --file Dockerfile.history --tag loan-predictor-history . > /dev/null

compose-test: $(INSTALLED) ## Prove the containers: build, start, kill, restart, upgrade; needs Docker
	$(PY) -m pytest -s --timeout 600 $(addprefix tests/compose/,images.py restored.py stack.py observed.py)

migration: $(INSTALLED) ## Write the migration to the tables as defined: make migration NAME="Record the age"
	@test -n "$(NAME)" || { echo 'Name the migration: make migration NAME="Record the age"' >&2; exit 2; }
	@$(PY) -m services.local.with_temporary_database services.history.revise "$(NAME)"
	@$(PY) -m ruff format --quiet services/history/migrations/versions

bench: $(INSTALLED) ## Measure every promise about speed; needs wrk: make bench ARGS="--quick"
	@$(PY) -m tests.load.bench $(ARGS)

flame: $(INSTALLED) ## Draw where a process spends its time, as a flame graph; needs wrk: make flame ARGS="--process consumer"
	@$(PY) -m tests.load.flame $(ARGS)

load: $(INSTALLED) ## Load the running system: make load RATE=200 SECONDS=10 PROVE=1
	@$(PY) -m tests.load.load $(if $(RATE),--rate $(RATE)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PROVE),--prove) $(ARGS)

chaos: $(INSTALLED) ## Break everything under load and prove the record: make chaos ARGS="--rate 200"
	@$(PY) -m tests.chaos.chaos $(ARGS)

ladder: $(INSTALLED) ## Raise the load on the running system until it no longer keeps up
	@$(PY) -m tests.load.ladder $(ARGS)

verify-audit: $(INSTALLED) ## Check the audit log against later changes: make verify-audit HEAD=12:9f86...
	@$(PY) -m services.local.with_local_database services.history.audit $(HEAD)

report: $(INSTALLED) ## Write the monitoring report of the running system: make report ARGS="--since 2026-01 --output report.html"
	@$(PY) -m services.local.with_local_database services.history.monitoring.report $(ARGS)

fuzz: $(INSTALLED) ## Fuzz all services by their OpenAPI documents: make fuzz EXAMPLES=2000
	FUZZ_EXAMPLES="$(or $(EXAMPLES),1000)" FUZZ_SEED="$(or $(SEED),$$(date +%s))" \
		$(PY) -m pytest -s tests/robustness/test_documents.py

# Not in the lock: it is asked of the network anyway, and needs more packages than it watches over.
# --strict, because a package that the service does not know has not been audited.
audit: $(INSTALLED) ## Ask PyPI for known vulnerabilities of everything in the lock
	.venv/bin/uv tool run --quiet "pip-audit>=2.10,<3" --strict --disable-pip --require-hashes \
		--progress-spinner off --requirement requirements.lock

clean: ## Remove the environment and all caches; .local with its data stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything comes by hash from the lock, uv itself first, through pip. uv does not read pip's
# settings; where it finds no index without them, pip installs the rest too. The client's own
# distribution lies in the checkout: the path, relative to site-packages, makes it importable.
$(INSTALLED): requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo \
		"Python 3.11, 3.12 or 3.13 is needed and $(PYTHON) is none: try make PYTHON=python3.12" >&2; \
		exit 1; }
	"$(PYTHON)" -m venv .venv
	awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements.lock > .venv/uv.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	.venv/bin/uv pip sync --quiet --compile-bytecode --require-hashes --python $(PY) requirements.lock \
		|| $(PY) -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	echo ../../../../client/src > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/loan-predictor-client.pth"
	touch $@

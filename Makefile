# Set-up and the commands of the README; `make` alone lists them.
PYTHON ?= python3
PORT ?= 5000
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db
export MLFLOW_DISABLE_TELEMETRY := true
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help train test test-compose lint audit ui serve cluster mysql secrets pin up down status logs lock

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

train: .venv/requirements.lock ## set up .venv, then train and evaluate the model families
	@mlflow run . --env-manager local --experiment-name \
		"$${MLFLOW_EXPERIMENT_NAME:-$$(python -c 'from understudy.table import TABLE; print(TABLE.name)')}"

test: .venv/requirements-test.lock ## set up what the tests need, then run them
	@pytest

test-compose: .venv/requirements-test.lock ## run the team's server through its story, with Docker
	@pytest -n 0 -rs -x tests/compose

lint: .venv/requirements-test.lock ## check style, types, workflows and licences
	@ruff check .
	@ruff format --check .
	@mypy
	@check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	@pip-licenses >/dev/null

audit: .venv/requirements-test.lock ## ask whether a vulnerability of a locked package is known
	@pip-audit --strict --progress-spinner off --disable-pip $(foreach lock,$(wildcard requirements*.lock),-r $(lock))

ui: .venv/requirements.lock ## start MLflow's UI on http://127.0.0.1:5000 (PORT=...); Ctrl-C stops it
	@mlflow ui --backend-store-uri "$$MLFLOW_TRACKING_URI" --port $(PORT)

serve: .venv/requirements.lock ## serve the Production version on http://127.0.0.1:1234; Ctrl-C stops it
	@./serve.sh

cluster: .venv/requirements-cluster.lock ## start a Dask cluster of two workers on this machine; Ctrl-C stops it
	@python -m deploy.cluster

mysql: ## start a private MySQL or MariaDB with an MLflow server on it; Ctrl-C stops both
	@$(CHECK_PYTHON)
	@$(PYTHON) -c 'from deploy import mysql; mysql.errors.run(mysql.check)'
	@$(MAKE) -s .venv/requirements-server.lock
	@python -m deploy.mysql

secrets: ## make the passwords of the team's server, in deploy/secrets
	@$(CHECK_PYTHON)
	@$(PYTHON) -m deploy.secrets

pin: ## write the digests of the team server's images into .env; run it again for newer ones
	@deploy/pin.sh

up: ## start a team's server in Docker: MySQL, MLflow with accounts, the model server
	@$(CHECK_PYTHON)
	@docker compose version >/dev/null 2>&1 || \
		{ echo 'error: there is no Docker Compose' >&2; echo 'fix: install Docker with its compose plugin' >&2; exit 2; }
	@$(MAKE) -s secrets
	@docker compose up --detach --wait --build --quiet-pull
	@echo "MLflow: http://$$(docker compose port proxy 5000), as admin with the password in deploy/secrets/admin_password"
	@echo "model server: http://$$(docker compose port model 1234)"
	@echo 'docs/operations.md has the other accounts, and what each may do'
	@docker compose config | awk '/^  [A-Z]+_IMAGE: / && !/@sha256:/ { tags = tags ", " $$2 } \
		END { if (tags) print "these images are not pinned and may change:" substr(tags, 2) "; make pin pins them" }'

down: ## stop the team's server and keep its data
	@docker compose down

status: ## say whether the team's server is healthy
	@docker compose ps --all

logs: ## show the logs of the team's server, until Ctrl-C
	@docker compose logs --follow --tail 100

lock: .venv/requirements-test.lock ## write the lock files from pyproject.toml; UPGRADE=--upgrade takes newer ones
	@$(COMPILE) -o requirements.lock
	@$(COMPILE) -c requirements.lock --extra boosting -o requirements-boosting.lock
	@$(COMPILE) -c requirements.lock --extra cluster -o requirements-cluster.lock
	@$(COMPILE) -c requirements-boosting.lock -c requirements-cluster.lock \
		--extra boosting --extra cluster --group test -o requirements-test.lock
	@$(COMPILE) -c requirements-cluster.lock --extra cluster --extra server -o requirements-server.lock
	@$(COMPILE) -c requirements.lock --extra spark -o requirements-spark.lock
COMPILE = uv pip compile $(UPGRADE) -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	pyproject.toml --extra project

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo 'error: $(PYTHON) is older than Python 3.11' >&2; \
	echo 'fix: name a newer one, as in: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 2; }

# Measured from empty caches, for Python 3.11 on Linux (x86-64).
.venv/requirements.lock: MB = 273
.venv/requirements-boosting.lock: MB = 282
.venv/requirements-cluster.lock: MB = 277
.venv/requirements-test.lock: MB = 358
.venv/requirements-server.lock: MB = 294
.venv/requirements-spark.lock: MB = 730

# pip prints three lines for each of a hundred packages, or with --quiet nothing: what it says of the large ones is the
# progress. It compiles bytecode as it installs, which spares every first import seconds.
.venv/%.lock: SHELL := bash
.venv/%.lock: %.lock
	@$(CHECK_PYTHON)
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo 'installing the packages of $< into .venv: at most $(MB) MB to download, one to two minutes; the large ones:'
	@set -o pipefail; .venv/bin/python -m pip install --progress-bar off --disable-pip-version-check --require-hashes -r $< | \
		awk '/ MB\)$$/ { sub(".*/", "", $$2); print "   ", $$1, $$2, $$3, $$4; fflush() } \
			/^Installing/ { print "    all packages are here and are being unpacked"; fflush() }'
	@cp $< $@

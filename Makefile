# Two commands: `make run` executes the five labs, `make test` every test.
# Each builds what it lacks and nothing twice.

PYTHON  ?= python3.11
DATASET ?= store
PROFILE ?= laptop
EVENTS  ?=
SECTION ?=

REQUIREMENTS := requirements/$(if $(filter gpu,$(PROFILE)),gpu,cpu).txt
READY   := .venv/.ready
UV      := build/uv/bin/uv
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export UV_LINK_MODE ?= copy

.PHONY: run test lab notebooks lint lock setup clean

run: $(READY)
	lab run --dataset $(DATASET) --profile $(PROFILE) \
	  $(if $(EVENTS),--events '$(EVENTS)') $(if $(SECTION),--section $(SECTION))

test: $(READY) lint
	pytest -n 2 --dist loadgroup --no-loadscope-reorder $(PYTEST)

lab: $(READY)
	jupyter lab --ip 127.0.0.1 --notebook-dir notebooks \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

notebooks: $(READY)
	lab build

lint: $(READY)
	ruff check -q .
	ruff format -q --check .

setup: $(READY)

# uv, pinned and hashed, builds .venv from the lock with no resolver.
$(READY): $(REQUIREMENTS) requirements/uv.txt pyproject.toml
	@sh requirements/check.sh $(PYTHON)
	@test -x $(UV) || { $(PYTHON) -m venv build/uv && \
	  build/uv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/uv.txt; }
	@test -x .venv/bin/python || $(UV) venv -q --python $(PYTHON) .venv
	$(UV) pip sync -q --require-hashes $(REQUIREMENTS)
	$(UV) pip install -q --no-deps --no-build-isolation -e .
	@touch $@

# Compile the lock anew. No index or file address gets into it.
lock:
	$(UV) pip compile -q --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --override requirements/overrides.txt --custom-compile-command 'make lock' \
	  requirements/cpu.in -o requirements/cpu.txt

clean:
	rm -rf build workspace

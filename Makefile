# Two commands: `make run` executes the five labs, `make test` every test; `make check` the quick ones.
# Each builds what is missing, and nothing twice.

PYTHON  ?=
DATASET ?= store
PROFILE ?= laptop
EVENTS  ?=
SECTION ?=

GPU     := $(filter gpu,$(PROFILE))
DEVICE  := $(or $(GPU),cpu)
REQUIREMENTS := requirements/$(DEVICE).txt
READY   := .venv/.ready-$(DEVICE)
VENV    := .venv/bin/python# by name: uv would rather change an environment that is active
UV      := build/uv/bin/uv
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export UV_LINK_MODE ?= copy
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP# packages of another Python
unexport UV_WORKING_DIR UV_PYTHON_PREFERENCE# another folder; contradicts --managed-python

# uv, Jupyter and Matplotlib keep files at home. Where that cannot be written, home is in build.
ifeq ($(shell test -d "$$HOME" && test -w "$$HOME" && echo yes),)
export HOME := $(CURDIR)/build/home
$(shell mkdir -p "$(HOME)")
endif

TEST    := pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: run test check lab notebooks slides figures lint lock setup driver gpu clean

run: $(GPU:gpu=driver) $(READY) $(GPU)
	lab run --dataset $(DATASET) --profile $(PROFILE) \
	  $(if $(EVENTS),--events '$(EVENTS)') $(if $(SECTION),--section $(SECTION))

test: $(GPU:gpu=driver) $(READY) $(GPU) lint
	$(TEST) $(PYTEST)

# The quick half: no server, no notebook, no browser.
check: $(READY) lint
	$(TEST) -m "not real" $(PYTEST)

lab: $(READY)
	jupyter lab --ip 127.0.0.1 --notebook-dir notebooks $(JUPYTER)

notebooks: $(READY)
	lab build

# Lab 1 as slides, in one file that needs no network.
slides: $(READY)
	python docs/make_slides.py build/slides.html

# Write the figures in README and docs from what benchmarks and labs left in build/.
figures: $(READY)
	python docs/figures.py --collect

lint: $(READY)
	ruff check -q .
	ruff format -q --check .

setup: $(READY)

# Both fail, and say why: one where there is no GPU, before anything is downloaded for it, and
# one where TensorFlow sees none.
driver:
	@sh requirements/driver.sh $(if $(PYTHON),'$(PYTHON)')
gpu: $(READY)
	@python -m multistage.device

# An environment holds its own place in its scripts: one that was moved or copied is made anew, and
# so is one whose Python is gone.
ifneq ($(shell test -x $(VENV) && cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
# uv, pinned and hashed, builds .venv from the lock with no resolver. Modules are compiled here, once:
# where Python may not write bytecode, each start of TensorFlow would compile them (23 s against 7).
# Jupyter's settings hold for a seat as well: one kernel, this one, which keeps its history in memory;
# JupyterLab asks about no news and shows none of the grader's menus.
SETTINGS := $(wildcard requirements/*.json)
$(READY): $(REQUIREMENTS) requirements/uv.txt $(SETTINGS) pyproject.toml
	@sh requirements/setup.sh $(if $(PYTHON),'$(PYTHON)')
	@rm -f .venv/.ready*
	$(UV) pip sync -q --python $(VENV) --compile-bytecode --require-hashes $(REQUIREMENTS)
	$(UV) pip install -q --python $(VENV) --no-deps --no-build-isolation -e .
	@install -D -m 644 requirements/jupyterlab.json .venv/etc/jupyter/labconfig/page_config.json
	@install -D -m 644 requirements/jupyter_server_config.json -t .venv/etc/jupyter
	@install -D -m 644 requirements/ipython_kernel_config.json -t .venv/etc/ipython
	@pwd -P > $@

# Compile the locks anew, the GPU's from the CPU's. No index or file address gets into them.
# The CPU's lock is for the two machines that pyproject.toml names (tool.uv.environments). uv gives
# every pin a marker: sed drops it from a pin for both, and keeps the machine of a pin for one.
COMPILE := $(UV) pip compile -q --upgrade --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
OVERRIDES := --override requirements/overrides.txt
lock:
	$(COMPILE) $(OVERRIDES) --universal requirements/cpu.in -o requirements/cpu.txt
	sed -Ei "s/ ; \(.*\) or \(.*\)//; s/ ; .*(platform_machine == '\w+').*/ ; \1 \\\\/" requirements/cpu.txt
	$(COMPILE) $(OVERRIDES) --override requirements/gpu-overrides.txt \
	  --python-platform x86_64-manylinux_2_35 requirements/gpu.in -o requirements/gpu.txt

# What the labs and tests made; the environment and what it stands on stay.
clean:
	mkdir -p build
	find build -mindepth 1 -maxdepth 1 ! -name uv ! -name python -exec rm -rf {} +
	rm -rf workspace

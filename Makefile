# `make demo` and `make test` do all the set-up there is: they create .venv and install the tested set into it.
# All paths are relative, so that the checkout may lie in a folder with spaces in its name.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# Three at once, since many tests wait; a file's stay together, since they share servers and clips.
WORKERS ?= 3
PYTEST := $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
DEMO_OUTPUT := examples/court-540x960.mp4
DEMO := $(VENV)/bin/keyscale upscale examples/court.mp4 examples/court.json -o $(DEMO_OUTPUT) --size 540x960 --overwrite

.PHONY: help venv demo test test-full test-fast mutants smoke torture lint format bench bench-quality bench-gpu pictures clean

help:
	@echo "make demo        upscale the example clip (sets everything up first)"
	@echo "make pictures    draw the pictures of README.md and docs/use.md anew, from the example clip"
	@echo "make test        the tests that have to pass before a merge (sets everything up first); WORKERS=4 for more cores"
	@echo "make test-full   all tests: every remote fault on Modal's own client, more torture, all excerpts and clips; an hour"
	@echo "make test-fast   the tests that start neither processes nor servers"
	@echo "make mutants     seed faults one at a time, each of which a test of make test has to catch"
	@echo "make smoke       install the package by itself and upscale the example clip with it, under a minute"
	@echo "make lint        ruff, ruff format and mypy (for Linux, macOS and Windows), checks only"
	@echo "make format      let ruff rewrite the sources"
	@echo "make torture     damaged and hostile files, full disks, kills; hours; TORTURE='--share 0.1' for a tenth"
	@echo "make bench       speed, memory and start-up time on this machine; BENCH='--quick' for less"
	@echo "make bench-quality  the networks against originals, on clips in ../shared; BENCH='--quick' for less, --docs for more"
	@echo "make bench-gpu   a GPU's stages and whole jobs, under ten minutes; BENCH='--device cuda:1 --json numbers.json'"
	@echo "make clean       remove .venv, caches and the demo's result"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: $(PYTHON) is not there; install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: keyscale needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1);" \
	       "name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV) || { \
	  echo "make: no virtual environment; on Debian and Ubuntu 'apt install python3-venv' provides it" >&2; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

# 540x960 is four times what the camera sees at its closest, and keeps the demo short; the time of the network itself
# does not depend on the target size.
demo: $(STAMP)
	$(DEMO)

pictures: $(STAMP)
	$(RUN) -m tools.make_pictures
	$(RUN) -m tools.screens

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-full: $(STAMP)
	$(PYTEST)

test-fast: $(STAMP)
	$(PYTEST) -m "not slow and not processes and not loopback" --ignore tests/storage --ignore tests/end_to_end

mutants: $(STAMP)
	$(RUN) -m tools.mutants $(MUTANTS)

smoke: $(STAMP)
	$(RUN) tools/smoke.py $(SMOKE)

# Each platform has a cache of its own: mypy drops one that was made for another. What starts, signals and limits processes
# as POSIX does is not looked at for Windows: the tests, the tools that torture, and the bench that runs the tests' servers.
PORTABLE := src/keyscale bench tools examples --exclude '^tools/torture/|^bench/(remote|bills)\.py$$'

lint: $(STAMP)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy --platform linux --cache-dir .mypy_cache/linux
	$(RUN) -m mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(RUN) -m mypy --platform win32 --cache-dir .mypy_cache/win32 $(PORTABLE)

format: $(STAMP)
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

torture: $(STAMP)
	$(RUN) -m tools.torture $(TORTURE)

bench: $(STAMP)
	@if [ -z "$$KEYSCALE_WEIGHTS_DIR" ] && [ -d ../shared/weights ]; then export KEYSCALE_WEIGHTS_DIR=../shared/weights; fi; \
	$(RUN) -m bench.run $(BENCH)

bench-quality: $(STAMP)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@if [ -z "$$KEYSCALE_WEIGHTS_DIR" ] && [ -d ../shared/weights ]; then export KEYSCALE_WEIGHTS_DIR=../shared/weights; fi; \
	$(RUN) -m bench.quality $(BENCH)

bench-gpu: $(STAMP)
	@if [ -z "$$KEYSCALE_WEIGHTS_DIR" ] && [ -d ../shared/weights ]; then export KEYSCALE_WEIGHTS_DIR=../shared/weights; fi; \
	$(RUN) -m bench.gpu $(BENCH)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dist build $(DEMO_OUTPUT) examples/.court-*.keyscale

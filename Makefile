# The GenCE book. `make book` and `make test` are all you need; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The versions to install; empty, as in `make test PINS=`: the newest of everything.
PINS ?= -c constraints.txt
# Test processes: each needs a core and about 2 GB. The cells of a notebook stay together, in their order.
TESTERS ?= 2
GRID ?= workflow/grids/laptop.yaml
PROFILE ?= workflow/profiles/cpu
# Bins of the adaptive temperature scaling in `make collect`; empty: the paper's 15.
BINS ?=
# One page in `make evidence`; empty: all. FORCE=1 makes also what is fresh.
PAGE ?=
FORCE ?=
# Locks are not needed: a run takes its own lock, and results are moved into place whole. So a killed engine leaves
# nothing behind that would stop the next one.
SNAKEMAKE := $(BIN)/python -m snakemake -s workflow/Snakefile --cores $(CORES) --nolock --rerun-incomplete --quiet host --keep-going
# A profile says how many cores or jobs at a time; CORES=2 on the command line overrules it.
SWEEP = $(BIN)/python -m snakemake -s workflow/Snakefile --profile '$(PROFILE)' $(if $(filter command line,$(origin CORES)),--cores $(CORES)) sweep --config 'grid=$(GRID)'
# Commands that only look must not start a long download.
INSTALLED = test -x $(BIN)/python || { echo "There is no $(VENV) here: run \`make setup\` first (it downloads about 3 GB once)." >&2; exit 1; }

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads that wait must not spin: on a busy machine they would take the cores from those that work.
export OMP_WAIT_POLICY := passive

# The tag that `make release-notes` reads from the changelog.
TAG ?=
# A key of 16 characters or more, in `make course`: solutions and guide for marking, sealed with it.
INSTRUCTOR ?=

.PHONY: help setup book html pdf links test test-thorough test-cluster lint sweep plan cost calibrate collect plot evidence course slides-pdf status fold pin refresh serve dist release-notes bench lock clean distclean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## install everything into .venv

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): this downloads about 3 GB once, most of it PyTorch."
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, but $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PINS) -e '.[test]'
	@touch $@

book: $(STAMP) ## execute all notebooks afresh and build the book from them
	@$(SNAKEMAKE) book
	@echo "The book: $(CURDIR)/_build/fresh/html/index.html"

html: $(STAMP) ## build the book from the committed outputs, without executing anything
	@$(SNAKEMAKE) html
	@echo "The book: $(CURDIR)/_build/committed/html/index.html"

pdf: html ## print the pages of `make html` into one PDF (needs Chromium; 40 pages take 10 minutes)
	@$(BIN)/python workflow/pdf.py _build/committed/html _build/gence-book.pdf

links: html ## try every link to another host
	@$(BIN)/jupyter-book build --builder linkcheck _build/committed/source

# The tests write no run into the folder of yours. Notebooks are executed once, and compared with their outputs: those of
# the change and a drawn twelfth (notebooks/conftest.py).
# One thread for each: tensors are tiny here, and the kernels of the notebooks are processes of their own.
PYTEST = OMP_NUM_THREADS=1 GENCE_RUNS="$$(mktemp -d)" $(BIN)/python -m pytest -n $(TESTERS)
ALL = tests gence notebooks --nbval --nbval-current-env --dist loadfile --durations 20

ifdef FAST
test: lint ## run all tests; FAST=1: those that the change since BASE touches, for 30 seconds
	@$(PYTEST) --within 30 $$($(BIN)/python workflow/touched.py $(BASE))
else
test: lint html
	@$(PYTEST) $(ALL) -m 'not thorough and not cluster'
endif

test-thorough: lint html ## run them with all repetitions, and with other people's training frameworks (installs them)
	@$(BIN)/python -m pip install $(PINS) -e '.[test,integrations]'
	@HYPOTHESIS_PROFILE=thorough $(PYTEST) $(ALL) -m 'not cluster'

# One test at a time: each may kill the daemons that all of them share.
test-cluster: $(STAMP) ## run small sweeps on a real Slurm on this machine (Linux; first: apt install slurm-wlm munge)
	@$(PYTEST) -n 0 -m cluster tests/workflow/test_cluster.py --durations 0

lint: $(STAMP) ## check style
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

sweep: $(STAMP) ## run a grid of experiments: make sweep GRID=workflow/grids/laptop.yaml PROFILE=workflow/profiles/gpu
	@$(SWEEP)

plan: ## show what is stale in the book, or in GRID=..., and why
	@$(INSTALLED)
	@$(if $(filter file,$(origin GRID)),$(SNAKEMAKE) -n book,$(SWEEP) -n)

cost: ## say what a sweep of GRID=... would cost: runs, jobs, hours
	@$(INSTALLED)
	@$(BIN)/python workflow/sweep.py cost '$(GRID)' '$(PROFILE)'

calibrate: $(STAMP) ## measure on this machine how fast the networks of GRID=... train
	@$(BIN)/python workflow/sweep.py calibrate '$(GRID)' '$(PROFILE)'

collect: ## merge the records of GRID=... into results/<grid>.csv; BINS=5 where a validation set is small
	@$(INSTALLED)
	@$(BIN)/python workflow/sweep.py collect '$(GRID)' '$(PROFILE)' $(if $(BINS),--bins '$(BINS)')

plot: ## draw results/<grid>.csv of GRID=... into _build/plots
	@$(INSTALLED)
	@$(BIN)/python workflow/sweep.py plot '$(GRID)'

evidence: $(STAMP) ## train the networks behind the pages on results, where stale: PAGE=experiments/benchmark, FORCE=1
	@$(BIN)/python workflow/evidence.py plan '$(PAGE)' $(if $(FORCE),--force)
	@$(SNAKEMAKE) evidence --config 'page=$(PAGE)' 'force=$(FORCE)'
	@$(BIN)/python workflow/evidence.py accept

course: $(STAMP) ## copies for a class and slides in _build/course; INSTRUCTOR=key adds solutions and guide, sealed
	@GENCE_COURSE_KEY='$(subst ','\'',$(INSTRUCTOR))' $(BIN)/python workflow/course.py copies
	@$(BIN)/python workflow/course.py slides

slides-pdf: $(STAMP) ## the slides of `make course`, printed beside them by Chromium
	@$(BIN)/python workflow/course.py slides pdf

status: ## say for every notebook, and the evidence behind it, whether it is fresh
	@$(INSTALLED)
	@$(BIN)/python workflow/notebook_tools.py status

fold: $(STAMP) ## tag the notebook cells whose code carries no idea, so that pages fold it
	@$(BIN)/python workflow/notebook_tools.py fold

pin: $(STAMP) ## write the notebooks' cells that install: address of the repository, version behind the outputs
	@$(BIN)/python workflow/notebook_tools.py pin

refresh: $(STAMP) ## execute what is stale and take the outputs over into notebooks/ (commit the code first)
	@$(SNAKEMAKE) book
	@find _build/executed -name '*.ipynb' -exec $(BIN)/python workflow/notebook_tools.py accept {} +

serve: html ## serve the book on http://localhost:8000
	@$(BIN)/python -m http.server -d _build/committed/html 8000

dist: ## build wheel and sdist into dist/, and read a wheel's README as PyPI would (installs two tools into _build)
	@$(PYTHON) -m venv _build/packaging
	@_build/packaging/bin/python -m pip install -q build twine
	@rm -rf dist
	@_build/packaging/bin/python -m build -q
	@_build/packaging/bin/python -m twine check --strict dist/*

release-notes: ## print what the changelog says of TAG=v0.3.0; fails where changelog or CITATION.cff name another version
	@$(PYTHON) workflow/publishing.py notes '$(TAG)'

bench: $(STAMP) ## measure time and memory of every loss on one CPU thread (20 minutes, on a quiet machine)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/losses.py

lock: $(STAMP) ## write the versions that are installed now into constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove everything built, keep .venv
	@rm -rf _build .snakemake dist

distclean: clean ## remove .venv too
	@rm -rf $(VENV)

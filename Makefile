# Everything runs in .venv, made on first use: a machine needs Python 3.10 or newer, git and make.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install test test-processors lint demo clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile
	@echo "Variables: PYTHON=python3.12 (makes .venv), WORKERS=8 (test processes)"

install: .venv/installed ## make .venv with the pinned versions

test: lint ## lint, type check and run the tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

test-processors: install ## run all tests as on older processors, and with two threads (four whole runs)
	@failed=; run() { \
		echo "== $$*"; \
		env NASSEG_LONG=1 "$$@" $(BIN)/pytest -n $(WORKERS) --dist worksteal || failed="$$failed\n  $$*"; \
	}; \
	run OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41; \
	run OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2; \
	run OMP_NUM_THREADS=1; \
	run OMP_NUM_THREADS=2; \
	if [ -n "$$failed" ]; then printf "failed with:$$failed\n" >&2; exit 1; fi

lint: install ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

demo: install ## search networks of 100 million MAdds for the built-in street scenes, for ten minutes
	$(BIN)/nasseg search --max-madds 100M --budget 10min

clean: ## remove .venv, caches and build products; runs/ stays
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is not Python 3.10 or newer: name one that is, as in 'make PYTHON=python3.12'" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: apt install python3-venv)" >&2; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[dev,export,video,postgresql]'
	@touch $@

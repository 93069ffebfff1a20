# Two commands do all the set-up: `make demo` and `make test`. Both need Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-lowest lint docs bench clean

demo: $(VENV)/.ready
	$(BIN)/einthoven demo demo

test: $(VENV)/.ready lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 --dist loadfile -q

# Long tests, and those that read all of PTB-XL where it is at hand.
test-slow: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow -n 2 --dist loadfile -q

# Fast tests with the lowest versions that pyproject.toml allows.
test-lowest: .venv-lowest/.ready
	OMP_NUM_THREADS=1 .venv-lowest/bin/pytest -m "not slow" -n 2 --dist loadfile -q

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy studies/pitfalls

# docs/networks: a page a network, from the code and the results.
docs: $(VENV)/.ready
	$(BIN)/python docs/pages/generate.py

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/run.py

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	touch $@

.venv-lowest/.ready: requirements-lowest.txt pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --disable-pip-version-check --quiet -r requirements-lowest.txt
	.venv-lowest/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest demo

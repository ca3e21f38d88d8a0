# make demo    a real run in a minute: no GPU, no download of weights
# make test    all tests, on the newest transformers and on 4.57.6
# make check   what a change must pass: format, lint, types, tests
# make bench   the CPU benchmark behind the README's cost table

PYTHON ?= python3
VENV := .venv
OLD_VENV := .venv-4.57
BIN := $(VENV)/bin

# Everything that goes through transformers; the rest does not change with its version.
OLD_TESTS := tests/qwen tests/estimators tests/jobs/test_jobs_frozen.py tests/demo/test_demo_model.py

# Two workers, one thread each: small models, many tests.
PYTEST := -m pytest -n 2 -q
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: install demo test lint check bench clean
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# transformers 4.57.6 in an environment of its own, which borrows all else (torch above all) from the first one.
$(OLD_VENV)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(OLD_VENV)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		"$$($(OLD_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/borrowed.pth"
	$(OLD_VENV)/bin/python -m pip install --quiet "transformers==4.57.6"
	$(OLD_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# What the page's tests drive: Debian's Chromium, and axe-core, which looks for what a screen reader cannot use.
AXE := $(VENV)/axe/node_modules/axe-core/axe.min.js
.PHONY: browser
browser: $(AXE)
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "Chromium is needed for the page's tests: apt-get install chromium (as root)"; exit 1; fi

$(AXE): | install
	npm install --silent --no-fund --no-audit --prefix $(VENV)/axe axe-core@4.14.1

demo: install
	$(BIN)/python scripts/eval_voc.py

test: install $(OLD_VENV)/.installed browser
	$(BIN)/python $(PYTEST) tests
	$(OLD_VENV)/bin/python $(PYTEST) $(OLD_TESTS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

bench: install
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/one_pass.py --json benchmarks/results/one_pass.json

clean:
	rm -rf $(VENV) $(OLD_VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

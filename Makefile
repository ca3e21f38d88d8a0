# make demo          a real run in a minute: no GPU, no download of weights
# make test          all tests, on the newest transformers that is locked and on 4.57.6
# make check         what a change must pass: format, lint, types, tests
# make bench         the CPU benchmark behind the README's cost table
# make lock          choose the newest versions anew and write them to tests/locks/
# make fuzz          thousands of broken inputs: each must be read, or refused by name
# make test-kills    runs that are killed at twenty moments, and go on
# make test-latest   all tests with the newest version of everything, locked or not
# make test-lowest   all tests with the lowest versions that pyproject.toml allows
# make test-lerobot  all tests beside LeRobot 0.6.1, in one environment of Python 3.12
# make bench-lerobot LeRobot's own labeller beside ours, on the same dataset and checkpoint

PYTHON ?= python3
VENV := .venv
OLD_VENV := .venv-4.57
RABC_VENV := .venv-rabc
BIN := $(VENV)/bin

# The versions that demo, test and lint run with, a file for each Python.
LOCKS := tests/locks
LOCK := $(LOCKS)/py$(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
OLD_LOCK := $(LOCKS)/py311-transformers-4.57.6.txt

# Everything that goes through transformers; the rest does not change with its version.
OLD_TESTS := tests/qwen tests/estimators tests/jobs/test_jobs_frozen.py tests/demo/test_demo_model.py

# Two workers, one thread each: small models, many tests.
PYTEST := -m pytest -n 2 -q
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: install demo test lint check bench lock test-kills test-latest test-lowest test-lerobot bench-lerobot clean
install: $(VENV)/.installed

# hatchling first, from the lock: a build in isolation would fetch its newest.
$(VENV)/.installed: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(LOCK) hatchling editables
	$(BIN)/python -m pip install --quiet --constraint $(LOCK) --no-build-isolation --editable ".[dev]"
	touch $@

# transformers 4.57.6 in an environment of its own, which borrows all that may be as new (torch above all) from the
# first one.
$(OLD_VENV)/.installed: $(VENV)/.installed $(OLD_LOCK)
	$(PYTHON) -m venv $(OLD_VENV)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		"$$($(OLD_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/borrowed.pth"
	$(OLD_VENV)/bin/python -m pip install --quiet --constraint $(OLD_LOCK) --no-build-isolation --editable ".[dev]" transformers==4.57.6
	touch $@

# What the page's tests drive: Debian's Chromium, and axe-core, which looks for what a screen reader cannot use.
AXE := $(VENV)/axe/node_modules/axe-core/axe.min.js
.PHONY: browser
browser: $(AXE)
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "Chromium is needed for the page's tests: apt-get install chromium (as root)"; exit 1; fi

$(AXE): | install
	@command -v npm >/dev/null || { echo "npm is needed for the page's tests (axe-core): apt-get install npm"; exit 1; }
	npm install --silent --no-fund --no-audit --prefix $(VENV)/axe axe-core@4.14.1

$(LOCKS)/py%.txt:
	@echo "There is no $@: Python 3.11, 3.12 or 3.13 is wanted (make PYTHON=python3.12 ...), or make test-latest"; exit 1

# LeRobot's reader of progress files, beside which nothing of LeRobot is needed; it borrows torch and pyarrow.
$(RABC_VENV)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(RABC_VENV)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		"$$($(RABC_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/borrowed.pth"
	$(RABC_VENV)/bin/python -m pip install --quiet --no-deps lerobot==0.4.4 pandas==3.1.1 python-dateutil==4.0.0 six==1.17.0
	touch $@

demo: install
	$(BIN)/python scripts/eval_voc.py

test: install $(OLD_VENV)/.installed $(RABC_VENV)/.installed browser
	$(BIN)/python $(PYTEST) tests
	$(OLD_VENV)/bin/python $(PYTEST) $(OLD_TESTS)

# Broken inputs by the thousand: make fuzz FUZZ=5000. Each is made from its number; FUZZ_FIRST begins elsewhere.
FUZZ ?= 1000
FUZZ_FIRST ?= 0
.PHONY: fuzz
fuzz: install
	TOPREWARD_FUZZ=$(FUZZ) TOPREWARD_FUZZ_FIRST=$(FUZZ_FIRST) $(BIN)/python $(PYTEST) --timeout=0 tests/test_fuzz.py

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

bench: install
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/one_pass.py --json benchmarks/results/one_pass.json

# -- versions ------------------------------------------------------------------------------------------

UV := .venv-uv/bin/uv --no-config

.venv-uv/bin/uv:
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet uv

# One torch for all; it is most of the download. The old lock departs from the new one only where it must.
HELD := torch==2.14.1 torchvision==0.29.1
COMPILE := $(UV) pip compile pyproject.toml --extra dev --constraint /dev/stdin --python-platform x86_64-manylinux_2_28 \
	--no-build --no-header --no-annotate --quiet

lock: .venv-uv/bin/uv
	for minor in 11 12 13; do \
		printf '%s\n' $(HELD) | $(COMPILE) --upgrade --python-version 3.$$minor -o $(LOCKS)/py3$$minor.txt || exit; done
	cp $(LOCKS)/py311.txt $(OLD_LOCK)
	printf '%s\n' $(HELD) transformers==4.57.6 | $(COMPILE) --python-version 3.11 -o $(OLD_LOCK)

test-kills: install
	TOPREWARD_TEST_KILLS=20 $(BIN)/python -m pytest -q tests/jobs/test_jobs_kills.py

# Each in an environment of its own, made anew. Versions that are not locked may warn of what is to come.
UNLOCKED := $(PYTEST) -W default::FutureWarning -W default::DeprecationWarning --ignore tests/test_warnings.py

test-latest: .venv-uv/bin/uv browser
	$(UV) venv --quiet --clear --no-python-downloads --python $(PYTHON) .venv-latest
	$(UV) pip install --quiet --python .venv-latest --editable ".[dev]"
	.venv-latest/bin/python $(UNLOCKED) tests

test-lowest: .venv-uv/bin/uv browser
	$(UV) venv --quiet --clear --no-python-downloads --python $(PYTHON) .venv-lowest
	$(UV) pip install --quiet --python .venv-lowest --resolution lowest-direct --editable ".[dev]"
	.venv-lowest/bin/python $(UNLOCKED) tests

LEROBOT_PYTHON ?= python3.12

test-lerobot: .venv-uv/bin/uv browser
	$(UV) venv --quiet --clear --no-python-downloads --python $(LEROBOT_PYTHON) .venv-lerobot
	$(UV) pip install --quiet --python .venv-lerobot --editable ".[dev]" lerobot==0.6.1
	.venv-lerobot/bin/python $(UNLOCKED) tests

# Qwen3.5 and 3.6 where versions of transformers differ in their linear layers; 5.1 has none, and must say so.
HYBRID_VERSIONS ?= 5.1.0 5.2.0 5.6.2 5.7.0 5.12.1
HYBRID_TESTS := tests/qwen/test_delta.py tests/estimators/test_hybrid.py

.venv-transformers-%/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(@D)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		"$$($(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])')/borrowed.pth"
	$(@D)/bin/python -m pip install --quiet "transformers==$*"
	touch $@

.PRECIOUS: .venv-transformers-%/.installed
.PHONY: test-hybrid
test-hybrid: install $(HYBRID_VERSIONS:%=.venv-transformers-%/.installed)
	$(BIN)/python $(PYTEST) $(HYBRID_TESTS)
	for version in $(HYBRID_VERSIONS); do \
		PYTHONPATH=$(CURDIR) .venv-transformers-$$version/bin/python $(UNLOCKED) $(HYBRID_TESTS) || exit; done

# LeRobot's own labeller beside ours, with the transformers that it asks for. 1 thread, some 5 minutes.
bench-lerobot: .venv-uv/bin/uv
	$(UV) venv --quiet --clear --no-python-downloads --python $(LEROBOT_PYTHON) .venv-lerobot-bench
	$(UV) pip install --quiet --python .venv-lerobot-bench --editable . "lerobot[dataset,topreward]==0.6.1"
	OMP_NUM_THREADS=1 .venv-lerobot-bench/bin/python benchmarks/lerobot_labeller.py \
		--json benchmarks/results/lerobot_labeller.json

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis

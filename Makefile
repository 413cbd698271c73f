# make quickstart   environment, then the main job on images that need no download
# make test         the tests; PYTEST=… gives pytest more options
# make check        ruff, mypy, tests
# make package      builds the sdist and the wheel, and tries the wheel in a fresh environment (five minutes);
#                   PYTHON=… names another Python
# make fuzz         random networks, configs and results folders, the same ones each time (two minutes)
# make faults       the long part of the fault suite: kills, full disks, damaged files (an hour)
# make slurm        the sbatch files of docs/slurm/, on a Slurm cluster of two nodes on this machine (ten minutes; needs
#                   root, and the Debian packages slurm-wlm and munge)
# make bench        bnbench beside the documents' loops and other tools (half an hour); with a GPU, run
#                   python -m benchmarks gpu (ten minutes)
# make docs         the pages that are made from tables
# make simulations  how often verdicts and intervals are wrong, for docs/calibration.md (three minutes)
# Data: BNBENCH_DATA_DIR names the folder of MNIST and FashionMNIST (default ./data).

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
TESTS = $(VENV)/.ready-tests
# Two cores have work for three workers: some tests wait for programs that they start.
PARALLEL = -n 3 --dist worksteal

.PHONY: quickstart test check package fuzz faults slurm bench docs simulations clean

quickstart: $(READY)
	$(BIN)/bnbench run configs/quickstart.yaml --resume

test: $(TESTS)
	$(BIN)/python -m pytest -q $(PARALLEL) --timeout 300 $(PYTEST)

check: $(TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q $(PARALLEL) --timeout 300 --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

package:
	$(PYTHON) tests/installed.py

# Forks want no threads.
fuzz: export OMP_NUM_THREADS = 1
fuzz: export OPENBLAS_NUM_THREADS = 1
fuzz: $(TESTS)
	$(BIN)/python -m tests.faults.fuzz_networks 60
	$(BIN)/python -m tests.faults.fuzz_configs 1000
	$(BIN)/python -m tests.faults.fuzz_folders 60

faults: $(TESTS)
	$(BIN)/python -m pytest -q -s -m faults tests/faults

slurm: $(TESTS)
	PATH="$(abspath $(BIN)):$$PATH" tests/slurm/check.sh

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks

$(READY): pyproject.toml runner/training/kernels/kernels.cpp
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "bnbench needs Python 3.11 or newer; name one with make PYTHON=…" >&2; exit 1)
	@echo "making $(VENV): PyTorch is large, this takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $(READY)

$(TESTS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $(TESTS)

docs: $(READY)
	$(BIN)/python -m docs.shown
	$(BIN)/python docs/api.py
	$(BIN)/python docs/reproductions.py
	$(BIN)/python -m docs.claims
	$(BIN)/python docs/performance.py
	$(BIN)/python docs/cluster.py
	$(BIN)/python -m docs.calibration
	$(BIN)/python -m docs.recompute

simulations: $(READY)
	$(BIN)/python docs/simulations.py
	$(BIN)/python -m docs.calibration

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

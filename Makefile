# Two commands set everything up on a machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test fast check soak bench clean

demo: $(READY)
	$(BIN)/startup-ray demo

# The tests without Ray first: what is cheap to find out is found out first. Those of tests/trainers need TensorFlow alone;
# of the others each process has a Ray of its own, and waits for processes to start more than it computes.
test: check
	$(BIN)/python -m pytest -n 2 -m "not ray and not soak"
	$(BIN)/python -m pytest -n 2 -m "ray and not soak" tests/trainers
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "ray and not soak" --ignore tests/trainers

fast: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not ray and not soak"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

soak: $(READY)
	$(BIN)/python -m pytest -m soak --timeout 3600

bench: $(READY)
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/driver_memory.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/sweep.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv

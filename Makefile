# make demo: from nothing to a dataset, a trained operator and a report.   make test: the test suite.
# make docs: the documentation site.
# All make .venv first where it is missing. For another Python: make PYTHON=python3.12 demo.
# For a CPU-only torch where pip would fetch the CUDA one: make TORCH_INDEX=https://download.pytorch.org/whl/cpu demo.
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
DEMO := outputs/demo

.PHONY: demo test lint slow docs gpu-smoke clean

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/installed
	$(BIN)/southwell-generate pde=darcy pde.grid=64 samples.train=1000 samples.validation=100 samples.test=100 \
		seed=7 out=$(DEMO)/dataset
	$(BIN)/southwell-data validate $(DEMO)/dataset
	$(BIN)/southwell-train experiment=demo dataset.path=$(DEMO)/dataset out=$(DEMO)/run
	$(BIN)/southwell-evaluate checkpoint=$(DEMO)/run/best.pt dataset.path=$(DEMO)/dataset out=$(DEMO) certify=10
	@echo
	@echo "Look at $(DEMO)/report.md (its pictures: samples.png, loss.png; its numbers: metrics.json)."
	@echo "The checkpoint is $(DEMO)/run/best.pt, the dataset $(DEMO)/dataset."

# In two processes, each file in one of them; `.venv/bin/python -m pytest` is the same in one.
test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

# Every model on a GPU for a few steps, against the CPU; skips with a sentence where there is none.
gpu-smoke: .venv/installed
	$(BIN)/python -m benchmarks.gpu_smoke

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in docs/_build/index.html. A broken link, a reference to nothing or an undocumented public name is an error.
.PHONY: docs
docs: .venv/docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf .venv docs/_build docs/api docs/project outputs build dist *.egg-info

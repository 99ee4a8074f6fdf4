# make sample   DiT-ToCa's main job on the embedded model: a picture and a table
# make test     lint and all tests
# make lint     ruff, its formatter and mypy
# make nightly  every resumable program killed forty times
# make docs     the documentation, into site/
# All set up a virtual environment first, once. PYTHON (3.11 or newer) and VENV may be given.

PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
REQUIREMENTS := $(addprefix environments/, requirements-dit.txt requirements-pixart.txt requirements-opensora.txt requirements-flux.txt \
	requirements-test.txt requirements-docs.txt)
PACKAGES := common DiT-ToCa PixArt-alpha-ToCa Open-Sora-ToCa flux-ToCa

.PHONY: sample test lint nightly docs clean

sample: $(VENV)/.ready
	cd DiT-ToCa && $(BIN)/python demo.py --output ../sample.png

test: lint
	set -e; for package in $(PACKAGES); do echo "== $$package"; (cd $$package && $(BIN)/python -m pytest); done

lint: $(VENV)/.ready
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/ruff format --check --quiet $(PACKAGES)
	$(BIN)/mypy

nightly: $(VENV)/.ready
	set -e; for package in $(filter-out common, $(PACKAGES)); do (cd $$package && $(BIN)/python -m pytest tests/nightly_kills.py); done

docs: $(VENV)/.ready
	cd common && NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

$(VENV)/.ready: $(REQUIREMENTS) $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(REQUIREMENTS:%=-r %)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PACKAGES:%=-e %)
	touch $@

clean:
	rm -rf $(VENV) site sample.png

# SPDX-License-Identifier: BSD-2-Clause
# Everything a user types. `make chat` and `make test` install what is missing first; the second call starts at once.

VENV := .venv
BIN  := $(CURDIR)/$(VENV)/bin

# LiteX finds meson and ninja by name.
export PATH := $(BIN):$(PATH)

.PHONY: chat test soak bench clean
.DEFAULT_GOAL := test

chat: $(VENV)/.ready-run
	@litellama chat $(ARGS)

test: $(VENV)/.ready-dev
	python -m pytest -n 2 $(ARGS)

soak: $(VENV)/.ready-dev
	python tests/soak.py $(ARGS)

bench: $(VENV)/.ready-run
	litellama bench $(ARGS)

$(VENV)/.ready-%: setup.py constraints.txt pyproject.toml setup.sh host/doctor.py
	./setup.sh $(VENV) $*

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache
	rm -rf "$${LITELLAMA_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/litellama}"
	find . -name __pycache__ -prune -exec rm -rf {} +

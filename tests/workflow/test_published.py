"""The published experiments: each is read and planned without a network, and its twin goes through the whole graph.

A twin may take 90 s on two cores. That is held here in CPU seconds, because other work on the machine does not count in
those: Snakemake's, and what each manifest says of its job, whose process is forked from one with torch in it
(warm_python.py).
"""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from checkouts import ROOT, Checkout, new_checkout
from no_network import LOG, refuse_network

from sft_command import sft

pytestmark = pytest.mark.slow

EXPERIMENTS = (
    "robo2vlm_qwen2_5_vl",
    "unsloth_vision_lora",
    "open_r1_distill",
    "trl_capybara",
    "fp8_llama",
    "docs_corpus",
)
PAGES = ("README.md", "CONTRIBUTING.md")
CPU_SECONDS = 2 * 90


def files(name: str) -> tuple[str, str]:
    return f"config/experiments/{name}.yaml", f"config/experiments/twins/{name}.yaml"


def with_pages(path: Path) -> Checkout:
    checkout = new_checkout(path / "checkout")
    for page in PAGES:
        shutil.copy(ROOT / page, checkout.path)
    (checkout.path / "locks").symlink_to(ROOT / "locks")
    return checkout


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = with_pages(tmp_path_factory.mktemp("clean"))
    refuse_network(checkout.path.parent)
    return checkout


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("twin", [False, True], ids=["published", "twin"])
def test_it_is_checked_without_a_network(clean: Checkout, name: str, twin: bool) -> None:
    folder = clean.path.parent
    asked = files(name)[: 2 if twin else 1]
    done = sft("check", *asked, cwd=clean.path, scripts=clean.path / "scripts", PYTHONPATH=str(folder / "no-network"))
    assert done.returncode == 0, done.stderr
    assert "train_model" in done.stdout
    assert not (folder / LOG).exists(), (folder / LOG).read_text()
    assert not (clean.path / "results").exists()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_its_head_says_where_it_comes_from_and_what_is_wrong_with_it(name: str) -> None:
    published, twin = ((ROOT / file).read_text() for file in files(name))
    head = published.partition("\ndatasets:")[0]
    for heading in ("# Source: ", "# Published: ", "# Known to be wrong with it:", "# What our keys change, and why: "):
        assert heading in head, heading
    assert "# Hardware: " in head
    assert "needs CUDA" in twin or "What only CUDA can show, and this does not:" in twin


@pytest.fixture
def fresh(tmp_path: Path, unmeasured) -> Checkout:
    return with_pages(tmp_path)


def run_twin(checkout: Checkout, name: str) -> Path:
    """Run the whole graph of a twin without a network, within its CPU time; returns the folder of results."""
    before = _cpu_seconds()
    done = checkout.snakemake("--configfile", *files(name), **refuse_network(checkout.path.parent))
    logs = "".join(path.read_text()[-1500:] for path in checkout.path.glob("results/**/*.log"))
    assert done.returncode == 0, done.stderr[-2000:] + logs[-6000:]
    jobs = [json.loads(path.read_text())["cpu_seconds"] for path in checkout.path.glob("results/**/manifest.json")]
    assert jobs
    assert _cpu_seconds() - before + sum(jobs) < CPU_SECONDS
    log = checkout.path.parent / LOG
    assert not log.exists(), log.read_text()
    results = checkout.path / "results"
    assert (results / f"experiments/{name}/figures/comparison/comparison.svg").stat().st_size > 1000
    assert (results / "archive/archive.tar.gz").exists()
    return results


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows_of(results: Path, pattern: str) -> list[dict]:
    [path] = results.glob(pattern)
    return pyarrow.parquet.read_table(path).to_pylist()


def facts(results: Path, pattern: str) -> dict:
    [path] = results.glob(pattern)
    return json.loads(path.read_text())["facts"]


def strategies(results: Path) -> list[tuple[str, int]]:
    """How each run really was spread: strategy and processes."""
    told = [json.loads(path.read_text())["distributed"] for path in results.glob("runs/*/effective.json")]
    return [(one["strategy"], one["world_size"]) for one in told]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_robo2vlm_goes_through_two_processes(fresh: Checkout) -> None:
    results = run_twin(fresh, "robo2vlm_qwen2_5_vl")
    prepared = facts(results, "datasets/*/manifest.json")
    assert prepared["choices_per_row"] == {"5": 76}
    assert set(prepared["answers"]) <= set("ABCDE")
    assert facts(results, "splits/*/manifest.json")["rows"] == {"train": 56, "validation": 8, "test": 12}
    asked = rows_of(results, "runs/*/evaluations/*/predictions.parquet")
    assert {(row["step"], len(row["choice_log_likelihoods"])) for row in asked} == {(0, 5), (3, 5), (6, 5)}
    assert len(asked) == 3 * 12
    assert strategies(results) == [("fsdp1", 2)]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_unsloth_vision_trains_adapters_on_vision_and_language(fresh: Checkout) -> None:
    results = run_twin(fresh, "unsloth_vision_lora")
    [adapter] = results.glob("runs/*/checkpoints/checkpoint-4/adapter_model.safetensors")
    from safetensors import safe_open

    with safe_open(adapter, "pt") as file:
        trained = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    moved = {name for name, tensor in trained.items() if "lora_B" in name and tensor.abs().max() > 0}
    for part in ("vision_model", "language_model", "cross_attn", "fc1", "gate_proj"):
        assert any(part in name for name in moved), part
    assert not any("multi_modal_projector" in name for name in trained)
    [effective] = results.glob("runs/*/effective.json")
    quantised = json.loads(effective.read_text())["methods"]["quantization"]
    assert (quantised["kind"], quantised["double"]) == ("nf4", True)
    [parity] = results.glob("runs/*/models/float32/parity.json")
    measured = json.loads(parity.read_text())["steps"]["4"]
    assert measured["logits"]["merged_against_unmerged"]["prompts"]["relative"] < 1e-5
    losses = measured["quantised"]["loss_of_prompts"]
    assert losses["shipped"] == pytest.approx(losses["trained"], rel=1e-5)
    assert len(rows_of(results, "runs/*/evaluations/*/predictions.parquet")) == 2 * 8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_open_r1_holds_rows_out_and_compares_adapters_with_all_weights(fresh: Checkout) -> None:
    results = run_twin(fresh, "open_r1_distill")
    split = facts(results, "splits/*/manifest.json")
    assert split["rows"] == {"train": 28, "validation": 6, "test": 6}
    assert sum(split["unused"].values()) == 20, "the other folders hold the same rows again"
    text = rows_of(results, "datasets/*/examples.parquet")[0]["completion"]
    assert text.startswith("<think>")
    assert strategies(results) == 2 * [("fsdp2", 2)]
    with (results / "experiments/open_r1_distill/table/results.csv").open() as file:
        assert {row["cell"] for row in csv.DictReader(file)} >= {"full", "lora"}


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_capybara_takes_the_steps_of_trl_and_the_comparison_can_fail(fresh: Checkout) -> None:
    results = run_twin(fresh, "trl_capybara")
    compared = facts(results, "experiments/trl_capybara/expected/manifest.json")
    assert compared["runs"] == 1
    assert compared["largest_differences"]["loss"] < 1e-4, "on a CPU it is TRL's to about the last bit"
    # The same with one published value moved, and with another learning rate.
    path = fresh.path / "config/experiments/twins/expected/trl_capybara.json"
    published = json.loads(path.read_text())
    published["loss"][6] += 2e-3
    path.write_text(json.dumps(published))
    again = fresh.snakemake("--configfile", *files("trl_capybara"))
    assert again.returncode == 1
    [log] = results.glob("experiments/trl_capybara/expected/compare_expected.log")
    assert "at step 7, published" in log.read_text()
    assert not (log.parent / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_expected_values_of_the_twin_are_what_trl_measures_today() -> None:
    code = "import json, trl_reference; print(json.dumps(trl_reference.recorded()))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = json.loads(done.stdout.splitlines()[-1])
    published = json.loads((ROOT / "config/experiments/twins/expected/trl_capybara.json").read_text())
    for name in ("loss", "grad_norm"):
        assert [step[name] for step in steps] == pytest.approx(published[name], abs=1e-4)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_alpaca_has_its_form_and_no_roles_and_one_side_multiplies_in_fp8(fresh: Checkout) -> None:
    results = run_twin(fresh, "fp8_llama")
    methods = [json.loads(path.read_text()).get("methods") for path in results.glob("runs/*/effective.json")]
    assert len(methods) == 2
    [fp8] = [made["float8"] for made in methods if made]
    assert (fp8["recipe"], fp8["emulated"], fp8["layers"]) == ("tensorwise", True, 5)
    prompts = next(results.glob("runs/*/evaluations/*/prompts.json"))
    shown = next(iter(json.loads(prompts.read_text()).values()))["prompts"][0]["prompt"]
    assert "### Instruction:\nSay " in shown
    assert shown.endswith("### Response:\n")
    assert "<|im_start|>" not in shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pages_are_read_and_one_is_held_out(fresh: Checkout) -> None:
    results = run_twin(fresh, "docs_corpus")
    [table] = results.glob("sources/*/files/config/README.md.parquet")
    page = (fresh.path / "config/README.md").read_bytes().decode()
    for chunk in pyarrow.parquet.read_table(table).to_pylist():
        assert chunk["text"] == page[chunk["char_start"] : chunk["char_end"]]
    held_out = rows_of(results, "splits/*/test.parquet")
    assert {row["source_file"] for row in held_out} == {"CONTRIBUTING.md.parquet"}
    assert {row["prompt"] for row in held_out} == {None}
    # A page that changes is read again, and so is one that joins.
    with (fresh.path / "CONTRIBUTING.md").open("a") as file:
        file.write("\n## One more section\n\nOf one sentence.\n")
    planned = fresh.planned("--configfile", *files("docs_corpus"))
    assert planned["download_dataset"] == 1

"""What is made again and what is not: the truth table, with real Snakemake.

Tests: sft.workflow, sft.workflow.attached, sft.workflow.planned
"""

import ast
import json
import os
import random
import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from checkouts import Checkout

from sft_command import sft

pytestmark = pytest.mark.slow

PREPARED = {"download_dataset": 1, "prepare_dataset": 1, "split_dataset": 1, "tokenize_dataset": 1}
DATA = PREPARED | {"audit_splits": 1, "audit_labels": 1}
# The first experiment's conversion is what the second starts from; the second's is made by its predict job.
CONVERTED = {"convert_checkpoint": 1}
TRAINED = {"train_model": 2, "predict": 2, "score": 2}
SHOWN = {"plot": 8, "tabulate_results": 2}
LEDGER = {"collect_metrics": 2, "archive": 1}


def half(counts: dict[str, int]) -> dict[str, int]:
    """The jobs of one of the two experiments."""
    return {rule: n // 2 or 1 for rule, n in counts.items()}


def test_finished_study_has_nothing_to_do(finished: Checkout) -> None:
    assert finished.planned() == {}


def test_every_result_was_made_once(finished: Checkout) -> None:
    """Counted by what the scripts themselves said at their ends: two experiments, one data set, tokenised once."""
    made = [
        (path.stem, line.split(" ")[2])
        for path in (finished.path / "results").rglob("*.log")
        for line in path.read_text().splitlines()
        if re.match(rf"[\d:]{{8}} {path.stem} \S+: ", line)
    ]
    assert [rule for rule, _ in made].count("tokenize_dataset") == 1
    assert [rule for rule, _ in made].count("train_model") == 2
    assert len(made) == len(set(made))


def test_touching_every_file_runs_nothing(checkout: Checkout) -> None:
    files = [path for path in checkout.path.rglob("*") if path.is_file() and ".snakemake" not in path.parts]
    random.Random(0).shuffle(files)
    for n, path in enumerate(files):
        os.utime(path, (2_000_000_000 + n, 2_000_000_000 + n))
    assert checkout.planned() == {}


def test_results_in_a_second_clone_run_nothing(finished: Checkout, tmp_path: Path) -> None:
    """Copied without Snakemake's records and without times, as a download of the results would be."""
    copy = tmp_path / "clone"
    shutil.copytree(
        finished.path, copy, symlinks=True, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(".snakemake")
    )
    assert Checkout(copy).planned() == {}


def test_moved_checkout_runs_nothing(checkout: Checkout, tmp_path: Path) -> None:
    moved = checkout.path.rename(tmp_path / "moved")
    assert Checkout(moved).planned() == {}


def test_another_working_directory_runs_nothing(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("results", "data", ".snakemake"):
        (checkout.path / name).rename(elsewhere / name)
    assert checkout.planned("--directory", str(elsewhere)) == {}
    arguments = ("-s", str(checkout.path / "workflow/Snakefile"), "--directory", str(elsewhere))
    assert checkout.planned(*arguments, cwd=tmp_path) == {}


def test_core_count_runs_nothing(checkout: Checkout) -> None:
    assert checkout.planned("--cores", "1") == {}


def test_order_of_keys_runs_nothing(checkout: Checkout) -> None:
    checkout.edit("config/config.yaml", lambda text: "\n".join(_blocks_reversed(text)))
    checkout.replace(
        "config/config.yaml", "learning_rate: 1e-3, weight_decay: 1e-2", "weight_decay: 0.01, learning_rate: 0.001"
    )
    assert checkout.planned() == {}


def test_execution_settings_run_nothing(checkout: Checkout) -> None:
    checkout.edit("config/config.yaml", lambda text: text + "\nexecution: {threads: 2, micro_batch_size: 4}\n")
    assert checkout.planned() == {}


def test_comments_docstrings_and_formatting_run_nothing(checkout: Checkout) -> None:
    scripts = [path for path in (checkout.path / "scripts").rglob("*.py") if path.read_text().strip()]
    for path in scripts:
        tree = ast.parse(path.read_text())
        if isinstance(tree.body[0], ast.Expr):
            tree.body[0].value.value = "Another docstring."
        path.write_text("# Another comment.\n" + ast.unparse(tree) + "\n\n\n# And one more.\n")
    assert checkout.planned() == {}


def test_changed_value_runs_its_chain(checkout: Checkout) -> None:
    """Of the second experiment, which nothing else starts from."""
    checkout.replace("config/config.yaml", "learning_rate: 2e-3", "learning_rate: 3e-3")
    assert checkout.planned() == half(TRAINED) | half(SHOWN) | {"collect_metrics": 1, "archive": 1}
    checkout.replace("config/config.yaml", "learning_rate: 3e-3", "learning_rate: 2e-3")
    assert checkout.planned() == {}


def test_changed_value_runs_what_starts_from_it(checkout: Checkout) -> None:
    checkout.replace("config/config.yaml", "learning_rate: 1e-3", "learning_rate: 3e-3")
    assert checkout.planned() == TRAINED | CONVERTED | SHOWN | LEDGER


def test_swapped_values_run(checkout: Checkout) -> None:
    checkout.replace(
        "config/config.yaml", "learning_rate: 2e-3, weight_decay: 1e-2", "learning_rate: 1e-2, weight_decay: 2e-3"
    )
    assert checkout.planned() == half(TRAINED) | half(SHOWN) | {"collect_metrics": 1, "archive": 1}


def test_presentation_redraws_only(checkout: Checkout) -> None:
    checkout.replace("config/config.yaml", "  more_words:\n", "  more_words:\n    title: More words\n")
    assert checkout.planned() == half(SHOWN) | {"archive": 1}


def test_edited_script_runs_its_jobs_and_what_follows(checkout: Checkout) -> None:
    checkout.edit("scripts/score.py", lambda text: text + "\nEDITED = True\n")
    assert checkout.planned() == {"score": 2} | SHOWN | LEDGER
    checkout.replace("scripts/score.py", "\nEDITED = True\n", "")
    assert checkout.planned() == {}


def test_edits_that_can_change_no_value_run_nothing(checkout: Checkout) -> None:
    """Of the runtime, the planning and the cluster any; of science the texts of errors, docstrings and annotations."""
    for name in ("runtime/claim", "runtime/stage", "runtime/job_queue", "slurm/retries", "planning/planner"):
        checkout.edit(f"scripts/sft/{name}.py", lambda text: text + "\nEDITED = True\n")
    checkout.replace("scripts/sft/runtime/claim.py", "Wait for it, or stop it first", "Wait for it or stop it")
    checkout.replace("scripts/sft/training/checkpoint.py", '"""Checkpoints that are whole or absent.', '"""Edited.')
    errors = re.compile(r'(raise StageError\(\s*f?")')
    for name in ("training/adapter", "data/tokens/masking", "evaluation/questions", "conversion/gate"):
        edited = errors.search((checkout.path / f"scripts/sft/{name}.py").read_text())
        assert edited, name
        checkout.edit(f"scripts/sft/{name}.py", lambda text: errors.sub(r"\1Edited: ", text))
    assert checkout.planned() == {}


def test_edited_training_runs_trainings_and_what_follows_and_is_told(checkout: Checkout) -> None:
    checkout.replace(
        "scripts/sft/training/training_arguments.py", '"neftune_noise_alpha": None', '"neftune_noise_alpha": 1e-8'
    )
    assert checkout.planned() == TRAINED | CONVERTED | SHOWN | LEDGER
    told = checkout.snakemake("-n").stderr
    assert "train_model: sft/training/training_arguments.py: requested_arguments" in told
    assert re.search(
        r"other code than there is now made \d+ results \(.*2 train_model.*\), in \d+\.\d device-minutes", told
    )


def test_above_the_budget_nothing_is_made_again_unasked(checkout: Checkout) -> None:
    checkout.edit("scripts/score.py", lambda text: text + "\nEDITED = True\n")
    before = _state(checkout.path / "results")
    done = checkout.snakemake("--config", "rerun_budget_minutes=0")
    assert done.returncode == 1
    assert "error: execution.rerun_budget_minutes: 0 is less than the " in done.stderr
    assert "score: score.py: EDITED" in done.stderr
    assert _state(checkout.path / "results") == before
    assert checkout.planned("--config", "rerun_budget_minutes=0") == {"score": 2} | SHOWN | LEDGER
    assert checkout.snakemake("--until", "score").returncode == 0
    assert checkout.planned() == {}  # the scores are the same bytes, so nothing that was made from them is stale


def test_edited_helper_runs_the_jobs_that_import_it(checkout: Checkout) -> None:
    checkout.edit("scripts/sft/evaluation/statistics.py", lambda text: text + "\nEDITED = True\n")
    planned = checkout.planned()
    assert planned["score"] == 2
    assert not planned.keys() & (TRAINED.keys() - {"score"} | CONVERTED.keys())


def test_edited_code_is_seen_without_the_records_of_snakemake(checkout: Checkout) -> None:
    shutil.rmtree(checkout.path / ".snakemake")
    checkout.edit("scripts/score.py", lambda text: text + "\nEDITED = True\n")
    assert checkout.planned() == {"score": 2} | SHOWN | LEDGER


def test_older_code_is_kept_on_request_and_said(checkout: Checkout) -> None:
    checkout.edit("scripts/score.py", lambda text: text + "\nEDITED = True\n")
    done = checkout.snakemake("-n", "--config", "code_policy=accept")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
    assert "was made by other code than there is now" in done.stderr


def test_other_data_bytes_run_everything_but_the_models(checkout: Checkout) -> None:
    checkout.replace("data/train.jsonl", "say 3 in letters", "say 3 in words")
    assert checkout.planned() == DATA | TRAINED | CONVERTED | SHOWN | LEDGER


def test_another_data_file_is_seen(checkout: Checkout) -> None:
    shutil.copy(checkout.path / "data/train.jsonl", checkout.path / "data/train-2.jsonl")
    assert checkout.planned() == DATA | TRAINED | CONVERTED | SHOWN | LEDGER


def test_damaged_result_is_made_again(checkout: Checkout) -> None:
    scores = next((checkout.path / "results").rglob("scores.parquet"))
    scores.write_bytes(scores.read_bytes()[:-10])
    planned = checkout.planned()
    assert planned["score"] == 1
    assert "train_model" not in planned


def test_result_without_manifest_does_not_count(checkout: Checkout) -> None:
    next((checkout.path / "results/tokens").glob("*/manifest.json")).unlink()
    assert checkout.planned()["tokenize_dataset"] == 1


def test_result_made_within_another_job_is_made_again_by_it(checkout: Checkout) -> None:
    """The second experiment's conversion has no job of its own: its predictions' job makes it first."""
    parity = next(path for path in (checkout.path / "results").rglob("parity.json") if "lora" in str(path))
    lost = parity.with_name("manifest.json")
    lost.unlink()
    follow = {"score": 1, "collect_metrics": 1, "archive": 1}
    assert checkout.planned() == {"predict": 1} | follow | half(SHOWN)
    done = checkout.snakemake("--until", "predict")
    assert done.returncode == 0, done.stderr
    assert json.loads(lost.read_text())["within"].startswith("data-")
    # The same bytes came out, so nothing that was made from them is stale.
    assert checkout.planned() == {}


def test_changed_pins_run_nothing_and_are_told(checkout: Checkout) -> None:
    """An upgrade does not throw results away; what would be mixed is said before anything runs."""
    checkout.edit("envs/train.yaml", lambda text: re.sub("numpy==[0-9.]+", "numpy==1.0", text))
    assert checkout.planned() == {}
    told = sft("check", cwd=checkout.path, scripts=checkout.path / "scripts")
    assert told.returncode == 0, told.stderr
    version = metadata.version("numpy")
    assert re.search(rf"\d+ finished results were made with numpy {version} \(pinned 1.0\): kept", told.stdout)


def test_cache_hit_writes_nothing(checkout: Checkout) -> None:
    before = _state(checkout.path / "results")
    done = checkout.snakemake()
    assert done.returncode == 0
    assert _state(checkout.path / "results") == before


def test_equal_cells_of_two_experiments_are_one_run(checkout: Checkout) -> None:
    text = (checkout.path / "config/config.yaml").read_text()
    block = text.partition("experiments:\n")[2].partition("  more_words:")[0]
    checkout.edit("config/config.yaml", lambda old: old + block.replace("  words:", "  same:", 1))
    planned = checkout.planned()
    assert not planned.keys() & (TRAINED | CONVERTED).keys()
    assert planned["collect_metrics"] == 1


def _state(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _blocks_reversed(text: str) -> list[str]:
    """The top-level blocks of the configuration in reverse order."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            blocks.append([])
        blocks[-1].append(line)
    return [line for block in reversed(blocks) for line in block]

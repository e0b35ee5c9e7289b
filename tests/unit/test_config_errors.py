"""Bad configurations: one clear line each, naming file, line, key and fix.

Tests: sft.config.errors, sft.config.reader, sft.config.references
"""

from pathlib import Path

import pytest

from sft.config.errors import ConfigError
from sft.config.reader import load

GOOD = """\
datasets:
  digits:
    source: {package: scikit-learn, name: digits}
    format: multiple_choice
    prompt_key: question
    choice_key: choices
    answer_key: correct_answer
    split: {validation: {rows: 200}}
models:
  tiny: {source: {initialise: qwen2_5_vl}}
experiments:
  first:
    dataset: digits
    model: tiny
    method: full
    seeds: [0, 1]
    training: {learning_rate: 2e-3, global_batch_size: 64, max_steps: 120, max_length: 64}
  second:
    dataset: digits
    model: {run: first}
    method: lora
    training: {learning_rate: 2e-3, global_batch_size: 64, max_steps: 120, max_length: 64}
"""

# (what it is, text replaced, by what, the line that is blamed, what the message says)
TABLE = [
    ("unknown key", "learning_rate: 2e-3, global", "learnig_rate: 2e-3, global", 17, "Did you mean learning_rate?"),
    ("unknown top key", "models:", "model:", 9, "Did you mean models?"),
    (
        "wrong type",
        "max_steps: 120, max_length: 64}\n  second",
        "max_steps: many, max_length: 64}\n  second",
        17,
        "number",
    ),
    (
        "a fraction of a step",
        "max_steps: 120, max_length: 64}\n  second",
        "max_steps: 1.5, max_length: 64}\n  second",
        17,
        "whole number",
    ),
    ("a truth for a number", "seeds: [0, 1]", "seeds: [true]", 16, "true"),
    (
        "a length policy where rows are split",
        "max_steps: 120, max_length: 64}\n  second",
        "max_steps: 120, max_length: 64, packing: bfd_split, on_too_long: drop}\n  second",
        17,
        "packing: bfd_split splits long rows; none is too long. Remove on_too_long, or choose packing: bfd",
    ),
    (
        "a side that nothing is cut on",
        "max_steps: 120, max_length: 64}\n  second",
        "max_steps: 120, max_length: 64, truncation_side: left}\n  second",
        17,
        "has no effect with on_too_long: error",
    ),
    ("repeated seed", "seeds: [0, 1]", "seeds: [0, 0]", 16, "more than once"),
    ("no seeds", "seeds: [0, 1]", "seeds: []", 16, "seeds"),
    ("unknown choice", "method: full", "method: ful", 15, "Did you mean full?"),
    ("unknown data set", "first:\n    dataset: digits", "first:\n    dataset: digit", 13, "did you mean digits?"),
    ("unknown model", "model: tiny", "model: tny", 14, "did you mean tiny?"),
    ("unknown experiment", "{run: first}", "{run: frist}", 20, "did you mean first?"),
    ("unknown cell", "{run: first}", "{run: first/lora}", 20, "has no cell lora"),
    ("seed that was not run", "    method: lora", "    method: lora\n    seeds: [5]", 20, "has no seed [5]"),
    ("run of itself", "{run: first}", "{run: second}", 20, "circle"),
    ("unknown evaluation data", "    method: lora", "    method: lora\n    evaluate_on: [digits, old]", 22, "old"),
    ("name with a slash", "  first:\n", "  a/b:\n", 12, "cannot be a name"),
    ("name that climbs", "  first:\n", "  a..b:\n", 12, "cannot be a name"),
    (
        "batch not divisible",
        "experiments:",
        "execution: {micro_batch_size: 7}\nexperiments:",
        18,
        "micro_batch_size: 4",
    ),
    ("empty grid", "    method: lora", "    method: lora\n    grid: {training.learning_rate: []}", 22, "has no values"),
    (
        "grid over nothing",
        "    method: lora",
        "    method: lora\n    grid: {training.learning: [1]}",
        22,
        "learning_rate",
    ),
    ("lora without lora", "    method: full", "    method: full\n    lora: {r: 4}", 16, "no effect"),
    (
        "two lengths",
        "max_steps: 120, max_length: 64}\n  second",
        "max_steps: 9, num_train_epochs: 1, max_length: 64}\n  second",
        17,
        "exactly one",
    ),
    ("save off the grid", "max_length: 64}\n  second", "max_length: 64, save_steps: 50}\n  second", 17, "40 does"),
    (
        "unknown extra",
        "max_length: 64}\n  second",
        "max_length: 64, extra: {neftune_alpha: 1}}\n  second",
        17,
        "neftune_noise_alpha",
    ),
    (
        "extra of ours",
        "max_length: 64}\n  second",
        "max_length: 64, extra: {seed: 1}}\n  second",
        17,
        "training.extra.seed: is set by seeds of the experiment. Write it there",
    ),
    ("missing column key", "    choice_key: choices\n", "", 4, "choice_key"),
    ("missing required key", "    method: full\n", "", 12, "method"),
    ("missing file", "{package: scikit-learn, name: digits}", "{path: nowhere}", 3, "nothing is found at nowhere"),
    (
        "a range of versions",
        "{package: scikit-learn, name: digits}",
        "{wheel: a>=1, sha256: '%s', files: [x]}" % ("0" * 64),
        3,
        "name==version",
    ),
    (
        "a tag of npm",
        "{package: scikit-learn, name: digits}",
        "{npm: a@latest, sha256: '%s', files: [x]}" % ("0" * 64),
        3,
        "name@version",
    ),
    (
        "a short digest",
        "{package: scikit-learn, name: digits}",
        "{npm: a@1.0.0, sha256: abc, files: [x]}",
        3,
        "no sha256",
    ),
    (
        "two clients",
        "{package: scikit-learn, name: digits}",
        "{npm: a@1.0.0, wheel: a==1, sha256: '%s', files: [x]}" % ("0" * 64),
        3,
        "exactly one of wheel and npm",
    ),
    ("unknown source", "{package: scikit-learn, name: digits}", "{bucket: x}", 3, "a source is"),
    (
        "scientific text",
        "learning_rate: 2e-3, global_batch_size: 64, max_steps: 120, max_length: 64}\n  second",
        "learning_rate: fast, global_batch_size: 64, max_steps: 120, max_length: 64}\n  second",
        17,
        "number",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "says"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_problem_is_named(old: str, new: str, line: int, says: str, tmp_path: Path) -> None:
    assert GOOD.count(old) >= 1
    file = tmp_path / "study.yaml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load([file])
    text = str(caught.value)
    assert f"{file}:{line}: " in text, text
    assert says in text, text
    assert "pydantic" not in text
    assert "Traceback" not in text


def test_good_file_loads_and_scientific_numbers_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(GOOD)
    study = load([file])
    assert study.experiments["first"].cells["full"].content.training.learning_rate == 0.002
    assert list(study.experiments["second"].cells) == ["lora"]


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(GOOD.replace("method: full", "method: ful").replace("model: tiny", "model: tny"))
    with pytest.raises(ConfigError) as caught:
        load([file])
    assert len(caught.value.problems) >= 1
    assert "ful is not one of" in str(caught.value)


def test_all_faults_of_extra_are_reported_at_once_and_beside_others(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    extra = "{max_length: 512, bf16: true, per_device_eval_batch_size: 4, eval_strategy: steps, loss_type: 3}"
    file.write_text(GOOD.replace("max_length: 64}", f"max_length: 64, warmup_steps: -1, extra: {extra}}}", 1))
    with pytest.raises(ConfigError) as caught:
        load([file])
    for key, said in {
        "extra.max_length": "is set by training.max_length of the experiment. Write it there",
        "extra.bf16": "is set by training.precision of the experiment",
        "extra.per_device_eval_batch_size": "is set by execution.micro_batch_size and evaluation.batch_size",
        "extra.eval_strategy": "is set by training.eval_steps",
        "extra.loss_type": "3 is a int. It must be str",
        "warmup_steps": "must be at least 0",
    }.items():
        assert f"experiments.first.training.{key}: {said}" in str(caught.value)


def test_two_files_are_read_as_one_and_must_agree(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(GOOD)
    two.write_text(GOOD.partition("experiments:")[0])
    assert set(load([one, two]).experiments) == {"first", "second"}
    two.write_text(two.read_text().replace("qwen2_5_vl", "llama"))
    with pytest.raises(ConfigError, match=r"models\.tiny: is defined differently in .*one\.yaml:10"):
        load([one, two])


def test_grid_and_variants_make_all_combinations(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        GOOD
        + "    grid: {training.learning_rate: [1e-3, 2e-3]}\n    variants: {a: {lora: {r: 4}}, b: {method: full}}\n"
    )
    cells = load([file]).experiments["second"].cells
    assert list(cells) == [
        "a_learning_rate-0.001",
        "a_learning_rate-0.002",
        "b_learning_rate-0.001",
        "b_learning_rate-0.002",
    ]
    assert cells["a_learning_rate-0.002"].content.lora.r == 4
    assert cells["b_learning_rate-0.001"].content.method == "full"

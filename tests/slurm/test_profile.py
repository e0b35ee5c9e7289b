"""What the profile asks SLURM for, rule by rule; the sites of docs/slurm.md; the traps that it has to avoid.

Needs no cluster: the lines come from Snakemake's plugin itself.
"""

import re
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT, Checkout, new_checkout
from outer import module, outer
from sbatch_lines import sbatch_lines, with_site

PROFILE = "workflow/profiles/slurm"
CPU_STAGES = {"audit_splits", "convert_checkpoint", "download_processor", "prepare_dataset", "split_dataset"}
CPU = "--nodes=1 --requeue --ntasks=1 --cpus-per-task=1"
# With the embedded settings (device=cuda from the profile): what each rule's job asks for.
SHIPPED = {
    "audit_labels": f"-p cpu -t 60 --mem 1000 {CPU}",
    "audit_splits": f"-p cpu -t 60 --mem 2000 {CPU}",
    "convert_checkpoint": f"-p cpu -t 60 --mem 2000 {CPU}",
    "download_model": f"-p cpu -t 240 --mem 2000 {CPU}",
    "download_processor": f"-p cpu -t 60 --mem 2000 {CPU}",
    "predict": "-p gpu -t 60 --mem 3000 --nodes=1 --requeue --cpus-per-task=1 --gpus=1",
    "prepare_dataset": f"-p cpu -t 60 --mem 2000 {CPU}",
    "split_dataset": f"-p cpu -t 60 --mem 2000 {CPU}",
    "tokenize_dataset": f"-p cpu -t 120 --mem 2000 {CPU}",
    "train_model": "-p gpu -t 60 --mem 3000 --nodes=1 --requeue --cpus-per-task=1 --signal=TERM@120 --gpus=1",
}
# A study that has all of the other stages too: a published model, asked as it is, a bag of words, meanings of the rows.
EVERY_RULE = """\
datasets:
  words: {source: {path: data}, format: multiple_choice, prompt_key: prompt, choice_key: choices, answer_key: label,
          choices_layout: none, target: text, split: {train: train*, test: test*, validation: {rows: 8}}}
models:
  published: {source: {path: published}}
experiments:
  words:
    dataset: words
    model: published
    metric: accuracy_likelihood
    training: {learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 128}
    evaluation: {max_new_tokens: 2}
    baselines: {words: {method: bag_of_words}}
    audit: {embedding: {path: encoder}, limits: {meaning: 0}}
    variants: {full: {method: full}, lora: {method: lora}}
"""
OTHERS = {
    "ask_base": "-p gpu -t 60 --mem 3000 --nodes=1 --requeue --cpus-per-task=1 --gpus=1",
    "download_encoder": f"-p cpu -t 60 --mem 1000 {CPU}",
    "embed_rows": f"-p cpu -t 720 --mem 3000 {CPU[:-1]}2",
    "fit_baseline": f"-p cpu -t 60 --mem 2000 {CPU}",
}
SITES = {
    "one-gpu": {
        "prepare_dataset": f"-p compute -t 60 --mem 2000 {CPU}",
        "train_model": "-p gpu -t 60 --mem 3000 --nodes=1 --requeue --cpus-per-task=1 --signal=TERM@120 --gpus=1",
        "predict": "-p gpu -t 60 --mem 3000 --nodes=1 --requeue --cpus-per-task=1 --gpus=1",
    },
    "multi-node": {
        "prepare_dataset": f"-p cpu -t 60 --mem 2000 {CPU}",
        "train_model": "-p h100 -t 60 --mem 3000 --nodes=2 --requeue --ntasks=2 --cpus-per-task=1 --signal=TERM@300 "
        "--gres=gpu:8",
        "predict": "-p h100 -t 60 --mem 3000 --nodes=1 --requeue --cpus-per-task=1 --gpus=1",
    },
    "account": {
        "prepare_dataset": f"-A proj0042 -p batch -t 60 -C rome --qos=normal --mem 2000 {CPU}",
        "train_model": "-A proj0042 -p batch -t 60 -C a100 --qos=gpu --mem 3000 --nodes=1 --requeue --cpus-per-task=1 "
        "--signal=TERM@120 --gpus=a100:1",
        "predict": "-A proj0042 -p batch -t 60 -C a100 --qos=gpu --mem 3000 --nodes=1 --requeue --cpus-per-task=1 "
        "--gpus=a100:1",
    },
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return new_checkout(tmp_path_factory.mktemp("profile") / "checkout")


def shipped_profile() -> dict:
    return yaml.safe_load((ROOT / PROFILE / "profile.yaml").read_text())


@pytest.mark.slow
def test_what_each_rule_asks_for(checkout: Checkout) -> None:
    assert sbatch_lines(checkout, PROFILE) == SHIPPED


@pytest.mark.slow
def test_rules_that_an_outer_workflow_has_renamed_ask_for_the_same(tmp_path: Path) -> None:
    """`set-resources: train_model:` of the profile is meant for sft_train_model, unless the outer one has that rule."""
    snakefile = 'configfile: "config/mine.yaml"\n\n' + module(repr(str(ROOT / "workflow/Snakefile")))
    checkout = outer(tmp_path, snakefile.replace("    config: config\n", '    config: config\n    prefix: "there"\n'))
    assert sbatch_lines(checkout, str(ROOT / PROFILE)) == {f"sft_{rule}": line for rule, line in SHIPPED.items()}
    theirs = 'rule train_model:\n    output: "theirs.txt"\n    shell: "touch {output}"\n\n'
    checkout.edit("Snakefile", lambda text: theirs + text)
    lines = sbatch_lines(checkout, str(ROOT / PROFILE), "sft_all", "theirs.txt")
    assert "-p gpu" in lines["train_model"]
    assert "-p cpu" in lines["sft_train_model"]


@pytest.mark.slow
def test_what_the_other_rules_ask_for(tmp_path: Path) -> None:
    """And with them every rule that has jobs: what is not shown here or above runs on the login node."""
    checkout = new_checkout(tmp_path / "checkout")
    for folder in ("published", "encoder"):
        (checkout.path / folder).mkdir()
        (checkout.path / folder / "config.json").write_text("{}")
    (checkout.path / "config/config.yaml").write_text(EVERY_RULE)
    lines = sbatch_lines(checkout, PROFILE)
    assert {rule: lines.pop(rule) for rule in OTHERS} == OTHERS
    assert lines == {rule: SHIPPED[rule] for rule in lines}
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    rules = {rule.partition(":")[0]: rule for rule in re.split(r"(?m)^rule ", text)[1:]}
    assert {name for name, rule in rules.items() if "localrule: True" not in rule} == {*SHIPPED, *OTHERS}


@pytest.mark.slow
def test_without_gpus_none_is_asked_for(checkout: Checkout) -> None:
    lines = sbatch_lines(checkout, PROFILE, "--config", "device=cpu")
    assert set(lines) > CPU_STAGES - {"convert_checkpoint"}
    assert not [line for line in lines.values() if "gpu:" in line or "--gpus" in line or "gres" in line]


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_sites_of_the_documentation(tmp_path: Path, site: str) -> None:
    text = (ROOT / "docs/slurm.md").read_text()
    block = re.search(rf"<!-- example: {site} -->\n```yaml\n(.*?)```", text, re.DOTALL)
    checkout = new_checkout(tmp_path / "checkout")
    with_site(checkout.path / PROFILE / "profile.yaml", block[1])
    lines = sbatch_lines(checkout, PROFILE)
    assert {rule: lines[rule] for rule in SITES[site]} == SITES[site]
    assert not [rule for rule in CPU_STAGES if "gpus" in lines[rule] or "gres" in lines[rule]]


@pytest.mark.slow
def test_group_is_one_job_with_the_sum_of_the_times(checkout: Checkout) -> None:
    lines = sbatch_lines(checkout, PROFILE, "--groups", "train_model=run", "predict=run", "--config", "device=cuda")
    grouped = [line for rule, line in lines.items() if "train_model" in rule]
    assert grouped
    assert all("--gpus=1" in line and "--signal=TERM@120" in line for line in grouped)


@pytest.mark.slow
def test_wrong_path_of_a_profile_stops(checkout: Checkout) -> None:
    done = checkout.snakemake("-n", "--profile", "workflow/profiles/slrum")
    assert done.returncode != 0
    assert "slrum" in done.stderr


def test_only_the_form_that_stops_is_taught() -> None:
    for page in ("README.md", "docs/slurm.md", "config/README.md", "CONTRIBUTING.md", f"{PROFILE}/profile.yaml"):
        text = (ROOT / page).read_text()
        assert not re.search(r"snakemake[^\n#]*--workflow-profile", text), page


# The traps (docs/slurm.md), each kept shut


def test_states_are_asked_of_squeue() -> None:
    assert shipped_profile()["slurm-status-command"] == "squeue"


def test_first_look_comes_before_slurm_forgets() -> None:
    """Three times the first look is the plugin's bound, below which it goes over to sacct; SLURM keeps jobs 300 s."""
    assert 3 * shipped_profile()["slurm-init-seconds-before-status-checks"] <= 120


def test_no_rule_has_retries_of_its_own() -> None:
    for rules in (ROOT / "workflow").rglob("*"):
        if rules.suffix == ".smk" or rules.name == "Snakefile":
            assert not re.search(r"^\s*retries:", rules.read_text(), re.MULTILINE), rules
    assert shipped_profile()["retries"] >= 1


def test_no_job_arrays() -> None:
    assert not [key for key in shipped_profile() if "array" in key]


def test_no_signal_but_term() -> None:
    text = (ROOT / PROFILE / "profile.yaml").read_text() + (ROOT / "docs/slurm.md").read_text()
    signals = re.findall(r"slurm_extra: .*--signal=(\S+)@(\d+)", text)
    assert signals
    assert {name for name, _ in signals} == {"TERM"}
    assert min(int(seconds) for _, seconds in signals) >= 60


def test_jobs_stay_on_one_node_unless_told() -> None:
    assert shipped_profile()["default-resources"]["nodes"] == 1


def test_there_is_memory_for_snakemake_itself() -> None:
    assert shipped_profile()["default-resources"]["mem_mb"] >= 1000


def test_every_line_of_the_profile_has_its_reason() -> None:
    lines = (ROOT / PROFILE / "profile.yaml").read_text().splitlines()
    own = [line for line in lines if re.match(r"(\s*- |\s*)[a-z_-]+[:=]", line) and not line.lstrip().startswith("#")]
    opening = re.compile(r"(set-resources|train_model|predict|ask_base|config|executor).*:\s*(slurm)?$")
    again = "slurm_partition: gpu"  # explained where it stands first
    bare = [line for line in own if "#" not in line and not opening.match(line.strip()) and line.strip() != again]
    assert not bare


def test_each_row_of_the_table_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| .* \| .* \| (.*) \|$", (ROOT / "docs/slurm.md").read_text(), re.MULTILINE)[2:]
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    assert len(rows) >= 15
    assert [row for row in rows if not re.search(r"`test_\w+`|`tests/unit/test_\w+\.py`", row)] == []
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert named <= defined, named - defined

"""Used by somebody else's workflow: every form runs the two-run study to its end, and the host keeps its own.

Tests: sft.workflow.configuration, sft.workflow.start
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from checkouts import CONFIG, ROOT, SNAKEMAKE, Checkout
from outer import (
    CONFIGFILE,
    HERE,
    HOSTED,
    STUDY,
    clone,
    commit,
    hosted_at,
    listing,
    module,
    named,
    nothing_to_do,
    outer,
    refused,
    run,
    without_targets,
)

pytestmark = pytest.mark.slow

# The forms, each to the end


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Path]:
    """A finished outer workflow: local path with awkward characters, `as sft_*`, --directory; and the clone it uses."""
    folder = tmp_path_factory.mktemp("local")
    tree = clone(folder / "a b'c$HOME\"d;e")
    before = listing(tree)
    subprocess.run(["chmod", "-R", "a-w", tree], check=True)
    checkout = outer(folder / "work", "")
    snakefile = folder / "their workflow/Snakefile"
    snakefile.parent.mkdir()
    snakefile.write_text(CONFIGFILE + module(repr(str(tree / "workflow/Snakefile"))))
    (checkout.path / "Snakefile").unlink()
    run(checkout, "-s", str(snakefile), "--directory", str(checkout.path))
    assert listing(tree) == before, "something was written into the checkout"
    (checkout.path / "Snakefile").write_text(snakefile.read_text())
    return checkout, tree


@pytest.fixture
def used(local: tuple[Checkout, Path], tmp_path: Path) -> Checkout:
    """A copy of the finished outer workflow, which uses the clone in its place."""
    shutil.copytree(local[0].path, tmp_path / "work", symlinks=True)
    return Checkout(tmp_path / "work")


def test_local_module(local: tuple[Checkout, Path]) -> None:
    checkout, _ = local
    assert nothing_to_do(checkout)
    assert len(list((checkout.path / "results/experiments").glob("*/runs/*/seed-0"))) == 2


def test_git_module(tmp_path: Path) -> None:
    """A dict of the outer Snakefile, rules under their own names, from a tag; the working tree has gone on since."""
    repository = clone(tmp_path / "repository")
    first = commit(repository, "v1")
    (repository / "scripts/score.py").write_text("raise SystemExit('not of this commit')\n")
    source = repr(f"git+file://{repository}/workflow/Snakefile@v1")
    snakefile = "import yaml\nTHEIRS = yaml.safe_load(open('config/mine.yaml'))\n\n"
    checkout = outer(tmp_path / "work", snakefile + module(source, config="THEIRS", rename=False))
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    # Two at once on an empty cache: one checks the commit out, the other finds it or waits for nothing.
    command = [SNAKEMAKE, "-n", "--quiet", "rules", "--nolock"]
    racing = [subprocess.Popen(command, cwd=checkout.path, env=os.environ | cache) for _ in range(2)]
    assert [one.wait() for one in racing] == [0, 0]
    run(checkout, **cache)
    assert nothing_to_do(checkout, **cache)
    made = [json.loads(path.read_text()) for path in (checkout.path / "results").rglob("manifest.json")]
    assert len(made) == sum(STUDY.values()) + 2
    assert {(one["git"]["commit"], one["git"]["dirty"]) for one in made} == {(first, False)}
    run(checkout, "--report", "report.html", **cache)
    assert "Thin lines are single seeds" in (checkout.path / "report.html").read_text()
    # What it is asked for is the same as from a file, though PyYAML reads 1e-3 as a text.
    (checkout.path / "Snakefile").write_text(CONFIGFILE + module(source, rename=False))
    assert nothing_to_do(checkout, **cache)


TWO = (
    CONFIGFILE
    + 'rule all:\n    input: "theirs.txt"\n\n'
    + module(HERE, "a", more='    prefix: "first"\n')
    + "\n"
    + module(
        HERE, "b", config='dict(config, experiments={"words": config["experiments"]["words"]})', more="    PREFIX\n"
    )
    + """
rule theirs:
    input: rules.a_archive.output[1], rules.b_archive.output[1]
    output: "theirs.txt"
    params: n=1
    shell: "cat {input:q} > {output}"

onstart:
    shell("echo started >> theirs.log")
"""
).replace("PREFIX", r"""prefix: "second/my dir's $x" """.strip())


def test_two_modules_with_prefixes(tmp_path: Path) -> None:
    checkout = outer(tmp_path / "work", TWO)
    run(checkout)
    results = [checkout.path / "first/results", checkout.path / "second/my dir's $x/results"]
    assert [len(list(place.glob("runs/*/manifest.json"))) for place in results] == [2, 1]
    assert not (checkout.path / "results").exists()
    assert (checkout.path / "theirs.log").read_text() == "started\n"
    # One result has one name, wherever it lies.
    names = [{path.parent.name for path in place.glob("runs/*/manifest.json")} for place in results]
    assert names[1] < names[0]
    assert nothing_to_do(checkout)
    # Times of our files mean nothing here either.
    for path in results[0].rglob("*"):
        os.utime(path, (2_000_000_000, 2_000_000_000), follow_symlinks=False)
    os.utime(checkout.path / "theirs.txt", (2_000_000_001, 2_000_000_001))
    assert nothing_to_do(checkout)
    # An outer rule keeps Snakemake's own reasons.
    checkout.replace("Snakefile", "n=1", "n=2")
    assert checkout.planned() == {"theirs": 1}
    # The archive unpacks as that of a study without prefix, and draws the same figures.
    plain = clone(tmp_path / "plain")
    with tarfile.open(results[0] / "archive/archive.tar.gz") as archive:
        archive.extractall(plain, filter="data")
    run(Checkout(plain), "figures")
    drawn = [sorted(place.glob("experiments/*/figures/*/*.svg")) for place in (plain / "results", results[0])]
    assert len(drawn[0]) == 8
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]


def test_snakedeploy(tmp_path: Path) -> None:
    """What snakedeploy writes runs; with the profile that it copies, it plans for a cluster."""
    repository = clone(tmp_path / "repository")
    variables = hosted_at(repository) | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = commit(repository, "v1.0.0")
    place = tmp_path / "work"
    command = [SNAKEMAKE.with_name("snakedeploy"), "deploy-workflow", HOSTED, place, "--tag", "v1.0.0"]
    deployed = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert deployed.returncode == 0, deployed.stderr
    assert 'github("someone/snakemake-sft", path="workflow/Snakefile", tag="v1.0.0")' in (
        (place / "workflow/Snakefile").read_text()
    )
    shipped = Checkout(place).planned(**variables)
    assert shipped["train_model"] == 12, "its config/config.yaml is the shipped one"
    assert (place / "profiles/slurm/profile.yaml").is_file()
    shutil.rmtree(place / "config")
    (place / "config").mkdir()
    (place / "config/config.yaml").write_text(CONFIG)
    outer(place, (place / "workflow/Snakefile").read_text())
    (place / "Snakefile").unlink()
    checkout = Checkout(place)
    run(checkout, "-n", "--profile", "profiles/slurm", **variables)
    run(checkout, **variables)
    assert nothing_to_do(checkout, **variables)
    made = json.loads(next((place / "results/runs").glob("*/manifest.json")).read_text())
    assert made["git"] == {"commit": first, "dirty": False}
    run(checkout, "--report", "report.html", **variables)
    assert "Thin lines are single seeds" in (place / "report.html").read_text()


# What is asked for, or one line


def test_configuration_of_the_outer_workflow_is_planned(tmp_path: Path) -> None:
    checkout = outer(tmp_path, CONFIGFILE + module(HERE))
    assert without_targets(checkout.planned()) == named("sft_")
    assert without_targets(checkout.planned("--config", "threads=2")) == named("sft_")
    # Snakemake merges --configfile into the outer workflow's.
    (tmp_path / "more.yaml").write_text("experiments: {words: {training: {max_steps: 3}}}\n")
    assert without_targets(checkout.planned("--configfile", "more.yaml"))["sft_train_model"] == 2
    assert "max_steps: 3" in (tmp_path / ".snakemake/sft/sft.yaml").read_text()


def test_a_dict_is_what_a_file_of_it_would_be(finished: Checkout, tmp_path: Path) -> None:
    """1e-3 is a text for PyYAML and a number here: the finished results of the file are those of the dict."""
    checkout = outer(
        tmp_path, f"{CONFIGFILE}config['models'].update()\nPART = dict(config)\n" + module(HERE, config="PART")
    )
    (tmp_path / "results").symlink_to(finished.path / "results")
    assert nothing_to_do(checkout)
    assert nothing_to_do(checkout, "--config", "threads=2")
    changed = "PART['experiments']['more_words']['training']['learning_rate'] = 1e-5"
    checkout.replace("Snakefile", "\nmodule sft", f"\n{changed}\nmodule sft")
    assert checkout.planned()["sft_train_model"] == 1


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (None, "module sft: `config:` is missing"),
        ("{}", "there is no experiment"),
        ('{"nonsense": 1}', "module sft: .snakemake/sft/sft.yaml:1: nonsense: unknown key"),
        (
            "config",
            "module sft: config/mine.yaml:17: experiments.words.training.learnig_rate: unknown key. Did you mean",
        ),
        (
            "dict(config, execution={})",
            "module sft: .snakemake/sft/sft.yaml:27: experiments.words.training.learnig_rate",
        ),
    ],
)
def test_what_asks_for_nothing_or_wrongly_stops(tmp_path: Path, config: str | None, told: str) -> None:
    """Never the demo, also where the outer folder has a config/config.yaml."""
    checkout = outer(tmp_path, CONFIGFILE + module(HERE, config=config), CONFIG.replace("learning_", "learnig_", 1))
    (tmp_path / "config/config.yaml").write_text(CONFIG)
    assert told in refused(checkout)


def test_an_empty_configuration_of_our_own_snakefile_stops(finished: Checkout, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("experiments: {}\n")
    told = refused(finished, "--configfile", str(tmp_path / "empty.yaml"))
    assert "there is no experiment" in told


def test_an_override_that_does_not_reach_is_told(tmp_path: Path) -> None:
    checkout = outer(tmp_path, CONFIGFILE + module(HERE, config='config["sft"]'))
    lines = CONFIG.splitlines()
    (tmp_path / "config/mine.yaml").write_text(
        "\n".join(["genome: x", "sft:", *(f"  {line}" for line in lines)]) + "\n"
    )
    said = run(checkout, "-n", "--config", "device=cuda")
    assert "note: module sft: --config device does not reach it" in said


def test_a_source_without_repository_is_one_line(tmp_path: Path) -> None:
    """As from https://…/raw/…: Snakemake has one file there, and no commit."""
    code = "from snakemake.sourcecache import GenericSourceFile; "
    text = (ROOT / "workflow/rules/tree.smk").read_text().replace("workflow.current_basedir", "BASE")
    program = f"{code}BASE = GenericSourceFile('https://example.org/raw/v1/workflow')\n{text}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: https://example.org/raw/v1/workflow: this workflow is more than its Snakefile"
    )
    assert done.stderr.count("\n") == 1


def test_two_commits_in_one_workflow_are_one_line(tmp_path: Path) -> None:
    repository = clone(tmp_path / "repository")
    commit(repository, "v1")
    (repository / "README.md").write_text("Another.\n")
    commit(repository, "v2")
    sources = [repr(f"git+file://{repository}/workflow/Snakefile@{tag}") for tag in ("v1", "v2")]
    parts = [module(one, name, more=f"    prefix: '{name}'\n") for one, name in zip(sources, "ab", strict=True)]
    checkout = outer(tmp_path / "work", CONFIGFILE + "\n".join(parts))
    told = refused(checkout, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert told.startswith("error: two versions of this workflow in one: ")


def test_two_modules_in_one_folder_are_one_line(tmp_path: Path) -> None:
    checkout = outer(tmp_path, CONFIGFILE + module(HERE, "a") + "\n" + module(HERE, "b"))
    assert refused(checkout).startswith("error: modules a and b would both write into results/. Give them prefixes")


def test_a_reference_that_is_not_there_is_told(tmp_path: Path) -> None:
    repository = clone(tmp_path / "repository")
    commit(repository, "v1")
    source = repr(f"git+file://{repository}/workflow/Snakefile@v9")
    done = outer(tmp_path / "work", CONFIGFILE + module(source)).snakemake("-n")
    assert done.returncode == 1
    assert "invalid object name 'v9'" in done.stdout + done.stderr


# What runs again


def test_only_our_jobs_have_no_reasons_of_snakemake(used: Checkout) -> None:
    """A rule of theirs beside ours: changed parameters run it again; of ours neither times nor a lost record does."""
    theirs = '\nrule theirs:\n    output: "theirs.txt"\n    params: n=1\n    shell: "touch {output}"\n'
    checkout = used
    checkout.edit("Snakefile", lambda text: text + theirs)
    run(checkout, "theirs.txt")
    assert nothing_to_do(checkout, "sft_all", "theirs.txt")
    checkout.replace("Snakefile", "n=1", "n=2")
    assert checkout.planned("sft_all", "theirs.txt") == {"theirs": 1}
    shutil.rmtree(checkout.path / ".snakemake/metadata")
    assert nothing_to_do(checkout, "sft_all")


def test_changed_values_and_damage_run_their_chain(used: Checkout) -> None:
    used.replace("config/mine.yaml", "learning_rate: 2e-3", "learning_rate: 3e-3")
    assert used.planned()["sft_train_model"] == 1
    used.replace("config/mine.yaml", "learning_rate: 3e-3", "learning_rate: 2e-3")
    scores = next((used.path / "results").rglob("scores.parquet"))
    scores.write_bytes(scores.read_bytes()[:-10])
    planned = used.planned()
    assert planned["sft_score"] == 1
    assert "sft_train_model" not in planned

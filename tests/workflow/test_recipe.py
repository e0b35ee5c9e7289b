"""CONTRIBUTING.md is followed word by word and run: a new rule, a new figure, a figure of one's own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkouts import ROOT, Checkout

pytestmark = pytest.mark.slow

STEP = re.compile(
    r"<!-- (new file:|in|at the end of) ([\w/.]+)(?:, (after|replace): (.+?))? -->\n```\w+\n(.*?)```", re.DOTALL
)


def steps(*headings: str) -> Iterator[tuple[str, str, str, str, str]]:
    """(kind, file, how, where, text) of each marked block below these headings."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for heading in headings:
        section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
        found = STEP.findall(section)
        assert found, f"CONTRIBUTING.md has no steps below {heading}"
        yield from found


def follow(checkout: Checkout, *headings: str) -> None:
    for kind, file, how, where, text in steps(*headings):
        if kind == "new file:":
            assert not (checkout.path / file).exists()
            (checkout.path / file).write_text(text)
        elif kind == "at the end of":
            checkout.edit(file, lambda old, text=text: old + text)
        elif how == "replace":
            checkout.replace(file, where, text.rstrip("\n"))
        else:
            [line] = [line for line in (checkout.path / file).read_text().splitlines(keepends=True) if where in line]
            checkout.replace(file, line, line + text)


def test_a_rule_and_figures_by_the_recipe(checkout: Checkout) -> None:
    follow(checkout, "## How to add a rule", "## How to add a figure")
    # One data set, two experiments: its rows once, the learning rate twice, the user's figure of the second.
    assert checkout.planned() == {"count_rows": 1, "plot": 3, "archive": 1}
    done = checkout.snakemake()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [counts] = (checkout.path / "results/counts").glob("*/counts.json")
    assert json.loads(counts.read_text()) == {"train": 32, "validation": 8, "test": 12}
    experiments = checkout.path / "results/experiments"
    for name in ("words/figures/learning_rate", "more_words/figures/learning_rate", "more_words/figures/final"):
        kind = Path(name).name
        for suffix in ("pdf", "svg", "png", "csv"):
            assert (experiments / name / f"{kind}.{suffix}").stat().st_size > 0
        assert (experiments / name / f"plot_{kind}.log").exists()
    assert checkout.planned() == {}
    # Its bytes say when it is drawn again; where the script lies does not.
    (checkout.path / "mine").mkdir()
    (checkout.path / "plot_final.py").rename(checkout.path / "mine/plot_final.py")
    checkout.replace("config/config.yaml", "[plot_final.py]", "[mine/plot_final.py]")
    assert checkout.planned() == {}
    checkout.replace("mine/plot_final.py", "Accuracy at the last step", "At the last step")
    assert checkout.planned() == {"plot": 1, "archive": 1}


def test_a_figure_of_ones_own_that_goes_wrong_says_where(checkout: Checkout) -> None:
    (checkout.path / "plot_final.py").write_text("def make(stage):\n    stage.output('final.csv').write_text('a\\n')\n")
    checkout.replace("config/config.yaml", "  more_words:\n", "  more_words:\n    figures: [plot_final.py]\n")
    done = checkout.snakemake()
    assert done.returncode == 1
    assert "error: plot_final.py wrote no final.pdf, final.svg, final.png" in done.stderr
    (checkout.path / "plot_final.py").write_text("1 / 0\n")
    done = checkout.snakemake()
    assert 'plot_final.py", line 1' in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ("[nowhere/plot_mine.py]", "there is no file nowhere/plot_mine.py"),
        ("[mine.py]", "mine.py is no name of a figure's script: write plot_NAME.py"),
        ("[plot_loss.py]", "loss is the name of a figure that this workflow draws"),
        ("[plot_a.py, mine/plot_a.py]", "has two scripts of one name"),
    ],
)
def test_a_bad_figure_is_told_before_anything_runs(finished: Checkout, tmp_path: Path, figures: str, told: str) -> None:
    for name in ("plot_a.py", "mine/plot_a.py", "plot_loss.py", "mine.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data").symlink_to(finished.path / "data")
    text = (finished.path / "config/config.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("  more_words:\n", f"  more_words:\n    figures: {figures}\n"))
    snakefile = str(finished.path / "Snakefile")
    done = finished.snakemake("-n", "-s", snakefile, "--configfile", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr

"""Figures: same bytes from the same ledger, every seed in them, and no figure of half a comparison.

Tests: sft.reporting.accuracy_figure, sft.reporting.curves, sft.reporting.figure_sheet, sft.reporting.figure_style,
sft.reporting.training_figure, sft.reporting.training_rows
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import made_up_experiment as made
import pandas as pd
import pytest

from sft.runtime import manifest
from sft.runtime.stage import StageError
from sft_command import sft

KINDS = ("accuracy", "loss", "grad_norm", "comparison")
CELLS = ("full", "lora", "replay")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write_experiment(tmp_path_factory.mktemp("experiment"))


def draw(kind: str, directory: Path, ledger: Path, config: dict) -> Path:
    """Where the figure lies, drawn in this process."""
    return made.make_here(f"plot_{kind}", made.write_node(directory, f"plot_{kind}", config, {"ledger": ledger}))


def digests(directory: Path, kind: str) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.glob(f"{kind}.*"))}


@pytest.fixture(scope="module")
def drawn(ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("figures")
    return {kind: draw(kind, folder / kind, ledger, made.shown(CELLS)) for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["accuracy", "loss", "comparison"])
def test_another_machine_draws_the_same_bytes(kind: str, drawn: dict[str, Path], ledger: Path, tmp_path: Path):
    """Another home (none), locale, time zone, hash seed and a matplotlibrc change nothing, and warn of nothing."""
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 20\naxes.facecolor: red\n")
    made.write_node(tmp_path / kind, f"plot_{kind}", made.shown(CELLS), {"ledger": ledger})
    strange = {"HOME": "/nonexistent", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7", "MPLBACKEND": "svg"}
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPYCACHEPREFIX") if name in os.environ}
    done = subprocess.run(
        [sys.executable, str(made.ROOT / "scripts" / f"plot_{kind}.py"), kind],
        env=kept | strange | {"SOURCE_DATE_EPOCH": "1", "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / kind, kind) == digests(drawn[kind], kind)
    assert len(digests(drawn[kind], kind)) == 4  # pdf, svg, png, csv
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("matplotlib-*"))  # the temporary font list is gone


@pytest.mark.parametrize("kind", KINDS)
def test_every_seed_is_plotted_and_the_band_has_a_name(kind: str, drawn: dict[str, Path]):
    plotted = pd.read_csv(drawn[kind] / f"{kind}.csv")
    seeds = plotted[plotted["series"] == "seed"]
    assert set(zip(seeds["cell"], seeds["seed"].astype(int), strict=True)) == {
        (c, s) for c in CELLS for s in made.SEEDS
    }
    means = plotted[plotted["series"] == "mean"]
    assert (means["n"] == 3).all()
    assert means["interval"].str.contains("95 % t interval of the").all()


def test_accuracy_shows_the_numbers_of_the_runs(drawn: dict[str, Path]):
    plotted = pd.read_csv(drawn["accuracy"] / "accuracy.csv")
    at = plotted[(plotted["cell"] == "full") & (plotted["dataset"] == made.OLD) & (plotted["step"] == 80)]
    assert at.loc[at["series"] == "seed", "value"].tolist() == [182 / 360, 190 / 360, 225 / 360]
    assert at.loc[at["series"] == "mean", "value"].item() == pytest.approx(597 / 1080)


def test_no_date_no_version_no_system_font(drawn: dict[str, Path]):
    svg = (drawn["comparison"] / "comparison.svg").read_text()
    assert not re.search(r"Matplotlib|<dc:date>|20\d\d-\d\d", svg)
    pdf = (drawn["comparison"] / "comparison.pdf").read_bytes()
    assert b"Roboto" in pdf
    assert b"CreationDate" not in pdf
    assert b"/Type3" not in pdf
    assert b"Matplotlib" not in (drawn["comparison"] / "comparison.png").read_bytes()


def test_manifest_says_which_runs_and_which_ledger(drawn: dict[str, Path], ledger: Path):
    facts = json.loads((drawn["comparison"] / "facts.json").read_text())
    assert len(facts["runs"]) == 9
    assert facts["runs"][0]["run"] == "digits-full-s0"
    assert facts["ledger"]["sha256"] == manifest.file_digest(ledger / "ledger.parquet")


@pytest.mark.parametrize("kind", ["comparison", "loss"])
def test_missing_runs_are_listed_and_nothing_is_drawn(kind: str, ledger: Path, tmp_path: Path):
    with pytest.raises(StageError) as refused:
        draw(kind, tmp_path / kind, ledger, made.shown((*CELLS, "qlora"), (0, 1, 2, 3)))
    assert "cell full, seed 3: no " in str(refused.value)
    assert "cell qlora" in str(refused.value)
    assert not list(tmp_path.rglob(f"{kind}.*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "datasets", "cells"),
    [
        ((0,), [made.NEW, made.OLD], ("full", "lora")),
        ((0, 1), [made.OLD], ("lora",)),
        ((0, 1, 2), [made.NEW], CELLS),
    ],
    ids=["one seed", "one cell, one test set", "one test set"],
)
def test_smaller_experiments_are_drawn_too(seeds: tuple, datasets: list, cells: tuple, ledger: Path, tmp_path: Path):
    for kind in ("accuracy", "comparison", "loss"):
        config = made.shown(cells, seeds, datasets=datasets, chance=None)
        plotted = pd.read_csv(draw(kind, tmp_path / kind, ledger, config) / f"{kind}.csv", keep_default_na=False)
        names = set(plotted.loc[plotted["series"] == "mean", "interval"])
        if len(seeds) == 1:
            assert names == {"" if kind == "loss" else "95 % Wilson interval"}
        else:
            assert len(names) == 1
            assert "t interval" in names.pop()


def test_mixed_code_and_failed_answers_are_told(ledger: Path, tmp_path: Path):
    from sft.reporting import figure_style

    figure_style.prepare()
    from sft.reporting import curves, series

    config = made.typed(CELLS)
    seeds = series.scores(series.read_ledger(ledger), config)
    assert len(curves.footer(config, seeds)) == 1
    seeds.loc[seeds["cell"] == "lora", "code"] = "abcdefabcdef+012345678901"
    seeds.loc[0, "n_errors"] = 3
    texts = [text for text, _ in curves.footer(config, seeds)]
    asked = len(CELLS) * len(made.SEEDS) * 2 * len(made.STEPS) * made.ROWS
    assert texts[1] == f"3 of {asked} answers failed; they count as wrong."
    assert "abcdefab then 01234567 (lora)" in texts[2]
    assert "different versions of the code" in texts[2]
    seeds.loc[seeds["cell"] == "lora", "software"] = "torch 2.9.1 (pinned 2.13.0)"
    text = curves.footer(config, seeds)[-1][0]
    assert text == "Other packages than the pinned ones: torch 2.9.1 (pinned 2.13.0) (lora)."


def test_labels_never_lie_on_each_other():
    from sft.reporting import figure_style

    figure_style.prepare()
    from sft.reporting.figure_sheet import spread

    places = spread([0.9, 0.91, 0.92, 0.1], 0.1, 0.0, 1.0)
    assert places[0] < places[1] < places[2]
    assert min(b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)) >= 0.1 - 1e-12
    assert max(places) <= 1.0
    assert places[3] == pytest.approx(0.1)


@pytest.mark.slow
def test_verify_sees_what_changed(ledger: Path, tmp_path: Path):
    """Equal after drawing; other numbers are found; a drawing of other bytes with equal numbers is told apart."""
    directory = tmp_path / "results/experiments/digits_shift/figures/accuracy"
    made.write_node(directory, "plot_accuracy", made.shown(("full",)), {"ledger": ledger})
    assert made.run_script("plot_accuracy", directory).returncode == 0

    def verify() -> subprocess.CompletedProcess:
        return sft("verify", cwd=tmp_path)

    done = verify()
    assert (done.returncode, done.stdout.split()[0]) == (0, "equal"), done.stdout + done.stderr
    record = json.loads((directory / "manifest.json").read_text())
    record["outputs"]["accuracy.png"]["sha256"] = "0" * 64
    record["versions"]["matplotlib"] = "3.0.0"
    manifest.write(directory, record)
    done = verify()
    assert done.returncode == 3
    assert "numbers equal" in done.stdout
    assert "matplotlib 3.0.0 then" in done.stdout
    record["outputs"]["accuracy.csv"]["sha256"] = "0" * 64
    manifest.write(directory, record)
    done = verify()
    assert done.returncode == 1
    assert "DIFFERENT" in done.stdout
    done = sft("verify", "--json", cwd=tmp_path)
    assert done.returncode == 1
    place = "results/experiments/digits_shift/figures/accuracy"
    assert json.loads(done.stdout) == [
        {"directory": place, "result": "different", "files": ["accuracy.csv"], "why": ""}
    ]

"""Draw a figure of the user's own, with the script that the configuration names (`figures:` of an experiment).

From the ledger of an experiment. The script is a file plot_NAME.py with a function `make(stage)`, as the scripts of the
other figures have; it writes NAME.pdf, .svg, .png (sft.reporting.figure_style.save) and NAME.csv, the plotted numbers.

    python scripts/plot_own.py results/experiments/digits_shift/figures/calibration
"""

import importlib.util
from pathlib import Path
from types import ModuleType

from sft.config.nodes import Shown
from sft.runtime import manifest
from sft.runtime.stage import Stage, StageError, run_stage


def make(stage: Stage) -> None:
    from sft.reporting import figure_style

    figure_style.prepare()
    # What such a script draws with. Imported here, it counts as part of this one: a change draws the figure again.
    from sft.reporting import (  # noqa: F401
        accuracy_figure,
        comparison,
        curves,
        environments,
        figure_sheet,
        paired,
        series,
        training_figure,
        training_rows,
    )

    settings = stage.settings(Shown)
    name = settings.figure
    _script(Path(settings.script), settings.sha256).make(stage)
    wanted = [f"{name}.{suffix}" for suffix in ("pdf", "svg", "png", "csv")]
    missing = [file for file in wanted if not (stage.attempt / file).is_file()]
    if missing:
        raise StageError(f"{settings.script} wrote no {', '.join(missing)}. See CONTRIBUTING.md, A figure")
    stage.facts.setdefault("summary", f"drawn by {settings.script}")


def _script(path: Path, digest: str) -> ModuleType:
    """The user's script as a module. StageError where it is not the file that was planned with, or has no `make`."""
    if not path.is_file() or manifest.file_digest(path) != digest:
        raise StageError(f"{path} is not the file that this figure was planned with. Start Snakemake again")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "make", None)):
        raise StageError(f"{path} has no function make(stage). See CONTRIBUTING.md, A figure")
    return module


if __name__ == "__main__":
    run_stage(make, __doc__)

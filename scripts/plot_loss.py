"""Plot the training loss and the validation loss against the training step.

From the ledger of an experiment. Every seed, their mean and its interval; makes loss.pdf, .svg, .png and loss.csv
(the plotted numbers).

    python scripts/plot_loss.py results/experiments/digits_shift/figures/loss
"""

from sft.runtime.stage import Stage, run_stage


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    from sft.reporting.training_figure import draw_training_metric

    draw_training_metric(
        stage,
        name="loss",
        metric="loss",
        splits={"train": "train", "validation": "validation"},
        subtitle="Cross-entropy of the supervised tokens against the training step",
        label="Loss (nats per token)",
    )


if __name__ == "__main__":
    run_stage(make, __doc__)

"""Plot the norm of the gradient against the training step, as it was before clipping.

From the ledger of an experiment. Every seed, their mean and its interval, and the norm that gradients were clipped
to; makes grad_norm.pdf, .svg, .png and grad_norm.csv (the plotted numbers).

    python scripts/plot_grad_norm.py results/experiments/digits_shift/figures/grad_norm
"""

from sft.runtime.stage import Stage, run_stage


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    from sft.reporting.training_figure import draw_training_metric

    draw_training_metric(
        stage,
        name="grad_norm",
        metric="grad_norm",
        splits={"train": ""},
        subtitle="L2 norm of the gradient before clipping, against the training step",
        label="Gradient norm (L2)",
        threshold="max_grad_norm",
    )


if __name__ == "__main__":
    run_stage(make, __doc__)

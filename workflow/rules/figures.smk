# Figures and tables, from the ledger alone: no model, no GPU, seconds.


rule plot_accuracy:
    input:
        made_from("results/experiments/{experiment}/figures/accuracy"),
    output:
        "results/experiments/{experiment}/figures/accuracy/manifest.json",
        multiext(
            "results/experiments/{experiment}/figures/accuracy/accuracy", ".pdf", ".png", ".csv"
        ),
        report(
            "results/experiments/{experiment}/figures/accuracy/accuracy.svg",
            caption="../report/accuracy.rst",
            category="{experiment}",
            labels={"figure": "accuracy"},
        ),
    log:
        "results/experiments/{experiment}/figures/accuracy/plot_accuracy.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("plot_accuracy"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/figures/accuracy 2> {log}"


rule plot_loss:
    input:
        made_from("results/experiments/{experiment}/figures/loss"),
    output:
        "results/experiments/{experiment}/figures/loss/manifest.json",
        multiext("results/experiments/{experiment}/figures/loss/loss", ".pdf", ".png", ".csv"),
        report(
            "results/experiments/{experiment}/figures/loss/loss.svg",
            caption="../report/loss.rst",
            category="{experiment}",
            labels={"figure": "loss"},
        ),
    log:
        "results/experiments/{experiment}/figures/loss/plot_loss.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("plot_loss"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/figures/loss 2> {log}"


rule plot_grad_norm:
    input:
        made_from("results/experiments/{experiment}/figures/grad_norm"),
    output:
        "results/experiments/{experiment}/figures/grad_norm/manifest.json",
        multiext(
            "results/experiments/{experiment}/figures/grad_norm/grad_norm", ".pdf", ".png", ".csv"
        ),
        report(
            "results/experiments/{experiment}/figures/grad_norm/grad_norm.svg",
            caption="../report/grad_norm.rst",
            category="{experiment}",
            labels={"figure": "gradient norm"},
        ),
    log:
        "results/experiments/{experiment}/figures/grad_norm/plot_grad_norm.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("plot_grad_norm"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/figures/grad_norm 2> {log}"


rule plot_comparison:
    input:
        made_from("results/experiments/{experiment}/figures/comparison"),
    output:
        "results/experiments/{experiment}/figures/comparison/manifest.json",
        multiext(
            "results/experiments/{experiment}/figures/comparison/comparison",
            ".pdf",
            ".png",
            ".csv",
        ),
        report(
            "results/experiments/{experiment}/figures/comparison/comparison.svg",
            caption="../report/comparison.rst",
            category="{experiment}",
            labels={"figure": "comparison"},
        ),
    log:
        "results/experiments/{experiment}/figures/comparison/plot_comparison.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("plot_comparison"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/figures/comparison 2> {log}"


rule plot_environments:
    input:
        made_from("results/experiments/{experiment}/figures/environments"),
    output:
        "results/experiments/{experiment}/figures/environments/manifest.json",
        multiext(
            "results/experiments/{experiment}/figures/environments/environments",
            ".pdf",
            ".png",
            ".csv",
        ),
        report(
            "results/experiments/{experiment}/figures/environments/environments.svg",
            caption="../report/environments.rst",
            category="{experiment}",
            labels={"figure": "environments"},
        ),
    log:
        "results/experiments/{experiment}/figures/environments/plot_environments.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("plot_environments"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/figures/environments 2> {log}"


rule plot_rows:
    input:
        made_from("results/experiments/{experiment}/figures/rows"),
    output:
        "results/experiments/{experiment}/figures/rows/manifest.json",
        multiext(
            "results/experiments/{experiment}/figures/rows/rows",
            ".pdf",
            ".png",
            ".csv",
        ),
        report(
            "results/experiments/{experiment}/figures/rows/rows.svg",
            caption="../report/rows.rst",
            category="{experiment}",
            labels={"figure": "rows"},
        ),
    log:
        "results/experiments/{experiment}/figures/rows/plot_rows.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("plot_rows"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/figures/rows 2> {log}"


rule tabulate_results:
    input:
        made_from("results/experiments/{experiment}/table"),
    output:
        "results/experiments/{experiment}/table/manifest.json",
        multiext("results/experiments/{experiment}/table/results", ".md", ".tex"),
        report(
            "results/experiments/{experiment}/table/results.csv",
            caption="../report/table.rst",
            category="{experiment}",
            labels={"figure": "table"},
        ),
        report(
            "results/experiments/{experiment}/table/costs.csv",
            caption="../report/costs.rst",
            category="{experiment}",
            labels={"figure": "costs"},
        ),
    log:
        "results/experiments/{experiment}/table/tabulate_results.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("tabulate_results"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/table 2> {log}"

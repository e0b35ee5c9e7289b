# One tidy table for all runs of an experiment; figures and tables read nothing else.


rule collect_metrics:
    input:
        made_from("results/experiments/{experiment}/ledger"),
    output:
        "results/experiments/{experiment}/ledger/manifest.json",
        multiext(
            "results/experiments/{experiment}/ledger/",
            "ledger.parquet",
            "ledger.csv",
            "paired.csv",
            "runs.csv",
            "costs.csv",
        ),
    log:
        "results/experiments/{experiment}/ledger/collect_metrics.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("collect_metrics"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/ledger 2> {log}"


rule compare_expected:
    input:
        made_from("results/experiments/{experiment}/expected"),
    output:
        "results/experiments/{experiment}/expected/manifest.json",
        "results/experiments/{experiment}/expected/comparison.csv",
    log:
        "results/experiments/{experiment}/expected/compare_expected.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("compare_expected"),
    shell:
        "python {params.script} results/experiments/{wildcards.experiment}/expected 2> {log}"

# Figures and tables, from the ledger alone: no model, no GPU, seconds. A figure is scripts/plot_<figure>.py; one of the
# user's own (`figures:` of an experiment) is drawn by scripts/plot_own.py.


rule plot:
    input:
        made_from("plot"),
    output:
        outputs("plot"),
        report(
            shown("plot"),
            caption="../report/figure.rst",
            category="{experiment}",
            labels={"figure": "{figure}"},
        ),
    log:
        log_of("plot"),
    localrule: True
    conda:
        environment("plot")
    params:
        node=node("plot"),
        python=python("plot"),
        script=script("plot"),
        about=about,
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule tabulate_results:
    input:
        made_from("tabulate_results"),
    output:
        outputs("tabulate_results"),
        report(
            shown("tabulate_results", 0),
            caption="../report/table.rst",
            category="{experiment}",
            labels={"figure": "table"},
        ),
        report(
            shown("tabulate_results", 1),
            caption="../report/costs.rst",
            category="{experiment}",
            labels={"figure": "costs"},
        ),
    log:
        log_of("tabulate_results"),
    localrule: True
    conda:
        environment("tabulate_results")
    params:
        node=node("tabulate_results"),
        python=python("tabulate_results"),
        script=script("tabulate_results"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"

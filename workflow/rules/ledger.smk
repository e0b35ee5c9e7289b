# One tidy table for all runs of an experiment; figures and tables read nothing else.


rule collect_metrics:
    input:
        made_from("collect_metrics"),
    output:
        outputs("collect_metrics"),
    log:
        log_of("collect_metrics"),
    localrule: True
    conda:
        environment("collect_metrics")
    params:
        node=node("collect_metrics"),
        python=python("collect_metrics"),
        script=script("collect_metrics"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule compare_expected:
    input:
        made_from("compare_expected"),
    output:
        outputs("compare_expected"),
    log:
        log_of("compare_expected"),
    localrule: True
    conda:
        environment("compare_expected")
    params:
        node=node("compare_expected"),
        python=python("compare_expected"),
        script=script("compare_expected"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"

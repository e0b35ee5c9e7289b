# Predictions per sample need the model; scores, of a run or of a baseline, need only the predictions.


rule ask_base:
    input:
        made_from("ask_base"),
    output:
        outputs("ask_base"),
    log:
        log_of("ask_base"),
    conda:
        environment("ask_base")
    threads: setting("ask_base", "threads")
    resources:
        mem_mb=memory("ask_base", "memory_mib"),
        runtime=setting("ask_base", "runtime_minutes"),
        gpu=setting("ask_base", "gpu"),
    params:
        launch=launch,
        node=node("ask_base"),
        python=python("ask_base"),
        script=script("ask_base"),
        device=setting("ask_base", "device"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q}"
        " --threads {threads} --device {params.device} 2> {log:q}"


rule predict:
    input:
        made_from("predict"),
    output:
        outputs("predict"),
    log:
        log_of("predict"),
    conda:
        environment("predict")
    threads: setting("predict", "threads")
    resources:
        mem_mb=memory("predict", "memory_mib"),
        runtime=setting("predict", "runtime_minutes"),
        gpu=setting("predict", "gpu"),
    params:
        launch=launch,
        node=node("predict"),
        python=python("predict"),
        script=script("predict"),
        device=setting("predict", "device"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q}"
        " --threads {threads} --device {params.device} 2> {log:q}"


rule fit_baseline:
    input:
        made_from("fit_baseline"),
    output:
        outputs("fit_baseline"),
    log:
        log_of("fit_baseline"),
    conda:
        environment("fit_baseline")
    resources:
        mem_mb=memory("fit_baseline", 2000),
        runtime=60,
    params:
        launch=launch,
        node=node("fit_baseline"),
        python=python("fit_baseline"),
        script=script("fit_baseline"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule score:
    input:
        made_from("score"),
    output:
        outputs("score"),
    log:
        log_of("score"),
    localrule: True
    conda:
        environment("score")
    params:
        node=node("score"),
        python=python("score"),
        script=script("score"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"

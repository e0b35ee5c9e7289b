# Base models: tokenizer and processor apart from the weights, since many weights share them.


rule download_model_files:
    input:
        made_from("download_model_files"),
    output:
        outputs("download_model_files"),
    log:
        log_of("download_model_files"),
    localrule: True
    conda:
        environment("download_model_files")
    params:
        node=node("download_model_files"),
        python=python("download_model_files"),
        script=script("download_model_files"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule download_processor:
    input:
        made_from("download_processor"),
    output:
        outputs("download_processor"),
    log:
        log_of("download_processor"),
    conda:
        environment("download_processor")
    resources:
        mem_mb=memory("download_processor", 2000),
        runtime=60,
    params:
        launch=launch,
        node=node("download_processor"),
        python=python("download_processor"),
        script=script("download_processor"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule download_model:
    input:
        made_from("download_model"),
    output:
        outputs("download_model"),
    log:
        log_of("download_model"),
    conda:
        environment("download_model")
    resources:
        mem_mb=memory("download_model", 2000),
        runtime=240,
    params:
        launch=launch,
        node=node("download_model"),
        python=python("download_model"),
        script=script("download_model"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"

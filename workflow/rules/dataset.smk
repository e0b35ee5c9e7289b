# From the files as published to tokens with a loss mask; all of it on the CPU, once per content. The download runs
# where Snakemake runs: compute nodes may have no network.


rule download_dataset:
    input:
        made_from("download_dataset"),
    output:
        outputs("download_dataset"),
    log:
        log_of("download_dataset"),
    localrule: True
    conda:
        environment("download_dataset")
    params:
        node=node("download_dataset"),
        python=python("download_dataset"),
        script=script("download_dataset"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule prepare_dataset:
    input:
        made_from("prepare_dataset"),
    output:
        outputs("prepare_dataset"),
    log:
        log_of("prepare_dataset"),
    conda:
        environment("prepare_dataset")
    resources:
        mem_mb=memory("prepare_dataset", 2000),
        runtime=60,
    params:
        launch=launch,
        node=node("prepare_dataset"),
        python=python("prepare_dataset"),
        script=script("prepare_dataset"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule split_dataset:
    input:
        made_from("split_dataset"),
    output:
        outputs("split_dataset"),
    log:
        log_of("split_dataset"),
    conda:
        environment("split_dataset")
    resources:
        mem_mb=memory("split_dataset", 2000),
        runtime=60,
    params:
        launch=launch,
        node=node("split_dataset"),
        python=python("split_dataset"),
        script=script("split_dataset"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule download_encoder:
    input:
        made_from("download_encoder"),
    output:
        outputs("download_encoder"),
    log:
        log_of("download_encoder"),
    conda:
        environment("download_encoder")
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        node=node("download_encoder"),
        python=python("download_encoder"),
        script=script("download_encoder"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule embed_rows:
    input:
        made_from("embed_rows"),
    output:
        outputs("embed_rows"),
    log:
        log_of("embed_rows"),
    conda:
        environment("embed_rows")
    threads: 2
    resources:
        mem_mb=3000,
        runtime=720,
    params:
        node=node("embed_rows"),
        python=python("embed_rows"),
        script=script("embed_rows"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q}" " --threads {threads} 2> {log:q}"


rule audit_splits:
    input:
        made_from("audit_splits"),
    output:
        outputs("audit_splits"),
        report(
            shown("audit_splits"),
            caption="../report/audit.rst",
            category="Audits",
            labels={"split": "{id}"},
        ),
    log:
        log_of("audit_splits"),
    conda:
        environment("audit_splits")
    resources:
        mem_mb=memory("audit_splits", 2000),
        runtime=60,
    params:
        launch=launch,
        node=node("audit_splits"),
        python=python("audit_splits"),
        script=script("audit_splits"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule tokenize_dataset:
    input:
        made_from("tokenize_dataset"),
    output:
        outputs("tokenize_dataset"),
    log:
        log_of("tokenize_dataset"),
    conda:
        environment("tokenize_dataset")
    resources:
        mem_mb=memory("tokenize_dataset", 2000),
        runtime=120,
    params:
        launch=launch,
        node=node("tokenize_dataset"),
        python=python("tokenize_dataset"),
        script=script("tokenize_dataset"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"


rule audit_labels:
    input:
        made_from("audit_labels"),
    output:
        outputs("audit_labels"),
        report(
            shown("audit_labels"),
            caption="../report/labels.rst",
            category="Audits",
            labels={"labels": "{id}"},
        ),
    log:
        log_of("audit_labels"),
    conda:
        environment("audit_labels")
    resources:
        mem_mb=memory("audit_labels", 1000),
        runtime=60,
    params:
        launch=launch,
        node=node("audit_labels"),
        python=python("audit_labels"),
        script=script("audit_labels"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q} 2> {log:q}"

# From the files as published to tokens with a loss mask; all of it on the CPU, once per content. The download runs
# where Snakemake runs: compute nodes may have no network.


rule download_dataset:
    input:
        made_from("results/sources/{id}"),
    output:
        "results/sources/{id}/manifest.json",
    log:
        "results/sources/{id}/download_dataset.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        script=script("download_dataset"),
    shell:
        "python {params.script} results/sources/{wildcards.id} 2> {log}"


rule prepare_dataset:
    input:
        made_from("results/datasets/{id}"),
    output:
        "results/datasets/{id}/manifest.json",
        "results/datasets/{id}/examples.parquet",
    log:
        "results/datasets/{id}/prepare_dataset.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory("results/datasets/{id}", 2000, "prepare_dataset"),
        runtime=60,
    params:
        launch=launch,
        script=script("prepare_dataset"),
    shell:
        "{params.launch} python {params.script} results/datasets/{wildcards.id} 2> {log}"


rule split_dataset:
    input:
        made_from("results/splits/{id}"),
    output:
        "results/splits/{id}/manifest.json",
        multiext("results/splits/{id}/", "train.parquet", "validation.parquet", "test.parquet"),
    log:
        "results/splits/{id}/split_dataset.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory("results/splits/{id}", 2000, "split_dataset"),
        runtime=60,
    params:
        launch=launch,
        script=script("split_dataset"),
    shell:
        "{params.launch} python {params.script} results/splits/{wildcards.id} 2> {log}"


rule download_encoder:
    input:
        made_from("results/encoders/{id}"),
    output:
        "results/encoders/{id}/manifest.json",
    log:
        "results/encoders/{id}/download_encoder.log",
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        script=script("download_encoder"),
    shell:
        "python {params.script} results/encoders/{wildcards.id} 2> {log}"


rule embed_rows:
    input:
        made_from("results/embeddings/{id}"),
    output:
        "results/embeddings/{id}/manifest.json",
    log:
        "results/embeddings/{id}/embed_rows.log",
    conda:
        "../../envs/train.yaml"
    threads: 2
    resources:
        mem_mb=3000,
        runtime=720,
    params:
        script=script("embed_rows"),
    shell:
        "python {params.script} results/embeddings/{wildcards.id} --threads {threads} 2> {log}"


rule audit_splits:
    input:
        made_from("results/audits/{id}"),
    output:
        "results/audits/{id}/manifest.json",
        "results/audits/{id}/audit.json",
        report(
            "results/audits/{id}/audit.html",
            caption="../report/audit.rst",
            category="Audits",
            labels={"split": "{id}"},
        ),
    log:
        "results/audits/{id}/audit_splits.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory("results/audits/{id}", 2000, "audit_splits"),
        runtime=60,
    params:
        launch=launch,
        script=script("audit_splits"),
    shell:
        "{params.launch} python {params.script} results/audits/{wildcards.id} 2> {log}"


rule tokenize_dataset:
    input:
        made_from("results/tokens/{id}"),
    output:
        "results/tokens/{id}/manifest.json",
        multiext("results/tokens/{id}/", "train.parquet", "validation.parquet", "labels.json"),
    log:
        "results/tokens/{id}/tokenize_dataset.log",
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=memory("results/tokens/{id}", 2000, "tokenize_dataset"),
        runtime=120,
    params:
        launch=launch,
        python=setting("results/tokens/{id}", "python"),
        script=script("tokenize_dataset"),
    shell:
        "{params.launch} {params.python} {params.script} results/tokens/{wildcards.id} 2> {log}"


rule audit_labels:
    input:
        made_from("results/label_audits/{id}"),
    output:
        "results/label_audits/{id}/manifest.json",
        "results/label_audits/{id}/audit.json",
        report(
            "results/label_audits/{id}/labels.html",
            caption="../report/labels.rst",
            category="Audits",
            labels={"labels": "{id}"},
        ),
    log:
        "results/label_audits/{id}/audit_labels.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory("results/label_audits/{id}", 1000, "audit_labels"),
        runtime=60,
    params:
        launch=launch,
        script=script("audit_labels"),
    shell:
        "{params.launch} python {params.script} results/label_audits/{wildcards.id} 2> {log}"

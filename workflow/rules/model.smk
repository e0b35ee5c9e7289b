# Base models: tokenizer and processor apart from the weights, since many weights share them.


rule download_model_files:
    input:
        made_from("results/model_files/{id}"),
    output:
        "results/model_files/{id}/manifest.json",
    log:
        "results/model_files/{id}/download_model_files.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        script=script("download_model_files"),
    shell:
        "python {params.script} results/model_files/{wildcards.id} 2> {log}"


rule download_processor:
    input:
        made_from("results/processors/{id}"),
    output:
        "results/processors/{id}/manifest.json",
    log:
        "results/processors/{id}/download_processor.log",
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=memory("results/processors/{id}", 2000, "download_processor"),
        runtime=60,
    params:
        launch=launch,
        python=setting("results/processors/{id}", "python"),
        script=script("download_processor"),
    shell:
        "{params.launch} {params.python} {params.script} results/processors/{wildcards.id} 2> {log}"


rule download_model:
    input:
        made_from("results/models/{id}"),
    output:
        "results/models/{id}/manifest.json",
    log:
        "results/models/{id}/download_model.log",
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=memory("results/models/{id}", 2000, "download_model"),
        runtime=240,
    params:
        launch=launch,
        python=setting("results/models/{id}", "python"),
        script=script("download_model"),
    shell:
        "{params.launch} {params.python} {params.script} results/models/{wildcards.id} 2> {log}"

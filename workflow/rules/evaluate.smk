# Predictions per sample need the model; scores need only the predictions.


rule ask_base:
    input:
        made_from("results/base_answers/{id}"),
    output:
        "results/base_answers/{id}/manifest.json",
        "results/base_answers/{id}/predictions.parquet",
    log:
        "results/base_answers/{id}/ask_base.log",
    conda:
        "../../envs/train.yaml"
    threads: setting("results/base_answers/{id}", "threads")
    resources:
        mem_mb=memory("results/base_answers/{id}", "memory_mib", "ask_base"),
        runtime=setting("results/base_answers/{id}", "runtime_minutes"),
        gpu=setting("results/base_answers/{id}", "gpu"),
        device=setting("results/base_answers/{id}", "device"),
    params:
        launch=launch,
        python=setting("results/base_answers/{id}", "python"),
        script=script("ask_base"),
    shell:
        "{params.launch} {params.python} {params.script} results/base_answers/{wildcards.id}"
        " --threads {threads} --device {resources.device} 2> {log}"


rule predict:
    input:
        made_from("results/runs/{run}/evaluations/{evaluation}"),
    output:
        "results/runs/{run}/evaluations/{evaluation}/manifest.json",
        "results/runs/{run}/evaluations/{evaluation}/predictions.parquet",
    log:
        "results/runs/{run}/evaluations/{evaluation}/predict.log",
    conda:
        "../../envs/train.yaml"
    threads: setting("results/runs/{run}/evaluations/{evaluation}", "threads")
    resources:
        mem_mb=memory("results/runs/{run}/evaluations/{evaluation}", "memory_mib", "predict"),
        runtime=setting("results/runs/{run}/evaluations/{evaluation}", "runtime_minutes"),
        gpu=setting("results/runs/{run}/evaluations/{evaluation}", "gpu"),
        device=setting("results/runs/{run}/evaluations/{evaluation}", "device"),
    params:
        launch=launch,
        python=setting("results/runs/{run}/evaluations/{evaluation}", "python"),
        script=script("predict"),
    shell:
        "{params.launch} {params.python} {params.script} results/runs/{wildcards.run}/evaluations/{wildcards.evaluation}"
        " --threads {threads} --device {resources.device} 2> {log}"


rule score:
    input:
        made_from("results/runs/{run}/evaluations/{evaluation}/scores"),
    output:
        "results/runs/{run}/evaluations/{evaluation}/scores/manifest.json",
        multiext(
            "results/runs/{run}/evaluations/{evaluation}/scores/",
            "scores.parquet",
            "right.parquet",
        ),
    log:
        "results/runs/{run}/evaluations/{evaluation}/scores/score.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        script=script("score"),
    shell:
        "python {params.script} results/runs/{wildcards.run}/evaluations/{wildcards.evaluation}/scores"
        " 2> {log}"


rule fit_baseline:
    input:
        made_from("results/baselines/{id}"),
    output:
        "results/baselines/{id}/manifest.json",
        "results/baselines/{id}/predictions.parquet",
    log:
        "results/baselines/{id}/fit_baseline.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory("results/baselines/{id}", 2000, "fit_baseline"),
        runtime=60,
    params:
        launch=launch,
        script=script("fit_baseline"),
    shell:
        "{params.launch} python {params.script} results/baselines/{wildcards.id} 2> {log}"


rule score_baseline:
    input:
        made_from("results/baselines/{id}/scores"),
    output:
        "results/baselines/{id}/scores/manifest.json",
        multiext("results/baselines/{id}/scores/", "scores.parquet", "right.parquet"),
    log:
        "results/baselines/{id}/scores/score.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        script=script("score"),
    shell:
        "python {params.script} results/baselines/{wildcards.id}/scores 2> {log}"

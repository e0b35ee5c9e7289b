# Training. Checkpoints lie beside the declared outputs: Snakemake deletes the outputs of a failed job, and a
# restarted job has to find them. `exec`: the shell makes way for Python, so that a SIGTERM to all processes of the
# job reaches a trainer that still has its parent, and it saves a checkpoint before it stops.


rule train_model:
    input:
        made_from("results/runs/{run}"),
    output:
        "results/runs/{run}/manifest.json",
        multiext("results/runs/{run}/", "metrics.parquet", "effective.json", "kept.json"),
    log:
        "results/runs/{run}/train_model.log",
    conda:
        "../../envs/train.yaml"
    threads: setting("results/runs/{run}", "cores")
    resources:
        mem_mb=memory("results/runs/{run}", "memory_mib", "train_model"),
        runtime=setting("results/runs/{run}", "runtime_minutes"),
        gpu=setting("results/runs/{run}", "gpu"),
        device=setting("results/runs/{run}", "device"),
        micro_batch_size=setting("results/runs/{run}", "micro_batch_size"),
        code_policy=setting("results/runs/{run}", "code_policy"),
        keep_optimizer=setting("results/runs/{run}", "keep_optimizer"),
        distributed=setting("results/runs/{run}", "distributed"),
    params:
        launch=launch,
        launch_ranks=launch_ranks,
        python=setting("results/runs/{run}", "python"),
        script=script("train_model"),
    shell:
        "exec {params.launch} {params.python} {params.script} results/runs/{wildcards.run} --threads {threads}"
        " --device {resources.device} --micro-batch-size {resources.micro_batch_size}"
        " --code-policy {resources.code_policy} {resources.keep_optimizer} {resources.distributed}"
        " {params.launch_ranks} 2>> {log}"

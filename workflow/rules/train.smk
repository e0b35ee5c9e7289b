# Training. Checkpoints lie beside the declared outputs: Snakemake deletes the outputs of a failed job, and a
# restarted job has to find them. `exec`: the shell makes way for Python, so that a SIGTERM to all processes of the
# job reaches a trainer that still has its parent, and it saves a checkpoint before it stops.


rule train_model:
    input:
        made_from("train_model"),
    output:
        outputs("train_model"),
    log:
        log_of("train_model"),
    conda:
        environment("train_model")
    threads: setting("train_model", "cores")
    resources:
        mem_mb=memory("train_model", "memory_mib"),
        runtime=setting("train_model", "runtime_minutes"),
        gpu=setting("train_model", "gpu"),
    params:
        launch=launch,
        node=node("train_model"),
        python=python("train_model"),
        script=script("train_model"),
        device=setting("train_model", "device"),
        micro_batch_size=setting("train_model", "micro_batch_size"),
        code_policy=setting("train_model", "code_policy"),
        keep_optimizer=setting("train_model", "keep_optimizer"),
        distributed=setting("train_model", "distributed"),
        launch_ranks=launch_ranks,
    shell:
        "exec {params.launch} {params.python:q} {params.script:q} {params.node:q}"
        " --threads {threads} --device {params.device} --micro-batch-size {params.micro_batch_size}"
        " --code-policy {params.code_policy} {params.keep_optimizer} {params.distributed}"
        " {params.launch_ranks} 2>> {log:q}"

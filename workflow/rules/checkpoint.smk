# From trained state to Hugging Face model directories, each shown to be the trained model before it counts.


rule convert_checkpoint:
    input:
        made_from("convert_checkpoint"),
    output:
        outputs("convert_checkpoint"),
    log:
        log_of("convert_checkpoint"),
    conda:
        environment("convert_checkpoint")
    threads: setting("convert_checkpoint", "threads")
    resources:
        mem_mb=memory("convert_checkpoint", "memory_mib"),
        runtime=setting("convert_checkpoint", "runtime_minutes"),
    params:
        launch=launch,
        node=node("convert_checkpoint"),
        python=python("convert_checkpoint"),
        script=script("convert_checkpoint"),
    shell:
        "{params.launch} {params.python:q} {params.script:q} {params.node:q}"
        " --threads {threads} 2> {log:q}"

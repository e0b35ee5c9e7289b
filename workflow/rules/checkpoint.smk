# From trained state to Hugging Face model directories, each shown to be the trained model before it counts.


rule convert_checkpoint:
    input:
        made_from("results/runs/{run}/models/{dtype}"),
    output:
        "results/runs/{run}/models/{dtype}/manifest.json",
        "results/runs/{run}/models/{dtype}/parity.json",
    log:
        "results/runs/{run}/models/{dtype}/convert_checkpoint.log",
    conda:
        "../../envs/train.yaml"
    threads: setting("results/runs/{run}/models/{dtype}", "threads")
    resources:
        mem_mb=memory("results/runs/{run}/models/{dtype}", "memory_mib", "convert_checkpoint"),
        runtime=setting("results/runs/{run}/models/{dtype}", "runtime_minutes"),
    params:
        launch=launch,
        python=setting("results/runs/{run}/models/{dtype}", "python"),
        script=script("convert_checkpoint"),
    shell:
        "{params.launch} {params.python} {params.script} results/runs/{wildcards.run}/models/{wildcards.dtype}"
        " --threads {threads} 2> {log}"

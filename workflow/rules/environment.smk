# Packages of their own, for cells that name a lock. Local: compute nodes may have no network.


rule make_environment:
    input:
        made_from("results/environments/{id}"),
    output:
        "results/environments/{id}/manifest.json",
        "results/environments/{id}/packages.json",
    log:
        "results/environments/{id}/make_environment.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        script=script("make_environment"),
    shell:
        "python {params.script} results/environments/{wildcards.id} 2> {log}"

# Packages of their own, for cells that name a lock. Local: compute nodes may have no network.


rule make_environment:
    input:
        made_from("make_environment"),
    output:
        outputs("make_environment"),
    log:
        log_of("make_environment"),
    localrule: True
    conda:
        environment("make_environment")
    params:
        node=node("make_environment"),
        python=python("make_environment"),
        script=script("make_environment"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"

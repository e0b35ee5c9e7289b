# The small file that a paper can cite and from which `figures` draws everything again.


rule archive:
    input:
        made_from("archive"),
    output:
        outputs("archive"),
    log:
        log_of("archive"),
    localrule: True
    conda:
        environment("archive")
    params:
        node=node("archive"),
        python=python("archive"),
        script=script("archive"),
    shell:
        "{params.python:q} {params.script:q} {params.node:q} 2> {log:q}"

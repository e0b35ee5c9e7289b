# The small file that a paper can cite and from which `figures` draws everything again.


rule archive:
    input:
        made_from("results/archive"),
    output:
        "results/archive/manifest.json",
        "results/archive/archive.tar.gz",
    log:
        "results/archive/archive.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        script=script("archive"),
    shell:
        "python {params.script} results/archive 2> {log}"

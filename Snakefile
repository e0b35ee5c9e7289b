include: "workflow/Snakefile"


# Without this line Snakemake finds nothing to do here, and says so with exit code 0.
workflow.default_target = "all"

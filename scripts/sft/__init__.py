"""The library that the Snakefile and the scripts share.

Two halves. The light one (config, planning, estimates, packages, slurm, stage, manifest, claim, ...) is imported when
Snakemake parses and never imports torch; the heavy one (what wraps torch and its friends: models, training, conversion,
most of data and evaluation) is imported by single scripts only.
"""

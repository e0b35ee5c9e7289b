"""The library that the Snakefile and the scripts share.

Two halves. The light one (canonical, code, manifest, stage, plan, config, statistics, ...) is imported
when Snakemake parses and never imports torch; the heavy one (names ending in what it wraps, such as
trainer, checkpoint, parity) is imported by single scripts only.
"""

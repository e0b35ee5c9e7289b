"""The typed configuration: a file a section; `sft.config.load` reads, checks and resolves it."""

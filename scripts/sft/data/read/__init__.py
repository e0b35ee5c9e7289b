"""From published files to canonical examples."""

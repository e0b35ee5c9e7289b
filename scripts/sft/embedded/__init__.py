"""Data sets and models made here: the default, stand-ins of published ones, and the smallest of each family."""

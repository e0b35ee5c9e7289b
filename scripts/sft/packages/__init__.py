"""Versions: what is pinned, what is installed, and whether the two agree."""

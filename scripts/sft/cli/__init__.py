"""The `sft` command: `arguments.py` is all that can be typed, `__main__.py` starts it, and each verb is a file."""

from pathlib import Path

# The workflow that this command belongs to: a checkout, or what a wheel installed of one.
TREE = Path(__file__).resolve().parents[3]

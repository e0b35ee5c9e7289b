"""`sft` where it was installed from a wheel: a door to the modules of the tree that the wheel brings.

That tree, the folder snakemake_sft beside this one, is laid out as a checkout: rules run `python scripts/<rule>.py`, also
in conda environments and containers that know nothing of this Python's packages, and find scripts/sft beside them.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1] / "snakemake_sft/scripts/sft")]

"""`sft` where it was installed from a wheel: a door to the modules of the tree that the wheel brings.

That tree, the folder snakemake_sft beside this one, is laid out as a checkout. Rules run `python scripts/<rule>.py`,
in conda environments and containers too, which know nothing of this Python's packages: sft has to lie beside it there.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1] / "snakemake_sft/scripts/sft")]

"""`sft` where it was installed from a wheel: a door to the modules of the tree that the wheel brings.

That tree, the folder snakemake_sft beside this one, is laid out as a checkout. Rules run `python scripts/<rule>.py`,
in conda environments and containers too, which know nothing of this Python's packages: sft has to lie beside it there.
"""

from pathlib import Path

_HERE = Path(__file__).resolve()
# Of a wheel; of a checkout that was installed with `pip install -e`.
_TREES = (_HERE.parents[1] / "snakemake_sft", _HERE.parents[3])
__path__ = [str(tree / "scripts/sft") for tree in _TREES if (tree / "scripts/sft").is_dir()]

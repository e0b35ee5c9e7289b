"""What the Snakefile knows: the plan, what of it is fresh, and how the rest has to be run.

`attach` is the way in. `from_config` plans without Snakemake, for the command line.
"""

from sft.workflow.attached import Attached
from sft.workflow.planned import ARCHIVE, from_archive, from_config, link_runs, write_config
from sft.workflow.start import attach

__all__ = ["ARCHIVE", "Attached", "attach", "from_archive", "from_config", "link_runs", "write_config"]

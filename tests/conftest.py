"""Makes `sft` and the scripts importable, as they are when a script is run by its path."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

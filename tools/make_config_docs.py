"""Writes what is documented of the configuration, from its typed sections in scripts/sft/config/.

workflow/schemas/config.schema.json, the tables of config/README.md, and the comments of config/config.yaml.

    python tools/make_config_docs.py            # write them
    python tools/make_config_docs.py --check    # say which are out of date; exit code 1 if any is
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from config_documentation import generated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is out of date")
    options = parser.parse_args()
    outdated = []
    for path, update in generated(ROOT).items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = update(old)
        if new == old:
            continue
        outdated.append(path.relative_to(ROOT).as_posix())
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(new, encoding="utf-8")
    if outdated:
        print(f"{'out of date' if options.check else 'written'}: {', '.join(outdated)}")
    return int(options.check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())

"""One of the processes that train a run together. train_model.py starts them by torchrun; nobody else does.

python -m torch.distributed.run --standalone --nproc-per-node 2 scripts/ranks/train_rank.py PLAN
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sft.training.rank import leave, train

if __name__ == "__main__":
    leave(train(sys.argv[1]))

"""One of the processes that train a run together. train_model.py starts them by torchrun; nobody else does.

python -m torch.distributed.run --standalone --nproc-per-node 2 scripts/train_rank.py PLAN
"""

import sys

from sft.training.rank import leave, train

if __name__ == "__main__":
    leave(train(sys.argv[1]))

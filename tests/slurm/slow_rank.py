"""scripts/ranks/train_rank.py that waits as slow_train.py does."""

import sys

import slow_train  # noqa: F401

from sft.training.rank import leave, train

if __name__ == "__main__":
    leave(train(sys.argv[1]))

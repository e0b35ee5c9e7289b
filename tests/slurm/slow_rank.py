"""scripts/train_rank.py with the pauses of slow_train.py."""

import sys

import slow_train  # noqa: F401

from sft.training.rank import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1]))

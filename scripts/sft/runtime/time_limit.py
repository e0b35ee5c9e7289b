"""When a training job has to stop by itself, so that its last checkpoint is written before SLURM ends it.

Signals are not to be relied on: not every way of starting a job passes them on to the trainer.
"""

import time
from collections.abc import Callable

# SLURM looks at time limits every half minute, counts the start of the job, and a busy file system has its moods.
SPARE_SECONDS = 15.0
# Before a checkpoint was timed: a tenth of what is left at the start, and at most ten minutes.
UNTIMED_SHARE, UNTIMED_SECONDS = 0.1, 600.0


class TimeLimit:
    """Knows when time is short. `seconds_left`: until the job is ended; None: nobody ends it."""

    def __init__(self, seconds_left: float | None, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._start = self._looked = clock()
        self._end = None if seconds_left is None else self._start + seconds_left
        self._untimed = min(UNTIMED_SHARE * (seconds_left or 0.0), UNTIMED_SECONDS)
        self.longest_step = 0.0
        self.longest_save = 0.0

    @property
    def margin(self) -> float:
        """Seconds before the end at which to stop: one more step, and twice the longest checkpoint so far."""
        return SPARE_SECONDS + self.longest_step + (2 * self.longest_save or self._untimed)

    def begin(self) -> None:
        """Training begins: what was loaded before is no step."""
        self._looked = self._clock()

    def is_near(self) -> bool:
        """Called once a step, before the decision to go on; what lies between two calls counts as a step."""
        now = self._clock()
        self.longest_step = max(self.longest_step, now - self._looked)
        self._looked = now
        return self._end is not None and now + self.margin >= self._end

    def saved(self, seconds: float) -> None:
        """A checkpoint took this long."""
        self.longest_save = max(self.longest_save, seconds)

"""The lines that a person watches: step, loss, speed and time left, at most one every few seconds."""

import time
from collections.abc import Callable

INTERVAL_SECONDS = 5.0


class TrainingLog:
    """Says how training goes. `total` is the number of steps of the whole run, `first` the step it continues from."""

    def __init__(self, say: Callable[[str], None], total: int, first: int):
        self._say = say
        self._total = total
        self._first = first
        self._last_said = float("-inf")
        self.seconds = 0.0
        self.tokens = 0

    @property
    def tokens_per_second(self) -> float:
        """Of this attempt; evaluating and saving do not count."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def step(self, step: int, loss: float, tokens: int, seconds: float) -> None:
        """One optimizer step took `seconds` for `tokens` tokens."""
        self.seconds += seconds
        self.tokens += tokens
        now = time.monotonic()
        if step == self._total or now - self._last_said >= INTERVAL_SECONDS:
            self._last_said = now
            left = self.seconds / (step - self._first) * (self._total - step)
            self._say(
                f"step {step}/{self._total}  loss {loss:.4f}  {self.tokens_per_second:,.0f} tokens/s  "
                f"{duration(left)} left"
            )


def duration(seconds: float) -> str:
    """Seconds in words: `12 s`, `3 min 04 s`, `5 h 06 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

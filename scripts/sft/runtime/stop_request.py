"""A request to stop: finish the optimizer step, save, leave with exit code 75 so that the run is started again.

It comes as SIGTERM, which SLURM sends before the time limit and on preemption, or from the trainer's own look at the
clock (sft.runtime.time_limit). Before training starts there is nothing to save, so the process leaves at once.
"""

import signal

from sft.runtime.stage import EXIT_RESUMABLE


class StopRequest:
    """Listens for SIGTERM from its creation on; `reason` says why to stop, None: go on."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._deferred = False
        signal.signal(signal.SIGTERM, self._on_signal)

    @property
    def requested(self) -> bool:
        return self.reason is not None

    def request(self, reason: str) -> None:
        """Ask for a stop; the first reason stays."""
        self.reason = self.reason or reason

    def defer(self) -> None:
        """From here on a request only sets `requested`; whoever runs the loop looks at it between two steps."""
        self._deferred = True

    def _on_signal(self, _signal: int, _frame: object) -> None:
        self.request("SIGTERM")
        if not self._deferred:
            # A second signal must not interrupt the cleaning up that this one starts.
            self._deferred = True
            raise SystemExit(EXIT_RESUMABLE)

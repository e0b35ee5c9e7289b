"""SIGTERM as a request: finish the optimizer step, save, leave with exit code 75 so that the run is started again.

SLURM sends it before the time limit and on preemption. Before training starts there is nothing to save, so the
process leaves at once.
"""

import signal

from sft.stage import EXIT_RESUMABLE


class StopRequest:
    """Listens for SIGTERM from its creation on; `requested` says whether one came."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def defer(self) -> None:
        """From here on a request only sets `requested`; whoever runs the loop looks at it between two steps."""
        self._deferred = True

    def _on_signal(self, _signal: int, _frame: object) -> None:
        self.requested = True
        if not self._deferred:
            # A second signal must not interrupt the cleaning up that this one starts.
            self._deferred = True
            raise SystemExit(EXIT_RESUMABLE)

"""The metrics stream as TensorBoard event files, for people who watch runs there.

A mirror: rewritten from the stream when an attempt starts and when the run ends, so that a resumed run shows every
step once. Numbers come from the stream, never from here (event files hold float32).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sft.training import metrics_stream


class TensorboardMirror:
    """Event files in `directory`: first the rows of the stream that count, then what is added."""

    def __init__(self, stream: Path, directory: Path):
        # torch.utils.tensorboard costs another CPU second to import; this writer is all that scalars need.
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        self._writer = EventFileWriter(str(directory))
        for row in metrics_stream.read(stream).values():
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Show one row: its numbers as `<split>/<name>`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=f"{row['split']}/{name}", simple_value=value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and name not in ("step", "time", "attempt")
        ]
        try:
            self._writer.add_event(Event(step=row["step"], wall_time=row["time"], summary=Summary(value=values)))
        except OSError as error:
            error.filename = str(self._directory)  # a full disk, told with the place
            raise

    def close(self) -> None:
        self._writer.close()

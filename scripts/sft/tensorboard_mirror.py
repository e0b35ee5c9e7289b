"""The metrics stream as TensorBoard event files, for people who watch runs there.

A mirror: rewritten from the stream when an attempt starts and when it ends, so that a resumed run shows every step
once. Numbers come from the stream, never from here (event files hold float32).
"""

import shutil
from pathlib import Path

from sft import metrics_stream


def rewrite(stream: Path, directory: Path) -> None:
    """Replace `directory` by event files of the rows that count in the metrics stream."""
    # torch.utils.tensorboard costs 1 CPU second to import; the writer below it is all that scalars need.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    shutil.rmtree(directory, ignore_errors=True)
    writer = EventFileWriter(str(directory))
    for (step, split), row in metrics_stream.read(stream).items():
        values = [
            Summary.Value(tag=f"{split}/{name}", simple_value=value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and name not in ("step", "time", "attempt")
        ]
        writer.add_event(Event(step=step, wall_time=row["time"], summary=Summary(value=values)))
    writer.close()

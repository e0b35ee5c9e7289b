"""Trainers for jobs of a benchmark, forked from one process that has imported torch: a second each instead of twelve.

    python benchmarks/forked_trainers.py serve SOCKET            # imports the libraries, then waits for jobs
    python benchmarks/forked_trainers.py SOCKET RUN [options]    # in a job, in place of scripts/train_model.py

What trains is the real train_model.py, with the job's environment, directory and output, and in the job's cgroups, so
that memory limits and a dying node reach it. The process that the job started hands SIGTERM on, ends as the trainer
ended, and takes it along when it is killed itself.
"""

import array
import json
import os
import selectors
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import NoReturn

CGROUPS = Path("/sys/fs/cgroup")


def ask(place: str, arguments: list[str]) -> NoReturn:
    """Have a trainer forked, and be its stand-in until it ends."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(place)
    signal.signal(signal.SIGTERM, lambda *_: server.send(b"T"))
    asked = {"arguments": arguments, "environment": dict(os.environ), "directory": str(Path.cwd())}
    # The request goes through a file of its own, whose descriptor travels with those of the output.
    request = os.memfd_create("request")
    os.write(request, json.dumps(asked).encode())
    os.lseek(request, 0, os.SEEK_SET)
    socket.send_fds(server, [b"R"], [request, 1, 2])
    (code,) = struct.unpack("i", server.recv(4))  # a signal in between does not end the wait (PEP 475)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


def serve(place: str) -> NoReturn:
    """Import what training needs, then fork a trainer for every job that asks."""
    root = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(root / folder) for folder in ("scripts", "tests/slurm", "tests/smoke")]
    import slow_train  # noqa: F401
    import training_nodes

    training_nodes._import_libraries()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ, None)
    trainers: dict[socket.socket, int] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                job, _ = listening.accept()
                trainers[job] = _fork(job)
                selector.register(job, selectors.EVENT_READ, None)
                ended = os.pidfd_open(trainers[job])
                selector.register(ended, selectors.EVENT_READ, job)
            elif key.data is None:  # from a job: SIGTERM, or it is gone
                job = key.fileobj
                if job.recv(1) and job in trainers:
                    os.kill(trainers[job], signal.SIGTERM)
                    continue
                selector.unregister(job)
                if job in trainers:
                    os.kill(trainers[job], signal.SIGKILL)
                job.close()
            else:  # a trainer ended
                job = key.data
                selector.unregister(key.fileobj)
                os.close(key.fileobj)
                _, status = os.waitpid(trainers.pop(job), 0)
                if job.fileno() >= 0:
                    try:
                        job.send(struct.pack("i", os.waitstatus_to_exitcode(status)))
                    except OSError:
                        continue  # the job was killed in this moment


def _fork(job: socket.socket) -> int:
    (*descriptors,) = socket.recv_fds(job, 1, 3)[1]
    (caller,) = array.array("i", job.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[:1]
    pid = os.fork()
    if pid == 0:
        _train(caller, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _train(caller: int, request: int, output: int, errors: int) -> NoReturn:
    code = 1
    try:
        asked = json.loads(os.read(request, 2**22))
        for line in Path(f"/proc/{caller}/cgroup").read_text().splitlines():
            _, controller, group = line.split(":")
            if "slurm" in group:
                (CGROUPS / controller / group.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        os.dup2(output, 1)
        os.dup2(errors, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 (a descriptor)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["directory"])
        sys.argv = ["train_model.py", *asked["arguments"]]
        import train_model
        from sft.runtime.stage import run_stage

        run_stage(train_model.make, train_model.__doc__, train_model.add_options)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    ask(sys.argv[1], sys.argv[2:])

"""A `python` for the jobs of a test's Snakemake that forks from a process which has imported the training stack once.

A small study is twenty processes of a second's work each, and importing torch, transformers and TRL takes ten CPU
seconds in every one of them. Here a server imports them once a test session. A job's `python` is a small program that
hands its arguments, directory, environment and standard streams to the server and ends as the script ends. The script
itself is run from its file, as by Python, and nothing of this project is imported before: a checkout's own
`scripts/sft` counts.

What is about imports, kills or a hub (whose address the client reads when it is imported) is tested with the real
Python (`Checkout.snakemake(warm=False)`), and `make demo` uses that, too.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

SECONDS_TO_START = 300
COVERAGE = "COVERAGE_PROCESS_CONFIG"  # coverage.py's, in what a measured process starts
# -I and -S: nothing of the environment and no site-packages, so that it starts in hundredths of a second.
CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys
arguments = sys.argv[1:]
name = os.path.basename(arguments[0]) if arguments else ""
if not name.endswith(".py"):
    os.execv({python!r}, [{python!r}, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
told = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(told).to_bytes(8, "big")], [0, 1, 2])
server.sendall(told)
answers = server.makefile()
pid = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(answers.readline() or 1)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


# A workflow starts jobs with the Python that it runs in (sft/workflow.py).
HEAD = """\
import sys
sys.executable = {client!r}
from snakemake.cli import main
main()
"""


@cache
def snakemake() -> list[str]:
    """The command of a Snakemake whose jobs are forked. The server that they are forked from ends with this process."""
    place = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(place / "server")
    client = place / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    head = place / "snakemake"
    head.write_text(HEAD.format(client=str(client)))
    # Its output is nobody's: the jobs bring their own streams.
    server = subprocess.Popen([sys.executable, __file__, address], env=_clean_environment(), stdout=subprocess.DEVNULL)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    atexit.register(server.kill)
    end = time.monotonic() + SECONDS_TO_START
    while not Path(address).exists():
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the warm Python did not start")
        time.sleep(0.05)
    return [sys.executable, str(head)]


def _clean_environment() -> dict[str, str]:
    left_out = ("PYTHONPATH", COVERAGE)  # the libraries are none of ours: what is measured are the jobs
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _serve(address: str) -> None:
    _die_with_parent()
    _import_libraries()
    # What is there now is never garbage; looking through it would copy its pages into every job.
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    Path(address + ".new").rename(address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch over the jobs
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch_over(connection)
        connection.close()


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)


def _import_libraries() -> None:
    """What the scripts import, in the order and the state in which they do."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    gc.set_threshold(50_000)
    sys.modules["scipy"] = None  # as sft/reporting/figure_style.py does for seaborn
    for name in ("pandas", "pyarrow.parquet", "seaborn"):
        importlib.import_module(name)
    del sys.modules["scipy"]
    sys.modules["bitsandbytes"] = None  # as sft/models/torch_setup.py does for peft
    import peft.import_utils

    peft.import_utils.is_bnb_available()
    del sys.modules["bitsandbytes"]
    importlib.import_module("torch.utils.tensorboard")
    # transformers and TRL import their classes when they are asked for.
    transformers, trl = importlib.import_module("transformers"), importlib.import_module("trl")
    for name in ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer"):
        getattr(transformers, name)
    for name in ("SFTConfig", "SFTTrainer"):
        getattr(trl, name)


def _watch_over(connection: socket.socket) -> NoReturn:
    """Run one job and tell how it ended; end it when whoever asked for it is gone."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    size = int.from_bytes(head, "big")
    told = b""
    while len(told) < size:
        told += connection.recv(size - len(told))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run(streams, *json.loads(told))
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{pid}\n".encode())
    ended = os.pidfd_open(pid)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(streams: list[int], arguments: list[str], directory: str, environment: dict[str, Any]) -> NoReturn:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    script = Path(arguments[0])
    sys.argv = arguments
    extra = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [str(script.parent), *extra]
    if COVERAGE in environment:
        importlib.import_module("coverage").process_startup()
    code = 1
    try:
        for path in extra:
            if (custom := Path(path) / "sitecustomize.py").exists():
                runpy.run_path(str(custom))
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        # The streams may be closed pipes, and the exit code counts all the same.
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])

"""Ranks without torchrun: forked from a process that has imported the libraries, so that a launch costs no imports.

What torchrun does for a rank is its environment; everything else is the real thing, process group included.
"""

import os
import signal
import socket
import sys
import time
import traceback

from sft.runtime.stop_request import StopRequest
from sft.training import spread
from sft.training.ranks_plan import RanksPlan


def fork_ranks() -> None:
    """Patch (of a `Child`): start ranks by forking this process."""
    spread._watched = _watched


def _watched(command: list[str], plan: RanksPlan, stop: StopRequest, environment: dict[str, str]) -> int:
    world = int(command[command.index("--nproc-per-node") + 1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = {_fork(rank, world, port, str(plan.folder / "plan.json"), environment): rank for rank in range(world)}
    (plan.folder / "pids").write_text(" ".join(map(str, ranks)))
    code = 0
    while ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            ranks.pop(pid)
            code = code or abs(os.waitstatus_to_exitcode(status))
        if stop.requested and not plan.stop_is_asked:
            plan.ask_to_stop()
        if code or (plan.stop_is_asked and not plan.is_training):
            time.sleep(0.2)  # the others give their reasons, as an agent would let them
            for other in ranks:
                os.kill(other, signal.SIGKILL)
                os.waitpid(other, 0)
            return code or -signal.SIGKILL
        time.sleep(0.01)
    return code


def _fork(rank: int, world: int, port: int, plan: str, environment: dict[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ |= environment | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        from sft.training.rank import train

        code = train(plan)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

"""A SLURM cluster of this machine's own: munged, slurmctld and two slurmd on loopback, up in a second.

Everything lies in one private folder, on ports and under node names of its own, so that two may run at once; no
systemd, nothing below /etc. The daemons are children that are ended by pid. Each node has 8 pretended CPUs, 8000 MB
and two pretended GPUs (links to /dev/null: SLURM counts them and sets CUDA_VISIBLE_DEVICES, nothing can use them).

A third node, in the partition `apart` only, is for what takes minutes and must not meet the others' mishaps.
"""

import ctypes
import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sacct", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
CGROUPS = Path("/sys/fs/cgroup")
NODES = 2

CONFIGURATION = """\
ClusterName={name}
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it starts again; 120 s by default, and below 5.
AuthInfo=socket={folder}/munge/sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
MailProg=/bin/true
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/{track}
TaskPlugin=task/{task}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=8
KillWait=3
MinJobAge=300
JobRequeue=1
AccountingStorageType=accounting_storage/none
GresTypes=gpu
{node_lines}
PartitionName=cpu Nodes={nodes} Default=YES DefaultTime=5 PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes={nodes} DefaultTime=5 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes={nodes} DefaultTime=5 MaxTime=5 PriorityTier=10 PreemptMode=OFF
PartitionName=preemptible Nodes={nodes} DefaultTime=5 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=apart Nodes={apart} DefaultTime=5 PriorityTier=10 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=8000 Gres=gpu:fake:2"
# freezer and memory: every process of a job is found, and one that takes too much memory is really killed.
CGROUP = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainCores=no
ConstrainDevices=no
ConstrainSwapSpace=no
AllowedRAMSpace=100
MinRAMSpace=10
"""


def why_not() -> str:
    """Why no cluster can be had on this machine; empty where one can."""
    missing = [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing and os.environ.get("SFT_INSTALL_SLURM") == "1":
        with Path("/tmp/sft-slurm-install.lock").open("w") as lock:  # of the two workers of pytest, one installs
            fcntl.flock(lock, fcntl.LOCK_EX)
            if any(shutil.which(name, path=SYSTEM_PATH) is None for name in missing):
                _install()
        missing = [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        return f"no {', '.join(missing)}; on Debian, as root: make test SLURM=install"
    return "" if os.geteuid() == 0 else "slurmd of the tests runs as root only, and this is not root"


def cgroups() -> bool:
    """Whether jobs are held in cgroups (v1): only then are signals and memory limits those of a real cluster."""
    probes = [CGROUPS / controller / f"slurm_probe_{os.getpid()}" for controller in ("freezer", "memory")]
    try:
        for probe in probes:
            probe.mkdir()
            probe.rmdir()
    except OSError:
        return False
    return True


class Cluster:
    """A running cluster. `environment` is what a user's shell has on its login node."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        for part in ("log", "state", "munge", "dev", "bin"):
            (folder / part).mkdir(parents=True)
        folder.chmod(0o755)
        ports = _free_ports(2 + NODES)
        *self.nodes, self.apart = (f"n{port}" for port in ports[1:])
        self.in_cgroups = cgroups()
        values = {"name": f"test{ports[0]}", "user": _user(), "folder": folder, "ports": ports}
        values |= {"track": "cgroup", "task": "cgroup"} if self.in_cgroups else {"track": "pgid", "task": "none"}
        values |= {"nodes": ",".join(self.nodes), "apart": self.apart}
        everyone = [*self.nodes, self.apart]
        lines = [NODE.format(name=name, port=port) for name, port in zip(everyone, ports[1:], strict=True)]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**values, node_lines="\n".join(lines)))
        (folder / "cgroup.conf").write_text(CGROUP)
        for gpu in range(2):
            (folder / f"dev/nvidia{gpu}").symlink_to("/dev/null")
        (folder / "gres.conf").write_text(
            f"NodeName={','.join(everyone)} Name=gpu Type=fake Flags=nvidia_gpu_env File={folder}/dev/nvidia[0-1]\n"
        )
        self._write_clients()
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PYTEST_"))
        }
        self.environment |= {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', '')}",
        }

    def _write_clients(self) -> None:
        """Clients that know this cluster by themselves.

        The plugin's jobstep drops SLURM_CONF before it calls srun, where a real node has /etc/slurm/slurm.conf.
        """
        for name in CLIENTS:
            client = self.folder / "bin" / name
            real = shutil.which(name, path=SYSTEM_PATH)
            client.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n')
            client.chmod(0o755)

    def start(self) -> None:
        """Start every daemon and wait until both nodes take jobs; RuntimeError shows the logs otherwise."""
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        munge = self.folder / "munge"
        self._daemon(
            "munged",
            *(
                "munged",
                "--force",
                "--foreground",
                f"--socket={munge}/sock",
                f"--key-file={key}",
                f"--pid-file={munge}/pid",
            ),
            *(f"--log-file={self.folder}/log/munged.log", f"--seed-file={munge}/seed", "--num-threads=2"),
        )
        self._wait("munged", lambda: (munge / "sock").exists())
        self.start_controller()
        for node in (*self.nodes, self.apart):
            self.start_node(node)
        self._wait("idle nodes", lambda: self.idle_nodes() == sorted(self.nodes), 30)

    def start_controller(self) -> None:
        self._daemon("slurmctld", "slurmctld", "-D")
        self._wait("slurmctld", lambda: self.client("scontrol", "ping", check=False).returncode == 0, 30)

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def start_node(self, node: str) -> None:
        (self.folder / f"spool.{node}").mkdir(exist_ok=True)
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """The node dies: its slurmd and everything that runs there, at once."""
        self.daemons.pop(node).kill()
        tasks = [
            int(pid)
            for file in CGROUPS.glob(f"freezer/slurm_{node}/**/cgroup.procs")
            for pid in file.read_text().split()
        ]
        for pid in {*tasks, *self._step_daemons(node)}:
            _kill(pid, signal.SIGKILL)

    def _step_daemons(self, node: str) -> list[int]:
        """slurmstepd processes of a node: they were started with its spool directory open."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if "slurmstepd" not in (process / "cmdline").read_text():
                    continue
                if f"spool.{node}".encode() in (process / "environ").read_bytes() or any(
                    f"spool.{node}" in str(link.readlink()) for link in (process / "fd").iterdir()
                ):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def stop(self) -> None:
        """End every job, then every daemon, by pid, and leave nothing in the cgroup tree."""
        if "slurmctld" in self.daemons:
            self.client("scancel", "--full", f"--user={_user()}", check=False)
            end = time.monotonic() + 15
            while self.queue() and time.monotonic() < end:
                time.sleep(0.2)
        for name in reversed(list(self.daemons)):
            self._end(name)
        for node in (*self.nodes, self.apart):
            for controller in ("freezer", "memory"):
                root = CGROUPS / controller / f"slurm_{node}"
                for group in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
                    if group.is_dir():
                        _remove_group(group)
                _remove_group(root)

    # What tests ask and do

    def client(self, *command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess:
        """Run a command as a user of this cluster."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def idle_nodes(self) -> list[str]:
        done = self.client("sinfo", "-h", "-N", "-p", "cpu", "-t", "idle", "-o", "%N", check=False)
        return sorted(done.stdout.split())

    def queue(self, fields: str = "%i|%T|%k|%N|%r", states: str = "") -> list[list[str]]:
        """Jobs that have not ended (or those in `states`), each as the list of its fields."""
        extra = [f"--states={states}"] if states else []
        done = self.client("squeue", "-h", "-o", fields, *extra, check=False)
        return [line.split("|") for line in done.stdout.splitlines()]

    def state(self, job: str) -> str:
        """The state of one job, also after it has ended."""
        done = self.client("squeue", "-h", "-j", job, "--states=all", "-o", "%T", check=False)
        return done.stdout.strip()

    def submit(self, script: str, *options: str, folder: Path) -> str:
        """Submit a shell script; the job's number. Its output goes to `folder`/<number>.out."""
        arguments = ("--parsable", f"--chdir={folder}", f"--output={folder}/%j.out", "--open-mode=append")
        return self.client("sbatch", *arguments, *options, f"--wrap={script}").stdout.strip()

    def wait_for(self, job: str, *states: str, seconds: float = 90) -> str:
        """Wait until a job is in one of `states`; its state."""
        self._wait(f"job {job} to be {' or '.join(states)}", lambda: self.state(job) in states, seconds)
        return self.state(job)

    # Daemons

    def _daemon(self, name: str, *command: str) -> None:
        program = shutil.which(command[0], path=SYSTEM_PATH)
        with (self.folder / "log" / f"{name}.out").open("a") as log:
            self.daemons[name] = subprocess.Popen(
                [program, *command[1:]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _end(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _wait(self, what: str, condition: Callable[[], bool], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not condition():
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "".join(f"\n== {log.name}\n{log.read_text()[-2000:]}" for log in self.folder.glob("log/*"))
                raise RuntimeError(f"waited in vain for {what}; ended: {dead}; {self.queue()}{logs}")
            time.sleep(0.1)


@contextmanager
def running_cluster() -> Iterator[tuple[Cluster, Path]]:
    """A cluster that is up, and a new folder for whoever uses it; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sft-slurm-"))
    cluster = Cluster(folder / "cluster")
    try:
        cluster.start()
        yield cluster, folder
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed pytest leaves no daemon behind


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _remove_group(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:  # gone already, or its last process is about to be
        return


def _install() -> None:
    """Debian's packages, with no service started."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in ("update -qq", f"install -y -qq --no-install-recommends {' '.join(PACKAGES)}"):
            subprocess.run(["apt-get", *command.split()], env=environment, capture_output=True, check=False)
    finally:
        if ours:
            policy.unlink()

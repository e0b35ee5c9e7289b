"""Refuses every connection but to this machine, in all Python processes that inherit the environment made here."""

from pathlib import Path

LOG = "refused-connections.txt"

# Python imports `sitecustomize` from PYTHONPATH when it starts. Both ways out of a library are closed: names are not
# resolved and addresses are not connected to. Who tried is written down, since libraries swallow such errors.
GUARD = """\
import ipaddress, socket, sys

resolve, connect, connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

def refuse(place):
    with open({log!r}, "a") as log:
        print(sys.argv, place, file=log)
    raise OSError(f"the test refuses a connection to {{place}}")

def is_here(host):
    try:
        return host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == socket.gethostname()

def guarded_resolve(host, *arguments, **options):
    host = host.decode() if isinstance(host, bytes) else host
    return resolve(host, *arguments, **options) if is_here(host) else refuse(host)

def guarded(call):
    def connect(self, address):
        here = self.family not in (socket.AF_INET, socket.AF_INET6) or is_here(address[0])
        return call(self, address) if here else refuse(address)
    return connect

socket.getaddrinfo = guarded_resolve
socket.socket.connect, socket.socket.connect_ex = guarded(connect), guarded(connect_ex)
"""


def refuse_network(folder: Path) -> dict[str, str]:
    """Environment variables under which no Python process reaches another machine; attempts go to `folder`/LOG."""
    guard = folder / "no-network"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD.format(log=str(folder / LOG)))
    return {"PYTHONPATH": str(guard)}

"""The whole graph runs without a network, and nothing in it even tries to reach one."""

import os
import subprocess
import sys

import pytest
from no_network import LOG, refuse_network

ATTEMPTS = {
    "by name": "import urllib.request as r; r.urlopen('http://example.invalid')",
    "by address": "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "without an error": "import socket; socket.socket().connect_ex(('192.0.2.1', 80))",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_guard_refuses_and_writes_down(tmp_path, attempt):
    environment = os.environ | refuse_network(tmp_path)
    done = subprocess.run([sys.executable, "-c", ATTEMPTS[attempt]], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "the test refuses a connection" in done.stderr
    assert (tmp_path / LOG).exists()


def test_the_guard_lets_this_machine_through(tmp_path):
    program = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
"""
    environment = os.environ | refuse_network(tmp_path)
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
    assert not (tmp_path / LOG).exists()


@pytest.mark.slow
def test_nothing_in_the_graph_reaches_for_the_network(finished):
    log = finished.path.parent / LOG
    assert (finished.path / "results").is_dir()
    assert not log.exists(), log.read_text()

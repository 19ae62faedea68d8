"""The processes of nodes, seen from the host: each node is a PID namespace below it."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    host: int  # PID on this machine
    node: int  # PID as its node sees it: hostPID of the API
    pid: int  # PID in its container
    command: str
    name: str

    def states(self):
        """The state letter of each of its threads."""
        letters = []
        for task in (PROC / str(self.host) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                letters.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        return letters

    def threads(self):
        """The name of each of its threads."""
        names = []
        # The process, too, may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in (PROC / str(self.host) / "task").iterdir():
                names.append((task / "comm").read_text().strip())
        return names

    def is_stopped(self):
        return any(state in "Tt" for state in self.states())

    def ticks(self):
        fields = (PROC / str(self.host) / "stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def signal(self, number):
        os.kill(self.host, number)


def processes(cgroup_part):
    """Of the container or Pod whose ID is in their cgroup's path; the oldest first."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if cgroup_part not in (entry / "cgroup").read_text():
                continue
            pids = re.search(r"^NSpid:\t(.*)$", (entry / "status").read_text(), re.M)[1].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            name = (entry / "comm").read_text().strip()
            # Host, node, container. With hostPID the last two are one.
            if len(pids) >= 2:
                found.append(Process(int(pids[0]), int(pids[1]), int(pids[-1]), command, name))
    return sorted(found, key=lambda p: p.host)

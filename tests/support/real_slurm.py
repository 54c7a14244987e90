#!/usr/bin/env python3
"""A real Slurm on one machine, for tests: Debian's munged, slurmctld and slurmd, everything in one folder.

    python tests/support/real_slurm.py start FOLDER    prints the PATH that reaches its commands
    python tests/support/real_slurm.py stop FOLDER
    python tests/support/real_slurm.py kill-slurmd FOLDER
    python tests/support/real_slurm.py start-slurmd FOLDER

It needs Linux and ``apt install slurm-wlm munge``, and neither reads nor writes /etc/slurm and /etc/munge: a Slurm that
the machine has already is left alone. Keep FOLDER short: the name of a socket in it has at most 107 letters.

Partitions: `cpu` and `gpu` hold this machine, with a GPU that exists in name only; `bare` holds a machine that does not
exist and has no GPU. There is no accounting database.
"""

from __future__ import annotations

import argparse
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from processes import kill, processes_of

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr")
OWN = "# Written by tests/support/real_slurm.py"
# Daemons lie where a user's PATH does not look.
SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# More cores and memory than a small machine has, so that all jobs of a test can run beside each other.
NODE = "CPUs=8 RealMemory=64000"
CONFIGURATION = """\
{own}
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 {node} Gres=gpu:1
NodeName=bare NodeAddr=127.0.0.1 Port={bare_port} {node}
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
PartitionName=bare Nodes=bare MaxTime=INFINITE State=UP
"""


class SlurmError(RuntimeError):
    """Slurm cannot be started; the message says what to do."""


def missing_programs() -> list[str]:
    """Those of Slurm's programs that this machine lacks."""
    return [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name, path=SEARCHED) is None]


@dataclass(frozen=True)
class Slurm:
    """The Slurm whose state, spool, logs and configuration lie in a folder."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def path(self) -> str:
        """A PATH whose first folder holds commands that talk to this Slurm, and to no other."""
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def start(self) -> None:
        """Start it, and wait until a job could run.

        Raises:
            SlurmError: programs are missing, the folder holds other things, or a daemon does not come up.
        """
        if missing := missing_programs():
            raise SlurmError(f"not installed: {', '.join(missing)}. Try: apt install slurm-wlm munge")
        self._take_folder()
        self._write()
        self._daemon("munged", "--force", f"--socket={self.folder}/munge.socket", *self._munge_files())
        self._daemon("slurmctld", "-f", str(self.configuration))
        self.start_slurmd()

    def stop(self) -> None:
        """End its daemons, and its jobs with all that they started. The folder stays: its logs may say something."""
        # Commands hand $SLURM_CONF on to what Slurm starts for jobs.
        while found := processes_of(f"SLURM_CONF={self.configuration}\0"):
            for pid in found:
                _end(pid)

    def kill_slurmd(self) -> None:
        """End the daemon of the machine, as by a crash. Jobs go on."""
        if pid := self._pid("slurmd"):
            _end(pid)

    def start_slurmd(self) -> None:
        self._daemon("slurmd", "-f", str(self.configuration))
        self._wait(lambda: self.run("sinfo", "-h", "-p", "cpu", "-o", "%t") in ("idle", "mix", "alloc"), "slurmd")

    def run(self, *command: str) -> str:
        """What one of its commands says."""
        program = [str(self.folder / "bin" / command[0]), *command[1:]]
        return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False).stdout.strip()

    def _take_folder(self) -> None:
        """Refuse a folder that holds anything but an earlier Slurm of this script, or one that runs."""
        there = self.folder.exists() and any(self.folder.iterdir())
        if there and not (self.configuration.exists() and self.configuration.read_text().startswith(OWN)):
            raise SlurmError(f"{self.folder} holds other things: name a folder that is empty or does not exist")
        if running := [name for name in DAEMONS if self._pid(name)]:
            raise SlurmError(f"{', '.join(running)} of {self.folder} run already: stop them first")
        if there:
            shutil.rmtree(self.folder)
        for name in ("bin", "state", "spool"):
            (self.folder / name).mkdir(parents=True)

    def _write(self) -> None:
        with ExitStack() as stack:  # held together, so that they differ
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for found in sockets:
                found.bind(("127.0.0.1", 0))
            controller, node, bare = (found.getsockname()[1] for found in sockets)
        ports = {"controller_port": controller, "node_port": node, "bare_port": bare}
        named = {"own": OWN, "host": _host(), "user": _user(), "folder": self.folder, "node": NODE}
        self.configuration.write_text(CONFIGURATION.format(**named, **ports))
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        for name in COMMANDS:
            # The plugin drops $SLURM_CONF inside a job, so each command brings it along.
            target = self.folder / "bin" / name
            real = shutil.which(name, path=SEARCHED)
            target.write_text(f"#!/bin/sh\nSLURM_CONF='{self.configuration}' exec '{real}' \"$@\"\n")
            target.chmod(0o755)

    def _munge_files(self) -> list[str]:
        files = {"key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
        return [f"--{option}={self.folder / name}" for option, name in files.items()]

    def _daemon(self, name: str, *arguments: str) -> None:
        """Start one of the daemons; it goes into the background by itself."""
        command = [shutil.which(name, path=SEARCHED), *arguments]
        with (self.folder / f"{name}.start").open("w") as said:
            environment = os.environ | {"SLURM_CONF": str(self.configuration)}
            done = subprocess.run(command, stdout=said, stderr=said, env=environment, timeout=60, check=False)
        if done.returncode:
            raise SlurmError(f"{name} ended with {done.returncode}:\n{self._words(name)}")
        self._wait(lambda: self._pid(name) is not None, name)

    def _wait(self, condition: Callable[[], bool], name: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SlurmError(f"{name} does not come up:\n{self._words(name)}")
            time.sleep(0.2)

    def _words(self, name: str) -> str:
        files = [self.folder / f"{name}.start", self.folder / f"{name}.log"]
        return "".join(file.read_text(errors="replace")[-2000:] for file in files if file.exists())

    def _pid(self, name: str) -> int | None:
        """The process of a daemon, where it runs: a number that another program has by now is none."""
        with suppress(OSError, ValueError):
            pid = int((self.folder / f"{name}.pid").read_text())
            if str(self.folder) in command_of(pid):
                return pid
        return None


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _user() -> str:
    """Who runs this; $USER may name another one."""
    return pwd.getpwuid(os.getuid()).pw_name


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _end(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    kill([pid])
    while command_of(pid):  # a process that nobody has waited for yet has no command any more
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("start", "stop", "kill-slurmd", "start-slurmd"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    slurm = Slurm(given.folder.resolve())
    getattr(slurm, given.action.replace("-", "_"))()
    if given.action == "start":
        print(f"PATH={slurm.path}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SlurmError as error:
        sys.exit(str(error))

r"""A real Slurm of two nodes on this machine, in a private folder, gone without a trace at the end.

    with Cluster(tmp_path / "slurm") as slurm:
        job = slurm.sbatch("#!/bin/bash\nsrun hostname\n", "--nodes=2")
        slurm.wait(job, "COMPLETED")
        print(slurm.log(job))

Both slurmd run here, as nodes n1 and n2 of one CPU each, if nobody says otherwise. All daemons
listen on 127.0.0.1 only; the key of munge, the state, the logs and the database of sacct lie in the
folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

from daemons import Daemon, free_ports, has_port, kill_all, processes_with, wait_until
from slurm_conf import NODES, Ports, render_slurm_conf, render_slurmdbd_conf

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd")
PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
# Final in squeue(1), JOB STATE CODES.
ENDED = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"),
    *("PREEMPTED", "BOOT_FAIL", "DEADLINE"),
)


def available() -> str | None:
    """Return why no cluster can be started on this machine, None where it can."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
    if missing:
        return f"{', '.join(missing)} not found; sudo tests/slurm/install.sh installs them"
    if os.geteuid() != 0:
        return "only root may start slurmd"
    return None


class Cluster:
    """Starts on entering, stops on leaving; also usable by `start` and `stop`.

    `cpus` and `memory_mb` are what each node claims to have, whatever this machine has; a job that
    asks for no memory gets half of it. `grace_s`: warning
    of a preempted job. `requeue_delay_s`: how long a requeued job waits at least (Slurm takes 5 or
    more; sites leave it at 120), and also within what time a step must start, lest its "Job
    credential expired". `kill_wait_s`: from SIGTERM to SIGKILL. Without `accounting`, sacct says
    that it is disabled.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cpus: int = 1,
        memory_mb: int = 2000,
        grace_s: int = 5,
        requeue_delay_s: int = 8,
        kill_wait_s: int = 5,
        accounting: bool = True,
    ) -> None:
        self.folder = folder
        self.jobs_dir = folder / "jobs"  # where sbatch runs: the logs are here
        ctld, dbd, database, first, second = free_ports(5)
        self.ports = Ports(ctld, dbd, database, (first, second))
        self._accounting = accounting
        self._conf = render_slurm_conf(
            folder,
            self.ports,
            cpus=cpus,
            memory_mb=memory_mb,
            grace_s=grace_s,
            requeue_delay_s=requeue_delay_s,
            kill_wait_s=kill_wait_s,
            accounting=accounting,
        )
        self._daemons: dict[str, Daemon] = {}
        outer = {name: text for name, text in os.environ.items() if not name.startswith("SLURM")}
        self.env = {**outer, "PATH": PATH, "SLURM_CONF": f"{folder}/slurm.conf"}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return once both nodes are idle; in about three seconds."""
        try:
            self._write_files()
            self._start_munged()
            if self._accounting:
                self._start_accounting()
            self.start_slurmctld()
            for node in NODES:
                self.start_slurmd(node)
            self.wait_for_idle()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Leave no process behind: no daemon, no step, nothing that a job has started."""
        for daemon in self._daemons.values():
            daemon.kill()
        kill_all(lambda: self.processes)

    def wait_for_idle(self) -> None:
        """Return once both nodes wait for jobs."""
        idle = {"idle"}
        wait_until(lambda: self._node_states() == idle, "both nodes are idle", timeout_s=60)

    @property
    def processes(self) -> list[int]:
        """The pids of all daemons that still run, and of all that jobs have left."""
        mine = processes_with(f"SLURM_CONF={self.env['SLURM_CONF']}")
        return sorted({*mine, *(each.pid for each in self._daemons.values() if each.runs)})

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm's, or any other, against this cluster; within a minute."""
        return subprocess.run(
            command,
            env=self.env,
            cwd=self.jobs_dir,
            check=check,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def sbatch(self, script: str | Path, *options: str) -> str:
        """Submit the text of a script, or a script file; returns the job's id."""
        if isinstance(script, str):
            path = self.jobs_dir / f"{secrets.token_hex(4)}.sh"
            path.write_text(script)
            script = path
        done = self.run("sbatch", "--parsable", *options, str(script), check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def show(self, job: str) -> dict[str, str]:
        """Return `scontrol show job` of a job or array task (7_0), of an array its first record."""
        first, *_ = self.run("scontrol", "show", "job", "--oneliner", job).stdout.splitlines()
        return dict(word.split("=", 1) for word in first.split() if "=" in word)

    def log(self, job: str) -> str:
        """Return what a job has printed so far."""
        path = Path(self.show(job)["StdOut"])
        return path.read_text() if path.exists() else ""

    def wait(self, job: str, *states: str, timeout_s: float = 60) -> dict[str, str]:
        """Wait until a job is in one of `states`; returns its record then.

        Fails at once when it ends in another state, and prints its log. RUNNING says that the
        script has begun, not that a step has: `wait_for_log`.
        """
        deadline = time.monotonic() + timeout_s
        while (record := self.show(job))["JobState"] not in states:
            self._give_up(record, f"not {' or '.join(states)}", deadline)
            time.sleep(0.2)
        return record

    def wait_for_log(self, job: str, text: str, *, timeout_s: float = 60) -> None:
        """Wait until a job has printed `text`; fails at once when it ends without."""
        deadline = time.monotonic() + timeout_s
        while True:
            record = self.show(job)  # before the log: what it prints at its end counts
            if text in self.log(job):
                return
            self._give_up(record, f"and has not printed {text!r}", deadline)
            time.sleep(0.2)

    def end_soon(self, job: str, *, seconds: int = 45) -> None:
        """Move the time limit of a running job to `seconds` from now; Slurm's own are of minutes.

        The controller looks every 30 s. With --signal=USR1@30 its next look sends USR1, provided
        that it comes before the end: so `seconds` must be more than 30.
        """
        assert seconds > 30, "the limit could pass before the controller looks"
        self.run("scontrol", "update", f"JobId={job}", f"EndTime=now+{seconds}")

    def kill_slurmd(self, node: str, *, with_jobs: bool = False) -> None:
        """Kill the daemon of a node; its jobs live on unless `with_jobs`, as if power was cut."""
        self._daemons[node].kill()
        if with_jobs:
            kill_all(lambda: processes_with(f"SLURMD_NODENAME={node}", among=self.processes))

    def start_slurmd(self, node: str, *, without: Path | None = None) -> None:
        """Start the daemon of a node, also after it was killed.

        It and its jobs find the folder `without` empty, as on a machine that does not mount it.
        """
        command = ["slurmd", "-D", "-N", node]
        if without is not None:
            hide = 'mount -t tmpfs none "$0" && exec "$@"'
            command = ["unshare", "--mount", "bash", "-c", hide, str(without), *command]
        # The processes that supervise its jobs inherit the name, and `with_jobs` finds them by it.
        self._start(node, *command, SLURMD_NODENAME=node)

    def set_grace(self, seconds: int) -> None:
        """Give jobs of the partition `low` this long a warning before they are preempted."""
        self.run("scontrol", "update", "PartitionName=low", f"GraceTime={seconds}")

    def start_slurmctld(self) -> None:
        """Start the controller, also after it was killed; returns once it answers."""
        self._start("slurmctld", "slurmctld", "-D")
        wait_until(self._answers, "slurmctld answers", timeout_s=30)

    def restart_slurmctld(self) -> None:
        """Kill the controller as a crash would, and start it again; in about seven seconds.

        It forgets what it has not saved yet, jobs included, and saves 5 s after a change at the
        latest (SAVE_MAX_WAIT in its state_save.c): so that it remembers, it gets that time.
        """
        time.sleep(6)
        self.kill_slurmctld()
        self.start_slurmctld()

    def kill_slurmctld(self) -> None:
        """Kill the controller as a crash would: nobody answers until it is started again."""
        self._daemons["slurmctld"].kill()

    def _give_up(self, record: dict[str, str], why: str, deadline: float) -> None:
        state, job = record["JobState"], record["JobId"]
        if state in ENDED or time.monotonic() > deadline:
            raise AssertionError(
                f"job {job} is {state} ({record['Reason']}), {why}\n{self.log(job)}"
            )

    def _write_files(self) -> None:
        for name in ("state", "spool", "log", "jobs", "database"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(self._conf)
        for name, content in (
            ("munge.key", secrets.token_bytes(64)),
            ("slurmdbd.conf", render_slurmdbd_conf(self.folder, self.ports).encode()),
        ):
            (self.folder / name).write_bytes(content)
            (self.folder / name).chmod(0o600)  # munged and slurmdbd refuse what others can read

    def _start_munged(self) -> None:
        names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
        names |= {"seed-file": "munge.seed", "log-file": "log/munged"}
        options = [f"--{option}={self.folder / name}" for option, name in names.items()]
        # --force: a folder that only root can enter is an error to it, and right for tests
        self._start("munged", "munged", "--foreground", "--force", *options)
        wait_until((self.folder / "munge.socket").exists, "munged listens")

    def _start_accounting(self) -> None:
        options = {"datadir": self.folder / "database", "socket": self.folder / "database.socket"}
        options |= {"pid-file": self.folder / "database.pid"}
        # Without grant tables the empty folder needs no installation, which takes 3 s.
        self._start(
            "mariadbd",
            *("mariadbd", "--no-defaults", "--user=root", "--skip-grant-tables"),
            *("--bind-address=127.0.0.1", f"--port={self.ports.database}"),
            *(f"--{option}={path}" for option, path in options.items()),
            *("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"),
        )
        wait_until(lambda: has_port(self.ports.database), "mariadbd listens", timeout_s=30)
        self._start("slurmdbd", "slurmdbd", "-D")
        wait_until(lambda: has_port(self.ports.slurmdbd), "slurmdbd listens", timeout_s=30)

    def _start(self, name: str, *command: str, **variables: str) -> None:
        log = self.folder / "log" / f"{name}.out"
        self._daemons[name] = Daemon(command, {**self.env, **variables}, log)

    def _answers(self) -> bool:
        return self.run("scontrol", "ping", check=False).returncode == 0

    def _node_states(self) -> set[str]:
        return set(self.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split())

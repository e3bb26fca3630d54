"""Starts and stops a standalone Flink cluster with Beam's job server, all processes on 127.0.0.1.

Beam's classes are on the cluster's own class path: a class loader for each job would fill the task managers' metaspace
(https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/debugging/debugging_classloading/).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import requests

from pipeline.flink.jars import NO_JAVA, FlinkError

HOST = "127.0.0.1"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0
HEAP_MIB = {"job-manager": 384, "task-manager": 512, "job-server": 512}
"""Largest Java heap by kind of process, in MiB. The Python workers, which do the work, have their memory besides."""

MANAGED_MIB = 1024
"""What a task manager sorts in, in MiB outside the Java heap, used as needed.

Each of a job's dozens of sorts gets a part, which has to hold its largest record: of 128 MiB, the parts are too small
for StatisticsGen's batches of images ("Record too large").
"""

MAIN_CLASSES = {
    "job-manager": "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
    "task-manager": "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
    "job-server": "org.apache.beam.runners.flink.FlinkJobServerDriver",
}

PROC = Path("/proc")
_KERNEL_THREAD = 0x0020_0000  # PF_KTHREAD of a process's flags: it never has a command line
_STATE_FILE = "cluster.json"
_DIRECT_MIB = 320
_METASPACE_MIB = 256

# Flink's own start script opens these to itself: its serializers look inside of the JDK's classes.
_OPENED = "lang lang.reflect io net nio text time util util.concurrent util.concurrent.atomic util.concurrent.locks"
_JAVA_FLAGS = [
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED.split()),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "-XX:+UseSerialGC",  # small heaps, few cores
]

_LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""


@dataclass(frozen=True)
class Ports:
    """Where the cluster listens on 127.0.0.1: Flink's REST interface and page, its RPC, Beam's jobs and artifacts."""

    rest: int = 8081
    rpc: int = 6123
    job: int = 8099
    artifact: int = 8098

    @classmethod
    def free(cls) -> Ports:
        """Ports that nothing listens on."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(4)]
            return cls(*(found.getsockname()[1] for found in sockets))


@dataclass
class Cluster:
    """A cluster that was started, perhaps by another process.

    Attributes:
        folder: Its configuration, logs and scratch files.
        jars: Folder of the jars that it runs.
        ports: Where it listens.
        slots: Parallel tasks of each task manager.
        pids: Process by name: `job-manager`, `task-manager-1` and so on, `job-server`.
    """

    folder: Path
    jars: Path
    ports: Ports = field(default_factory=Ports)
    slots: int = 2
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def job_endpoint(self) -> str:
        """`host:port` that Beam's portable runner submits to."""
        return f"{HOST}:{self.ports.job}"

    @property
    def task_managers(self) -> list[str]:
        """Names of the task managers that run."""
        return [name for name, pid in self.pids.items() if name.startswith("task-manager") and self._is_ours(pid)]

    def start(self, task_managers: int = 2) -> None:
        """Starts all processes and returns when the cluster takes jobs.

        Raises:
            FlinkError: There is no Java, a port is taken, or a process ended or was not ready in time; nothing is left
                running.
        """
        _check_free(self.ports)
        if shutil.which("java") is None:
            raise FlinkError(NO_JAVA)
        self._write_configuration()
        try:
            self._spawn("job-manager", "job-manager", "--configDir", str(self.folder / "conf"))
            self._spawn("job-server", "job-server", *self._job_server_flags())
            for _ in range(task_managers):
                self.add_task_manager()
            self._wait("task managers", lambda: self.overview()["taskmanagers"] == task_managers)
            self._wait("job server", lambda: not _is_free(self.ports.job))
        except BaseException:
            self.stop()
            raise

    def add_task_manager(self) -> str:
        """Starts one more task manager, without waiting for it; returns its name."""
        number = sum(name.startswith("task-manager") for name in self.pids) + 1
        name = f"task-manager-{number}"
        self._spawn("task-manager", name, "--configDir", str(self.folder / "conf"))
        return name

    def kill(self, name: str) -> None:
        """Ends a process as a crash would, with SIGKILL."""
        if self._is_ours(self.pids[name]):
            os.kill(self.pids[name], signal.SIGKILL)

    def stop(self) -> None:
        """Stops all processes, the Python workers with their task managers. What has ended already is no error."""
        pids = [pid for pid in self.pids.values() if self._is_ours(pid)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # ended in between
                    os.kill(pid, number)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while pids and time.monotonic() < deadline:
                time.sleep(0.1)
                pids = [pid for pid in pids if self._is_ours(pid)]
        self.pids.clear()
        (self.folder / _STATE_FILE).unlink(missing_ok=True)

    def overview(self) -> dict[str, Any]:
        """What Flink says of itself: `taskmanagers`, `slots-total`, `jobs-running`, `flink-version` and others."""
        return self.get("overview")

    def get(self, path: str) -> Any:
        """The JSON at a path of Flink's REST interface.

        Raises:
            requests.RequestException: The job manager does not answer, or refuses.
        """
        with requests.Session() as session:
            session.trust_env = False  # a proxy in the environment is not for this machine
            response = session.get(f"http://{HOST}:{self.ports.rest}/{path}", timeout=10)
        response.raise_for_status()
        return response.json()

    def _is_ours(self, pid: int) -> bool:
        """Whether a process is one of this cluster's and runs: its number may be another's by now."""
        process = PROC / str(pid)
        try:
            while not (command := (process / "cmdline").read_bytes()):
                state, *numbers = (
                    (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                )
                if int(numbers[5]) & _KERNEL_THREAD:
                    return False
                if state in "ZX":  # ended; nobody asked how
                    with contextlib.suppress(ChildProcessError):  # started by another process
                        os.waitpid(pid, 0)
                    return False
                time.sleep(0.01)  # it is ending, or Linux is about to start its program
        except (FileNotFoundError, ProcessLookupError):
            return False
        return str(self.folder).encode() in command

    def _spawn(self, kind: str, name: str, *arguments: str) -> None:
        log = self.folder / "logs" / f"{name}.log"
        command = [
            *("java", *_JAVA_FLAGS, f"-Xmx{HEAP_MIB[kind]}m", f"-XX:MaxMetaspaceSize={_METASPACE_MIB}m"),
            f"-XX:MaxDirectMemorySize={_DIRECT_MIB}m",
            f"-Dlog4j.configurationFile={self.folder / 'conf' / 'log4j.properties'}",
            *("-cp", f"{self.jars}/*", MAIN_CLASSES[kind], *arguments),
        ]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.pids[name] = process.pid
        self._write_state()

    def _job_server_flags(self) -> list[str]:
        return [
            f"--flink-master={HOST}:{self.ports.rest}",
            f"--flink-conf-dir={self.folder / 'conf'}",
            f"--job-host={HOST}",
            f"--job-port={self.ports.job}",
            f"--artifact-port={self.ports.artifact}",
            "--expansion-port=0",
            f"--artifacts-dir={self.folder / 'artifacts'}",
        ]

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for name, pid in self.pids.items():
                if not self._is_ours(pid):
                    log = self.folder / "logs" / f"{name}.log"
                    last = "\n".join(log.read_text(errors="replace", encoding="utf-8").strip().splitlines()[-8:])
                    raise FlinkError(f"The {name} ended while the cluster started. The end of {log}:\n{last}")
            with contextlib.suppress(requests.RequestException):  # not up yet
                if ready():
                    return
            time.sleep(0.3)
        raise FlinkError(f"The {what} were not ready after {START_TIMEOUT_S:.0f} s; see {self.folder / 'logs'}.")

    def _write_configuration(self) -> None:
        for name in ("conf", "logs", "tmp", "artifacts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        settings = configuration(self.ports, self.slots, self.folder / "tmp")
        text = "".join(f"{key}: {value}\n" for key, value in settings.items())
        (self.folder / "conf" / "config.yaml").write_text(text, encoding="utf-8")
        (self.folder / "conf" / "log4j.properties").write_text(_LOG4J, encoding="utf-8")

    def _write_state(self) -> None:
        state = {"jars": str(self.jars), "ports": asdict(self.ports), "slots": self.slots, "pids": self.pids}
        (self.folder / _STATE_FILE).write_text(json.dumps(state, indent=1), encoding="utf-8")

    @classmethod
    def find(cls, folder: Path) -> Cluster | None:
        """The cluster that was started in a folder and not stopped, None where there is none."""
        file = folder / _STATE_FILE
        if not file.exists():
            return None
        state = json.loads(file.read_text(encoding="utf-8"))
        return cls(folder, Path(state["jars"]), Ports(**state["ports"]), state["slots"], state["pids"])


@contextlib.contextmanager
def running_cluster(folder: Path, jars: Path, task_managers: int = 2, slots: int = 2) -> Iterator[Cluster]:
    """A cluster on free ports until the end of the context.

    Raises:
        FlinkError: It does not start.
    """
    cluster = Cluster(folder, jars, Ports.free(), slots)
    cluster.start(task_managers)
    try:
        yield cluster
    finally:
        cluster.stop()


def configuration(ports: Ports, slots: int, scratch: Path) -> dict[str, Any]:
    """Flink's settings (https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/deployment/config/)."""
    return {
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": ports.rpc,
        "jobmanager.bind-host": HOST,
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": ports.rest,
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "taskmanager.numberOfTaskSlots": slots,
        "io.tmp.dirs": scratch,
        # Flink's start script computes these from a total; without it, all of them have to be said.
        "taskmanager.cpu.cores": "1.0",
        "taskmanager.memory.framework.heap.size": "128m",
        "taskmanager.memory.task.heap.size": f"{HEAP_MIB['task-manager'] - 128}m",
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.task.off-heap.size": "0m",
        "taskmanager.memory.network.min": "128m",
        "taskmanager.memory.network.max": "128m",
        "taskmanager.memory.managed.size": f"{MANAGED_MIB}m",
        "taskmanager.memory.jvm-metaspace.size": f"{_METASPACE_MIB}m",
        "taskmanager.memory.jvm-overhead.min": "64m",
        "taskmanager.memory.jvm-overhead.max": "64m",
        # A shuffle's default, 512 buffers of 32 KiB each, times a pipeline's dozens of shuffles, is more than there is.
        "taskmanager.network.sort-shuffle.min-buffers": 16,
        "cluster.evenly-spread-out-slots": "true",
        "classloader.resolve-order": "parent-first",
        # A task manager that is lost costs a retry. Its silence is noticed after the timeout.
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 3,
        "restart-strategy.fixed-delay.delay": "2 s",
        "heartbeat.interval": "2000",
        "heartbeat.timeout": "20000",
    }


def _check_free(ports: Ports) -> None:
    taken = [f"{port} ({name})" for name, port in asdict(ports).items() if not _is_free(port)]
    if taken:
        raise FlinkError(
            f"Something listens on 127.0.0.1 at port {', '.join(taken)}: another cluster? `make flink-stop` stops the "
            "one that `make flink` started."
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0

"""A real SLURM of one node for the tests: controller, node, accounting, and devices that stand for two A100s."""

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# A job step looks for its configuration here and nowhere else.
CONFIGURATION = Path("/etc/slurm/slurm.conf")
CLUSTER = "prt-tests"
FIRST_LINE = f"ClusterName={CLUSTER}"
PROGRAMS = ["munged", "slurmctld", "slurmd", "slurmdbd", "sbatch", "sacctmgr", "mariadbd", "mariadb-install-db"]
ACCOUNT, NODE = "lab", "node1"


def free_ports(count: int) -> list[int]:
    """TCP ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Return once ``condition()`` holds; raise RuntimeError after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


class Cluster:
    """One node with partitions cpu and gpu and account lab; ``start`` it and ``stop`` it.

    Every daemon runs in the foreground as a child of this process, with its log and its state in ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        self.address = socket.gethostbyname(socket.gethostname())
        self.ports = dict(zip(("controller", "accounting", "database", "node"), free_ports(4), strict=True))
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"

    def start(self) -> None:
        """Bring it up. RuntimeError says in one sentence why a machine cannot have it."""
        if os.getuid() != 0:
            raise RuntimeError("the tests of SLURM start its daemons: run them as root, as in a container.")
        missing = [program for program in PROGRAMS if not shutil.which(program, path=self.path)]
        if missing:
            raise RuntimeError(f"the tests of SLURM lack {', '.join(missing)}: run 'make slurm-packages' first.")
        self._take_configuration()
        self._write()
        munge, database = self.folder / "munge", self.folder / "database"
        self._spawn(
            "munged",
            *("--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key"),
            *(f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        )
        self.run(
            *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={database}", "--skip-test-db"),
            "--auth-root-authentication-method=normal",
        )
        self._spawn(
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={database}", f"--socket={database}/socket"),
            *("--bind-address=127.0.0.1", f"--port={self.ports['database']}", f"--pid-file={database}/pid"),
            *(
                f"--init-file={self.folder}/users.sql",
                "--innodb-buffer-pool-size=64M",
                "--innodb-lock-wait-timeout=900",
            ),
            "--innodb-flush-log-at-trx-commit=0",
        )
        wait_for((database / "socket").exists, "the accounting's database answers")
        self.start_accounting()
        for what in (
            ["cluster", CLUSTER],
            ["account", ACCOUNT, f"Cluster={CLUSTER}"],
            ["user", "root", f"Account={ACCOUNT}"],
        ):
            self.run("sacctmgr", "--immediate", "add", *what)
        self.start_controller()
        self._spawn("slurmd", "-D", "-N", NODE, "-f", str(self.folder / "slurm.conf"))
        wait_for(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%t"), "the node is idle")

    def start_controller(self) -> None:
        """Start slurmctld; jobs that it knew before go on."""
        self._spawn("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        wait_for(lambda: self.succeeds("scontrol", "ping"), "slurmctld answers")

    def stop_controller(self) -> None:
        """End slurmctld alone; jobs run on."""
        self._end("slurmctld")

    def start_accounting(self) -> None:
        """Start slurmdbd; the controller tells it what it missed."""
        self._spawn("slurmdbd", "-D")
        wait_for(lambda: self.succeeds("sacctmgr", "-n", "list", "cluster"), "slurmdbd answers")

    def stop_accounting(self) -> None:
        """End slurmdbd alone; sacct fails."""
        self._end("slurmdbd")

    def stop(self) -> None:
        """Cancel all jobs, end all daemons, and give the configuration's path back."""
        try:
            if "slurmctld" in self.running:
                self.run("scancel", "--user=root")
                wait_for(lambda: not self.run("squeue", "--noheader"), "all jobs are gone")
        finally:
            for name in reversed(list(self.running)):
                self._end(name)
            if CONFIGURATION.is_symlink() and CONFIGURATION.readlink() == self.folder / "slurm.conf":
                CONFIGURATION.unlink()

    def run(self, *command: str) -> str:
        """What a command of SLURM prints; RuntimeError where it fails."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def answer(self, *command: str) -> str:
        """What a command of SLURM prints; nothing where it fails."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        return done.stdout.strip() if done.returncode == 0 else ""

    def succeeds(self, *command: str) -> bool:
        """Whether a command of SLURM does what it should, now."""
        return subprocess.run(command, capture_output=True, env=self.environment).returncode == 0

    @property
    def environment(self) -> dict[str, str]:
        """For processes that talk to this cluster."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
        return clean | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": self.path}

    def _take_configuration(self) -> None:
        """Point the system's path of the configuration here, unless the machine has a SLURM of its own."""
        if CONFIGURATION.is_symlink():
            of_tests = not CONFIGURATION.exists() or CONFIGURATION.read_text().startswith(FIRST_LINE)
            if of_tests and not self._answers():
                CONFIGURATION.unlink()  # of tests that were killed
        if CONFIGURATION.exists():
            raise RuntimeError(
                f"{CONFIGURATION} belongs to a SLURM of this machine: run the tests of SLURM where there is none."
            )
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.symlink_to(self.folder / "slurm.conf")

    def _answers(self) -> bool:
        """Whether there is a controller behind the system's own configuration."""
        environment = self.environment | {"SLURM_CONF": str(CONFIGURATION)}
        return subprocess.run(["scontrol", "ping"], capture_output=True, env=environment).returncode == 0

    def _spawn(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self.running[program] = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def _end(self, program: str) -> None:
        process = self.running.pop(program)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _write(self) -> None:
        """Keys, devices and configuration files."""
        for name in ("munge", "database", "controller", "node"):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        self.folder.chmod(0o755)
        self._secret("munge/key", os.urandom(128))
        # SLURM tells a job which GPU it has (CUDA_VISIBLE_DEVICES) only where the GPU is a character device.
        for number in range(2):
            device = self.folder / f"nvidia{number}"
            try:
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(195, number))
            except PermissionError:
                raise RuntimeError(
                    "the tests of SLURM make character devices that stand for GPUs: run them where mknod is allowed."
                ) from None
        socket_, port = self.folder / "munge" / "socket", self.ports
        user = "'slurm'@'127.0.0.1'"
        (self.folder / "users.sql").write_text(
            f"CREATE DATABASE accounting;\nCREATE USER {user} IDENTIFIED BY 'slurm';\n"
            f"GRANT ALL ON accounting.* TO {user};\n"
        )
        (self.folder / "gres.conf").write_text(f"NodeName={NODE} Name=gpu Type=a100 File={self.folder}/nvidia[0-1]\n")
        self._secret(
            "slurmdbd.conf",
            f"""\
AuthType=auth/munge
AuthInfo=socket={socket_}
DbdHost={self.host}
DbdAddr={self.address}
DbdPort={port["accounting"]}
CommunicationParameters=NoInAddrAny
SlurmUser=root
PidFile={self.folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={port["database"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounting
CommitDelay=1
""".encode(),
        )
        # Few seconds between an event and what SLURM does about it; jobs that ended stay known, as on a real cluster.
        (self.folder / "slurm.conf").write_text(f"""\
{FIRST_LINE}
SlurmctldHost={self.host}({self.address})
SlurmctldPort={port["controller"]}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={socket_},cred_expire=10
StateSaveLocation={self.folder}/controller
SlurmdSpoolDir={self.folder}/node
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={self.address}
AccountingStoragePort={port["accounting"]}
AccountingStoragePass={socket_}
AccountingStorageTRES=gres/gpu,gres/gpu:a100
AccountingStoreFlags=job_comment
AccountingStorageEnforce=associations
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
JobRequeue=1
ReturnToService=2
MinJobAge=300
KillWait=2
MessageTimeout=10
NodeName={NODE} NodeHostname={self.host} NodeAddr={self.address} Port={port["node"]} \
CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=256000 Gres=gpu:a100:2 State=UNKNOWN
PartitionName=cpu Nodes={NODE} MaxTime=1-00:00:00 DefMemPerCPU=1000 State=UP
PartitionName=gpu Nodes={NODE} MaxTime=2-00:00:00 DefMemPerCPU=1000 State=UP
""")

    def _secret(self, name: str, content: bytes) -> None:
        """A file that only its owner may read, as the daemons demand."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)

"""What happens inside the sandbox: a script that ``prt.sandbox.programs`` starts, with stdlib imports alone.

``jail.py SETTINGS < PROGRAM`` takes from the process, step by step, all that a program could do harm with, and then
runs the program in itself:

- new namespaces for users, mounts, processes, network (without even a loopback), System V IPC and host name; no rights
  are needed for this where the kernel allows user namespaces;
- a root of its own, made in memory: the interpreter and the system's libraries, read-only, and an empty ``/sandbox`` of
  16 MiB; nothing else of the machine's files is there, nor ``/proc``, ``/sys`` and ``/dev``;
- no capabilities, and none to be gained;
- no processes and no threads: the namespace that its children would belong to is dead, and the kernel refuses them.
  (RLIMIT_NPROC would be ignored for root.)
- limits on processor time, memory and file size, and an alarm.

The first line of what it writes is ``ready``, or why the sandbox cannot be made. After the program has run to its end,
a second line begins with the secret that the first line of the standard input gave: so an early exit is no success.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

# From the Linux headers sched.h, sys/mount.h, linux/prctl.h and linux/capability.h.
NEW_MOUNT, NEW_HOSTNAME, NEW_IPC, NEW_USER, NEW_PROCESSES, NEW_NETWORK = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE, DETACH = 1, 32, 4096, 16384, 1 << 18, 2
NO_SUID, NO_DEVICES = 2, 4
# A remount may not drop those that are set.
OPTIONS = {"nosuid": NO_SUID, "nodev": NO_DEVICES, "noexec": 8, "noatime": 1024, "nodiratime": 2048}
OPTIONS["relatime"] = 1 << 21
PARENT_DEATH_SIGNAL, NO_NEW_PRIVILEGES = 1, 38
CAPABILITY_VERSION = 0x20080522
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0 unless it fails."""
    encoded = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
    if getattr(libc, name)(*encoded) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """``mount(2)``."""
    call("mount", source, target, kind and kind.encode(), ctypes.c_ulong(flags), data and data.encode())


def isolate() -> None:
    """New namespaces, in which this process is nobody."""
    user, group = os.getuid(), os.getgid()
    call("unshare", NEW_USER | NEW_MOUNT | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_HOSTNAME)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        Path("/proc/self", file).write_text(text)


def new_root(root: str, folders: list[str]) -> None:
    """Make ``root`` the root of all files: ``folders`` of the machine, read-only, and an empty ``/sandbox``."""
    mount("none", "/", None, RECURSIVE | PRIVATE)
    mount("tmpfs", root, "tmpfs", NO_SUID | NO_DEVICES, "size=1m,mode=755")
    for folder in folders:
        here = Path(root, folder.lstrip("/"))
        if os.path.islink(folder):  # /lib, on most systems
            here.symlink_to(os.readlink(folder))
            continue
        here.mkdir(parents=True)
        mount(folder, str(here), None, BIND | RECURSIVE)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, options = line.split()[4:6]
        place = place.encode().decode("unicode_escape")  # a space is written \040
        if place.startswith(root + "/"):
            kept = sum(OPTIONS.get(option, 0) for option in options.split(","))
            mount("none", place, None, REMOUNT | BIND | READ_ONLY | kept)
    work = Path(root, "sandbox")
    work.mkdir()
    mount("tmpfs", str(work), "tmpfs", NO_SUID | NO_DEVICES, "size=16m,mode=700")
    mount("none", root, None, REMOUNT | BIND | READ_ONLY | NO_SUID | NO_DEVICES)
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", DETACH)
    os.chdir("/sandbox")


def no_children() -> None:
    """Make every later fork and thread fail: they would belong to a namespace whose first process has ended."""
    call("unshare", NEW_PROCESSES)
    first = os.fork()
    if first == 0:
        os._exit(0)
    os.waitpid(first, 0)


def drop_capabilities() -> None:
    """Give up every capability, for ever."""
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


def run(program: str, seconds: float) -> str:
    """Run a program to its end; ``passed``, or what it raised."""

    def late(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"not done within {seconds:g} seconds")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        exec(compile(program, "program.py", "exec"), {})
    except BaseException as error:  # SystemExit too: the tests after it have not run
        return f"failed: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "passed"


def main() -> None:
    """See the module's text."""
    settings = json.loads(sys.argv[1])
    secret, _, program = sys.stdin.read().partition("\n")
    out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    try:
        isolate()
        call("prctl", PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # nothing outlives what started it
        if inside := os.fork():
            os._exit(os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1]) & 0xFF)
        os.setsid()  # no group to signal
        call("prctl", PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        new_root(settings["root"], settings["folders"])
        no_children()
        drop_capabilities()
        for limit, most in settings["limits"].items():
            resource.setrlimit(getattr(resource, limit), (most, most))
    except OSError as error:
        os.write(out, str(error.strerror).encode())
        os._exit(1)
    os.write(out, b"ready\n")
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    result = run(program, settings["seconds"])
    os.write(out, f"{secret} {result[:1000]}".encode(errors="replace"))
    os._exit(0)


if __name__ == "__main__":
    main()

"""What happens inside the sandbox: stdlib imports alone, and the C library's own calls.

:func:`main` runs in an interpreter of its own, started by :mod:`prt.sandbox.programs`. It takes from itself, step by
step, what a program could do harm with, and divides in two: one process runs the program, the other its tests (see
:mod:`prt.sandbox.remote`). Both have

- namespaces of their own for users, mounts, processes, network (without even a loopback), System V IPC and host name;
  no rights are needed for this where the kernel allows user namespaces. The program's process sees no other;
- a root of their own, made in memory: the interpreter and the system's libraries, read-only, and an empty ``/sandbox``
  of 16 MiB; nothing else of the machine's files is there, nor ``/proc``, ``/sys`` and ``/dev``;
- no capabilities, and none from a program that has them;
- a filter of system calls (libseccomp): no process, thread or other program can be started, no socket opened, no
  namespace made, and what touches the kernel itself is refused, io_uring, keyrings and BPF among it;
- limits on processor time, memory and file size.

The first line of the standard output is ``ready``, or why the sandbox cannot be made; the rest is the verdict, which
the tests' process writes. The program's process has no descriptor of it.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

from prt.sandbox.remote import Program, serve

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
# From libseccomp's seccomp.h.
ALLOW, REFUSE, UNKNOWN, EQUAL = 0x7FFF0000, 0x00050000, -1, 4
# Everything that starts, reaches another process, opens a way out, or has had many holes in the kernel.
REFUSED = """
fork vfork clone execve execveat unshare setns ptrace process_vm_readv process_vm_writev process_madvise kcmp
pidfd_open pidfd_getfd pidfd_send_signal socket io_uring_setup io_uring_enter io_uring_register
add_key request_key keyctl bpf perf_event_open userfaultfd fanotify_init
mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick pivot_root chroot
name_to_handle_at open_by_handle_at swapon swapoff quotactl quotactl_fd acct syslog personality
init_module finit_module delete_module kexec_load kexec_file_load reboot iopl ioperm modify_ldt uselib
settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname
"""

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


def drop_capabilities() -> None:
    """Give up every capability, for ever."""
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


class Comparison(ctypes.Structure):
    """libseccomp's condition on an argument: its position, the comparison, and what with."""

    _fields_ = (("position", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def filter_calls() -> None:
    """Refuse the system calls in ``REFUSED`` from now on, and to outlive what started this.

    Raises:
        OSError: if there is no libseccomp, or the kernel takes no filter.
    """
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ALLOW))

    def refuse(name: str, number: int, *conditions: Comparison) -> None:
        if (here := library.seccomp_syscall_resolve_name(name.encode())) != UNKNOWN:
            made = (Comparison * len(conditions))(*conditions)
            failed(library.seccomp_rule_add_array(rules, REFUSE | number, here, len(conditions), made))

    def failed(result: int) -> None:
        if result < 0:
            raise OSError(-result, f"libseccomp: {os.strerror(-result)}")

    for name in REFUSED.split():
        refuse(name, errno.EPERM)
    refuse("clone3", errno.ENOSYS)  # the C library then takes clone
    refuse("prctl", errno.EPERM, Comparison(0, EQUAL, PARENT_DEATH_SIGNAL, 0))
    failed(library.seccomp_load(rules))


def confine() -> None:
    """Give up what is left: rights, system calls, and the streams."""
    drop_capabilities()
    filter_calls()


def main() -> None:
    """See the module's text."""
    settings = json.loads(sys.argv[1])
    try:
        out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
        isolate()
        call("prctl", PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # nothing outlives what started it
        if inside := os.fork():
            os.waitpid(inside, 0)
            os._exit(0)
        call("prctl", PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        new_root(settings["root"], settings["folders"])
        for limit, most in settings["limits"].items():
            resource.setrlimit(getattr(resource, limit), (most, most))
        asked, asking = os.pipe()
        answered, answering = os.pipe()
        call("unshare", NEW_PROCESSES)  # for the program alone
        if os.fork() == 0:
            _be_program(asked, answering, null, (asking, answered, out))
        os.close(asked)
        os.close(answering)
        confine()
        program = Program(os.fdopen(asking, "w"), os.fdopen(answered))
        program.started()
    except OSError as error:
        os.write(1, str(error.strerror or error).encode())
        os._exit(1)
    os.write(out, b"ready\n")
    wanted = json.load(sys.stdin)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    verdict = program.judge(wanted["program"], wanted["tests"])
    os.write(out, verdict[:1000].encode(errors="replace"))
    os._exit(0)


def _be_program(asked: int, answering: int, null: int, others: tuple[int, ...]) -> NoReturn:
    """The program's process. It holds two pipes, and nothing of what is to be judged."""
    try:
        os.setsid()  # no group to signal
        call("prctl", PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        for other in others:
            os.close(other)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        confine()
        os.write(answering, b"\n")
        serve(os.fdopen(asked), os.fdopen(answering, "w"))
    except OSError as error:
        os.write(answering, f"{error.strerror or error}\n".encode())
    finally:
        os._exit(0)

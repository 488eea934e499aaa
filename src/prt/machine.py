"""What this machine can do, asked without torch."""

import re
import shutil
from pathlib import Path

# As Linux names them in /proc/cpuinfo: AVX-512 and AMX on x86, and Arm's.
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the CPU has instructions for bf16; None where that cannot be known."""
    if not cpuinfo.exists():
        return None
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    return None if flags is None else bool(BF16 & set(flags[1].split()))


def _there(folder: Path) -> Path:
    """A folder, or the nearest above it where it is still to be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk where a folder is, or is to be made."""
    return shutil.disk_usage(_there(folder)).free


def disk_of(folder: Path) -> int:
    """The number of the disk where a folder is, or is to be made."""
    return _there(folder).stat().st_dev

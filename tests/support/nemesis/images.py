"""A small file system of its own for each storage: it can be full, and it can lose its power.

Linux, and root: ext4 on a loop device. Power is cut by the file system's own shutdown, without flushing: what was not
synced is gone after the next mount.
"""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class Image:
    """One file system, mounted at `path`."""

    def __init__(self, path: Path, size_mb: int) -> None:
        """Make and mount it. Raises: CalledProcessError, OSError where that is not possible."""
        self.path = path
        self._file = path.with_suffix(".ext4")
        path.mkdir()
        with self._file.open("wb") as file:
            file.truncate(size_mb * 2**20)
        subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", self._file],
            check=True,
            capture_output=True,
        )
        self._mount()
        (path / "lost+found").rmdir()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._file, self.path], check=True, capture_output=True)

    def _unmount(self) -> None:
        subprocess.run(["umount", self.path], check=True, capture_output=True)

    def cut_power(self) -> None:
        """Lose what was not flushed. Nobody may have a file open here."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        self._unmount()
        self._mount()

    def fill(self) -> None:
        """Leave no room."""
        with (self.path / "ballast").open("wb", buffering=0) as file:
            free = os.statvfs(self.path)
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - 65536))

    def empty(self) -> None:
        """Give the room back."""
        (self.path / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount and remove it."""
        subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)
        self._file.unlink(missing_ok=True)


def images_work(directory: Path) -> bool:
    """Whether this machine lets us have such file systems."""
    if os.geteuid() != 0:
        return False
    try:
        probe = Image(directory / "probe", 8)
    except (OSError, subprocess.CalledProcessError):
        return False
    probe.close()
    return True

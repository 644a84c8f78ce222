"""A small disk for a run's checkpoints, which can be filled up at once."""

import contextlib
import os
import subprocess
from pathlib import Path


class SmallDisk:
    """A file system in memory at `folder`; only root can make one."""

    def __init__(self, folder: Path, megabytes: int = 96) -> None:
        self.folder, self.filler = folder, folder / "filler"
        self.megabytes = megabytes

    def __enter__(self) -> "SmallDisk":
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.megabytes}m", "soak", self.folder]
        subprocess.run(command, check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=False)

    def fill(self) -> None:
        """Leaves no byte free."""
        left = os.statvfs(self.folder)
        with self.filler.open("ab") as file:
            size = left.f_bavail * left.f_frsize
            while size >= left.f_frsize:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), size)
                except OSError:  # others write meanwhile
                    size //= 2

    def free(self) -> None:
        """Takes the filler away."""
        with contextlib.suppress(FileNotFoundError):
            self.filler.unlink()

"""Installs the servers that tests start, where it may: Debian packages, as root, by apt-get.

Prints what is there, what was installed and what is missing; tests of missing servers are skipped by name. With CI set a
missing one is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from glob import glob

#: program → Debian package
SERVERS = {
    "redis-server": "redis-server",
    "rabbitmq-server": "rabbitmq-server",
    "postgres": "postgresql",
    "mariadbd": "mariadb-server",
    "memcached": "memcached",
}
FOLDERS = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", *glob("/usr/lib/postgresql/*/bin")]


def missing() -> list[str]:
    """Programs that are not there."""
    return [program for program in SERVERS if shutil.which(program, path=os.pathsep.join(FOLDERS)) is None]


def main() -> int:
    """Install what is missing; 1 if CI is set and something still is."""
    absent = missing()
    if absent and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = [SERVERS[program] for program in absent]
        print("installing", ", ".join(packages))
        # Debian starts a service when it is installed; the tests start their own, on free ports.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
            check=False,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        absent = missing()
    for program in absent:
        print(f"not installed: {program} (Debian package {SERVERS[program]}); its tests are skipped")
    return 1 if absent and os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())

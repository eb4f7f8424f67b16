"""Checks on the tree that linters don't make: sizes, module docstrings, and nothing of one machine in the files.

Run by `make lint`, pre-commit and tests/acceptance/test_project.py. Looks at the files that git tracks, or at all
files where there is no git. Prints one line per finding, as `path:line: what`, and exits 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Lines of a Python file. The soft limit is 400; nobody reads more in one go.
MAX_FILE_LINES = 600
#: Lines of a function without its docstring. The soft limit is 30.
MAX_FUNCTION_LINES = 60

#: Absolute paths that exist on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|work|opt)/[\w.]")
#: Addresses of package registries: where packages come from is the user's business.
REGISTRY = re.compile(r"(?:\bpypi|pythonhosted|npmjs|\bcrates|\brubygems)\.(?:org|com|io)\b")

#: Golden data was written by other programs elsewhere; it is not ours to change.
DATA = re.compile(r"^tests/(?:.*/)?(?:vectors|data)/")
SKIPPED_FOLDERS = {".git", ".venv", ".bench-venv", "__pycache__", "build", "dist"}


def tracked_files(root: Path = ROOT) -> list[Path]:
    """Files under version control; without git, all files but caches and environments."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    if git.returncode == 0 and git.stdout:
        files = [root / name for name in git.stdout.decode().split("\0") if name]
    else:
        files = [path for path in root.rglob("*") if not SKIPPED_FOLDERS.intersection(path.relative_to(root).parts)]
    return sorted(path for path in files if path.is_file())


def check_sizes(path: Path, text: str) -> Iterator[str]:
    """Findings about the length of a Python file and of its functions."""
    lines = text.count("\n")
    if lines > MAX_FILE_LINES:
        yield f"{path}:{MAX_FILE_LINES}: {lines} lines; a file has at most {MAX_FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = function_length(node)
            if length > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines; a function has at most {MAX_FUNCTION_LINES}"


def function_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return length


def check_docstring(path: Path, text: str) -> Iterator[str]:
    """A finding if a module of the package that has code does not say what it is for."""
    tree = ast.parse(text)
    if tree.body and ast.get_docstring(tree) is None:
        yield f"{path}:1: the module has no docstring"


def check_addresses(path: Path, text: str) -> Iterator[str]:
    """Findings about text that belongs to one machine or names a package registry."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, what in ((MACHINE_PATH, "machine path"), (REGISTRY, "registry address")):
            found = pattern.search(line)
            if found:
                yield f"{path}:{number}: {what} {found.group()!r}"


def findings(root: Path = ROOT) -> list[str]:
    """Everything that is wrong with the tree, one line each."""
    found: list[str] = []
    for path in tracked_files(root):
        name = path.relative_to(root)
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # binary data
        if DATA.match(name.as_posix()):
            continue
        found += check_addresses(name, text)
        if name.suffix == ".py":
            found += check_sizes(name, text)
        if name.suffix == ".py" and name.parts[0] == "src":
            found += check_docstring(name, text)
    return found


def main() -> int:
    """Print the findings; 1 if there are any."""
    found = findings()
    print("\n".join(found) if found else "tree: sizes, docstrings and addresses are fine")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Coverage-guided fuzzing of everything that is parsed: `make fuzz`, or `python scripts/fuzz.py --help`.

Each target of tests/fuzz runs in a process of its own under atheris (libFuzzer) for its share of the time. An input that
does harm is written to FINDINGS, one for each place in the code. Once it is mended, the input goes to
tests/properties/seeds, from where every run of the tests reads it. What led to new code is kept in CORPUS, so that the next
run goes on where this one ended.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Longest input, in bytes.
MAX_LENGTH = 4096
#: Wall-clock seconds after which libFuzzer gives up on an input that holds the interpreter's lock.
BACKSTOP = 60


def load_targets() -> dict[str, Any]:
    """All targets by name."""
    sys.path.insert(0, str(ROOT))
    logging.disable(logging.CRITICAL)
    from tests.fuzz import grammars, messages, results
    from tests.fuzz.target import TARGETS

    assert grammars and messages and results
    return TARGETS


def load_instrumented() -> dict[str, Any]:
    """All targets, and the package in the form that tells atheris which parts of it are reached."""
    try:
        import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise SystemExit("atheris is not installed: pip install 'celeriac[fuzz]' (Linux, CPython up to 3.13)") from None
    with (
        contextlib.redirect_stderr(io.StringIO()),
        atheris.instrument_imports(include=["celeriac"]),
    ):  # names each module
        return load_targets()


# --- one target, in a process of its own ---


def run_one(target: Any, seconds: int, options: argparse.Namespace) -> None:
    """Fuzz one target until its time is over; the process ends with it."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from tests.fuzz.target import bounds, seeds_of

    corpus = options.corpus / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in (*target.starts(), *(path.read_bytes() for path in seeds_of(target.name))):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    arguments = [
        target.name, str(corpus), f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", "-rss_limit_mb=0",
        f"-timeout={BACKSTOP}", f"-artifact_prefix={options.findings / target.name}.",
    ]  # fmt: skip
    with bounds():
        atheris.Setup(arguments, judge(target, options.findings))
        atheris.Fuzz()


def judge(target: Any, findings: Path) -> Callable[[bytes], None]:
    """The function that libFuzzer calls: it writes findings down and goes on."""
    from tests.fuzz.target import run

    known: set[str] = set()

    def call(data: bytes) -> None:
        found = run(target, data)
        if found is None or found.place in known:
            return
        known.add(found.place)
        path = findings / f"{target.name}-{hashlib.sha256(found.place.encode()).hexdigest()[:8]}"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(f"{found.place}\n\n{found.report}", errors="backslashreplace")
        print(f"FINDING {found.place}", flush=True)

    return call


# --- all targets, one after the other ---


def run_all(targets: list[Any], options: argparse.Namespace) -> int:
    """Give each target its share of the time; returns how many places in the code did harm."""
    share = max(5, options.seconds // len(targets))
    print(f"{len(targets)} targets, {share} s each", flush=True)
    executions = findings = 0
    for position, target in enumerate(targets, 1):
        log = run_child(target, share, options)
        figures = read_figures(log)
        executions += figures["executions"]
        findings += figures["findings"]
        with (options.corpus / "rounds.jsonl").open("a") as file:
            file.write(json.dumps({"target": target.name, "seconds": share, **figures}) + "\n")
        print(
            f"[{position}/{len(targets)}] {target.name}: {figures['executions']:,} executions, {figures['edges']} edges, "
            f"{figures['findings']} findings", flush=True,
        )  # fmt: skip
        for line in log.splitlines():
            if line.startswith(("FINDING", "SUMMARY")):
                print(f"    {line}", flush=True)
    print(f"{executions:,} executions, {findings} findings (in {options.findings})")
    return findings


def run_child(target: Any, seconds: int, options: argparse.Namespace) -> str:
    """What the process of one target wrote. It is forked, since instrumenting the code takes as long as a short run."""
    path: Path = options.corpus / f"{target.name}.log"
    child = os.fork()
    if child == 0:
        with path.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        run_one(target, seconds, options)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    log = path.read_text(errors="replace")
    if status and "SUMMARY" not in log:
        raise SystemExit(f"{target.name} ended with {status}:\n{log[-3000:]}")
    return log


def read_figures(log: str) -> dict[str, int]:
    """Executions, edges of code that were reached, and findings, from libFuzzer's log."""
    counts = re.findall(r"^#(\d+)", log, re.MULTILINE)
    edges = re.findall(r"\bcov: (\d+)", log)
    return {
        "executions": max(map(int, counts), default=0),
        "edges": max(map(int, edges), default=0),
        "findings": len(re.findall(r"^(?:FINDING|SUMMARY)", log, re.MULTILINE)),
    }


def show_coverage(options: argparse.Namespace) -> None:
    """Which part of each target's modules the corpus reaches."""
    import coverage

    measured = coverage.Coverage(source=["celeriac"], data_file=None)
    measured.start()
    targets = load_targets()
    from tests.fuzz.target import run

    names = options.targets or [name for name in targets if (options.corpus / name).is_dir()]
    for name in names:
        for path in sorted((options.corpus / name).glob("*")):
            run(targets[name], path.read_bytes())
    measured.stop()
    for module in sorted({module for name in names for module in targets[name].modules}):
        _, lines, _, missing, _ = measured.analysis2(sys.modules[module])
        print(f"{module}: {100 * (len(lines) - len(missing)) // max(len(lines), 1)} % of {len(lines)} statements")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="names of targets; all if none is given")
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together (default 300)")
    parser.add_argument("--corpus", type=Path, default=ROOT / "build/fuzz/corpus")
    parser.add_argument("--findings", type=Path, default=ROOT / "build/fuzz/findings")
    parser.add_argument("--coverage", action="store_true", help="fuzz nothing; show what the corpus reaches")
    options = parser.parse_args()
    for folder in (options.corpus, options.findings):
        folder.mkdir(parents=True, exist_ok=True)
    if options.coverage:
        show_coverage(options)
        return 0
    known = load_instrumented()
    unknown = sorted(set(options.targets) - set(known))
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(known)}")
    return 1 if run_all([known[name] for name in options.targets or known], options) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Prints which documented behaviours have no test.

Run by `make behaviours`. The behaviours are the lines of tests/behaviours.txt: an id and a title. A test names the ones it
checks in its own name (`test_b_rate_001_numbers`), in its docstring (`[B-RATE-001]`) or by a marker,
`@pytest.mark.behaviour("B-RATE-001", ...)`, on the function, its class or its module (`pytestmark`). Prints a count for
each family and then each id without a test; exits 1 if a test names an id that the table doesn't have, or, with --strict,
if any id has no test.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "behaviours.txt"

LINE = re.compile(r"(B-[A-Z]+-\d{3}) {2}(\S.*)")
#: In the docstring of a test.
IN_TEXT = re.compile(r"\bB-[A-Z]+-\d{3}\b")
#: In the name of a test, as lower case with underscores.
IN_NAME = re.compile(r"(?:^|_)b_([a-z]+)_(\d{3})(?=_|$)")


def read_table(path: Path = TABLE) -> dict[str, str]:
    """Ids and titles, in the table's order."""
    table: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        found = LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{path.name}:{number}: {line!r} is not an id, two spaces and a title")
        if found[1] in table:
            raise ValueError(f"{path.name}:{number}: {found[1]} is there twice")
        table[found[1]] = found[2]
    return table


def named_in(source: str) -> Iterator[str]:
    """The ids that a test file names, once for each place."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield from (f"B-{family.upper()}-{number}" for family, number in IN_NAME.findall(node.name))
            yield from IN_TEXT.findall(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "behaviour":
            yield from (
                text.value for text in node.args if isinstance(text, ast.Constant) and isinstance(text.value, str)
            )


def count_tests(root: Path) -> Counter[str]:
    """How often each id is named in the test files below `root`."""
    counts: Counter[str] = Counter()
    for path in sorted(root.rglob("test_*.py")):
        counts.update(named_in(path.read_text(encoding="utf-8")))
    return counts


def families(ids: Sequence[str], tested: Counter[str]) -> Iterator[str]:
    """A line for each family: how many of its behaviours have a test."""
    totals = Counter(id.rsplit("-", 1)[0] for id in ids)
    covered = Counter(id.rsplit("-", 1)[0] for id in ids if tested[id])
    for family, total in totals.items():
        yield f"{family:<12} {covered[family]:>3} of {total}"
    yield f"{'all':<12} {sum(covered.values()):>3} of {len(ids)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; the exit code."""
    parser = argparse.ArgumentParser(description="Which documented behaviours have no test.")
    parser.add_argument("--strict", action="store_true", help="exit 1 if any behaviour has no test")
    parser.add_argument("--family", action="append", help="only these, such as B-RATE; may be repeated")
    options = parser.parse_args(arguments)
    table, tested = read_table(), count_tests(ROOT / "tests")
    unknown = sorted(set(tested) - set(table))
    shown = [id for id in table if not options.family or id.rsplit("-", 1)[0] in options.family]
    missing = [id for id in shown if not tested[id]]
    print("\n".join(families(shown, tested)))
    if missing:
        print("\nwithout a test:")
        print("\n".join(f"{id}  {table[id]}" for id in missing))
    if unknown:
        print(f"\nnamed by tests, but not in {TABLE.name}: {', '.join(unknown)}")
    return 1 if unknown or (options.strict and missing) else 0


if __name__ == "__main__":
    sys.exit(main())

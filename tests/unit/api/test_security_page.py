"""What the README says of security has tests, and they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_each_line_of_the_page_names_tests_that_there_are() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    page = page.partition("## Security\n")[2].partition("\n## ")[0]
    lines = [line for line in page.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(lines) > 20
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", written, re.MULTILINE))
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named or "*can*" in line, f"no test: {line}"
        assert set(named) <= there, line

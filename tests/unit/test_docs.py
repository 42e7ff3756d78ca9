"""What code, tests and documents cite of ``docs/`` is there: the file, and the section by its heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
THIS = Path(__file__)

# A file of docs/, and the headings that are cited after it: docs/protocol/chain.md, 'Messages' and 'Weight'
CITATION = re.compile(r"(docs/[\w./-]*\w)`*((?:(?:,| and) '[^']+')*)")


def texts() -> Iterator[tuple[Path, str]]:
    """Each file that may cite, its lines joined, so that a citation may go on in the next line of a comment."""
    for folder, suffix in (("dapi", "py"), ("tests", "py"), ("bench", "py"), ("tools", "py"), ("docs", "md")):
        for path in sorted((ROOT / folder).rglob(f"*.{suffix}")):
            if path != THIS:
                yield path, re.sub(r"\s*\n\s*(?:#:? )?", " ", path.read_text(encoding="utf-8"))
    for name in ("README.md", "CONTRIBUTING.md"):
        yield ROOT / name, re.sub(r"\s*\n\s*", " ", (ROOT / name).read_text(encoding="utf-8"))


def headings(path: Path) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE))


class CitationTests(SynchronousTestCase):
    def test_each_cited_file_and_section_exists(self) -> None:
        wrong, found = [], 0
        for path, text in texts():
            for name, sections in CITATION.findall(text):
                cited = ROOT / name
                if not cited.exists():
                    wrong.append(f"{path.relative_to(ROOT)}: there is no {name}")
                    continue
                for section in re.findall(r"'([^']+)'", sections):
                    found += 1
                    if section not in headings(cited):
                        wrong.append(f"{path.relative_to(ROOT)}: {name} has no section {section!r}")
        self.assertEqual(wrong, [])
        self.assertGreater(found, 10)

    def test_headings_of_a_file_are_unique(self) -> None:
        for path in sorted((ROOT / "docs").rglob("*.md")):
            found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            self.assertEqual(len(found), len(set(found)), path.name)

    def test_sections_of_protocol_files_exist_where_they_name_each_other(self) -> None:
        """'Names of sections' in quotes inside docs/protocol are of the same file, unless another file is named."""
        for path in sorted((ROOT / "docs" / "protocol").glob("*.md")):
            text = CITATION.sub("", re.sub(r"\s*\n\s*", " ", path.read_text(encoding="utf-8")))
            cited = set(re.findall(r"(?:see|as in) '([^']+)'", text))
            self.assertEqual(cited - headings(path), set(), path.name)

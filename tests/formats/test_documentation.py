from pathlib import Path

import pytest

from personae.formats.format import formats

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize("name", list(formats()))
def test_the_page_says_of_each_format_what_the_code_says(name):
    kind, page = formats()[name], PAGE.read_text(encoding="utf-8")
    readers = [reader.split(" (") for reader in kind.readers if reader != "personae"]
    assert all(how.rstrip(")").split()[-1] in page for _, *hints in readers for how in hints)
    opened = ", ".join(tool for tool, *_ in readers) or "personae alone"
    row = [f"`{name}`", ", ".join(kind.techniques), opened]
    assert f"| {' | '.join(row)} |" in page
    not_readers = "; ".join(kind.not_readers)
    told = f"- `{name}`: {kind.title}." + f" Not opened by {not_readers}." * bool(not_readers)
    assert told in " ".join(page.split())


def test_the_page_lists_no_format_that_is_not_there():
    lines = PAGE.read_text(encoding="utf-8").split("## Which tool")[1].split("## What is kept")[0]
    listed = {line.split("`")[1] for line in lines.splitlines() if line.startswith("| `")}
    assert listed - {"--to"} == set(formats())

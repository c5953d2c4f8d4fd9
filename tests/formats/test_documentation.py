from pathlib import Path

import pytest

from personae.formats.format import formats

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize("name", list(formats()))
def test_the_page_says_of_each_format_what_the_code_says(name):
    kind = formats()[name]
    cells = [
        f"`{name}`",
        kind.title,
        ", ".join(kind.techniques),
        ", ".join(kind.readers),
        "; ".join(kind.not_readers) or "-",
    ]
    assert f"| {' | '.join(cells)} |" in PAGE.read_text(encoding="utf-8")


def test_the_page_lists_no_format_that_is_not_there():
    lines = PAGE.read_text(encoding="utf-8").split("## Which tool")[1].split("## What is kept")[0]
    listed = {line.split("`")[1] for line in lines.splitlines() if line.startswith("| `")}
    assert listed - {"--to"} == set(formats())

"""What is shown is text, whatever it came from."""

from __future__ import annotations

import logging

import pytest
from rich.table import Table

from personae.cli.app import run
from personae.cli.terminal import Terminal, clean, clean_outputs

EVIL = "a\x1b[2Jb\x1b]0;title\x07c\x9bd\u202ee\udcfff\rg"
HARMLESS = r"a\x1b[2Jb\x1b]0;title\x07c\x9bd\u202ee\udcfff\rg"


def test_what_acts_on_a_terminal_is_spelled_out() -> None:
    assert clean(EVIL) == HARMLESS
    assert clean("Mädchen\t\u732b\r\nüber\n") == "Mädchen\t\u732b\nüber\n"


def test_lines_tables_and_warnings_show_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    table = Table.grid()
    table.add_row(EVIL)
    for what in (EVIL, table, f"[bold]{EVIL}[/]", f"no markup [/] {EVIL}"):
        terminal.say(what)
    clean_outputs()
    logging.lastResort.emit(logging.makeLogRecord({"msg": EVIL, "levelno": logging.WARNING}))
    shown = capsys.readouterr()
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r", "\udcff"} & set(shown.out + shown.err)
    assert (shown.out + shown.err).count("title") == 5


def test_an_error_shows_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "no\x1b[2Jwhere"]) == 1
    assert r"no\x1b[2Jwhere" in capsys.readouterr().err

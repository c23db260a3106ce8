"""What commands print: whole lines in files, styles on terminals, and nothing more where nobody reads."""

from __future__ import annotations

import io
import logging

from bluffscope.cli.console import LastingConsole, messages_on


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError


def test_a_console_falls_silent_when_its_reader_has_gone():
    console = LastingConsole(file=Closed())
    console.say("a line")
    assert console.quiet
    console.say("another")


def test_lines_in_files_end_without_spaces_and_lines_on_terminals_are_styled():
    plain, terminal = io.StringIO(), io.StringIO()
    LastingConsole(file=plain).say("x [b] 12   ", "y", style="bold")
    LastingConsole(file=terminal, force_terminal=True, color_system="standard").say("x [b] 12", style="bold")
    assert plain.getvalue() == "x [b] 12\ny\n"
    assert terminal.getvalue() == "\x1b[1mx [b] 12\x1b[0m\n"


def test_each_warning_is_a_line_and_said_once_where_that_is_asked_for():
    log = logging.getLogger("bluffscope.somewhere")
    for once, lines in ((False, 2), (True, 1)):
        file = io.StringIO()
        with messages_on(LastingConsole(file=file), once=once):
            log.warning("two\nlines")
            log.warning("two\nlines")
            log.info("not this")
        assert file.getvalue() == "warning: two lines\n" * lines
    assert logging.getLogger("bluffscope").propagate


def test_a_warning_that_cannot_be_printed_ends_nothing():
    file = io.StringIO()
    with messages_on(LastingConsole(file=file)):
        file.close()
        logging.getLogger("bluffscope").warning("unheard")

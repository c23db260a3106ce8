"""Tables and views of a terminal: texts as they are, numbers whole, made for the console's width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from bluffscope.host.terminal import Folded, Row, count, interval, table


def printed(shown, width=40):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(shown)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_table_has_no_box_its_first_column_to_the_left_and_numbers_to_the_right():
    found = table(["name", "n"], [["a", "1"], Row(["bcd", "12,345"], "bold"), ["short"]], title="Some", gap=2)
    assert printed(found) == ["Some", "name        n", "a           1", "bcd    12,345", "short"]


def test_markup_in_data_is_shown_as_it_is():
    assert printed(table(["[b]head[/b]"], [["[red]x[/red]"], [Text("[/]")]])) == ["[b]head[/b]", "[red]x[/red]", "[/]"]


def test_a_narrow_console_breaks_texts_before_it_cuts_numbers():
    found = table(["name", "value"], [["a name that is far too long for it", "123,456.789"]])
    lines = printed(found, width=24)
    assert "123,456.789" in lines[1]
    assert "".join(line[:12].strip() for line in lines[1:]).replace(" ", "") == "anamethatisfartoolongforit"


def test_widths_and_the_least_width_of_the_first_column_hold():
    assert printed(table(["", "x"], [["a", "1"]], widths={1: 5}, least=6)) == ["           x", "a          1"]


@pytest.mark.parametrize(("width", "shown"), [(40, ["a b c"]), (15, ["a b", "c"]), (3, ["a", "b", "c"])])
def test_columns_that_do_not_fit_stand_in_a_table_below(width, shown):
    # the first column takes 4 and a space, each other 4 and a space
    folded = Folded(["a", "b", "c"], (4, 4), lambda columns: [Text(" ".join(columns))])
    assert printed(folded, width=width) == shown


def test_nouns_are_counted():
    assert (count(1), count(1200), count(0, "text")) == ("1 pair", "1,200 pairs", "0 texts")


@pytest.mark.parametrize(
    ("row", "shown"), [({"lo": 0.611, "hi": 0.74}, "0.61 to 0.74"), ({"lo": None, "hi": 1.0}, "-")]
)
def test_an_interval_is_two_numbers_or_a_dash(row, shown):
    assert interval(row) == shown
    assert interval({f"gain_{name}": value for name, value in row.items()}, "gain_") == shown

"""Of YAML only plain values are read: nothing that grows, runs for minutes or refers to itself."""

from __future__ import annotations

import pytest
import yaml

from bluffscope.config.yaml_file import MOST_DIGITS, MOST_YAML, load_config, read_yaml
from bluffscope.errors import InputError


def test_plain_values_are_read_as_yaml_says():
    text = "a: [1, 2.5, null, true]\nb: {c: 'x', d: 2026-01-02}\n"
    read = read_yaml(text)
    assert read["a"] == [1, 2.5, None, True]
    assert read["b"]["c"] == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [1, 2]\nb: *x", "an alias"),
        (f"a: {'9' * (MOST_DIGITS + 1)}", f"a whole number of {MOST_DIGITS + 1} characters"),
        ("#" * (MOST_YAML + 1), "longer than 1,000,000 characters"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
    ids=["an alias", "a long number", "a long text", "an object"],
)
def test_what_grows_runs_or_refers_is_no_plain_value(text, says):
    with pytest.raises(yaml.YAMLError, match=says):
        read_yaml(text)


def test_a_config_that_is_none_is_refused_with_its_line(tmp_path):
    (tmp_path / "config.yaml").write_text("a: &x 1\nb: *x")
    with pytest.raises(InputError) as refusal:
        load_config(tmp_path / "config.yaml")
    assert "config.yaml: not valid YAML (line 2: an alias); give a run's config.yaml" in str(refusal.value)

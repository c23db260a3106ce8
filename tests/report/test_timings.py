"""Where the time went: stages, the report, and a rate that one worker reached."""

from __future__ import annotations

from bluffscope.report.timings import read_timings

MANIFEST = {
    "timings": {"load": 3.0, "tokenise": 1.0, "forward": 2.0, "sae": 0.5, "geometry": 0.5, "total": 8.0},
    "counts": {"pairs": 40},
    "workers": None,
}


def test_the_report_takes_what_the_run_and_its_fidelity_did_not():
    found = read_timings(MANIFEST | {"fidelity": {"seconds": 1.5}}, 12.0)
    assert found.total == 12.0
    assert (found.stages["fidelity"], found.stages["report"]) == (1.5, 2.5)
    assert "report" not in read_timings(MANIFEST).stages
    assert read_timings(MANIFEST).total == 8.0


def test_only_the_rate_of_a_single_worker_is_shown_because_seconds_of_several_are_summed():
    assert read_timings(MANIFEST).rate == 10.0
    assert read_timings(MANIFEST | {"workers": {"number": 2}}).rate is None


def test_a_manifest_without_timings_has_none():
    assert read_timings({}, 5.0) == ({}, None, None)

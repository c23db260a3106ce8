"""Workers over machines: one a GPU, or one a group of cores that memory allows, all with as many threads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluffscope.engine.placement import CORES_A_GPU, Node, Placement, place
from bluffscope.errors import InputError

GB = 10**9
LAPTOP = Node(cores=2, gpus=0, memory=16 * GB)
SERVER = Node(cores=64, gpus=8, memory=512 * GB)


def test_a_laptop_has_one_worker_with_all_cores():
    assert place([LAPTOP], "auto", gpu=False) == Placement(1, 2)


def test_there_is_a_worker_for_every_four_cores_and_none_is_left_idle():
    assert place([Node(8, 0, GB)], "auto", gpu=False) == Placement(2, 4)
    assert place([Node(7, 0, GB)], "auto", gpu=False) == Placement(1, 7)
    assert place([Node(64, 0, GB)] * 3, "auto", gpu=False) == Placement(48, 4)


def test_memory_limits_workers_and_the_rest_of_the_cores_go_to_those_there_are():
    node = Node(16, 0, 20 * GB)
    assert place([node], "auto", gpu=False, each=8 * GB) == Placement(2, 8)
    assert place([node], "auto", gpu=False, each=3 * GB, shared=8 * GB) == Placement(4, 4)
    # Where not even one fits, one is tried: it warns, and batches are the smallest.
    assert place([node], "auto", gpu=False, each=30 * GB) == Placement(1, 16)


def test_every_gpu_has_a_worker_with_its_share_of_the_cores():
    assert place([SERVER], "auto", gpu=True) == Placement(8, CORES_A_GPU, gpu=True)
    assert place([SERVER] * 2, "auto", gpu=True).workers == 16
    assert place([Node(8, 4, GB)], "auto", gpu=True) == Placement(4, 2, gpu=True)
    assert place([SERVER], 3, gpu=True) == Placement(3, CORES_A_GPU, gpu=True)
    # A core at least for each: a machine of more GPUs than cores leaves some unused.
    assert place([Node(2, 4, GB)], "auto", gpu=True) == Placement(2, 1, gpu=True)


def test_so_many_workers_as_asked_for_share_the_cores():
    assert place([LAPTOP], 2, gpu=False) == Placement(2, 1)
    # Three workers of 2 cores do not fit on two machines of 3: the third would wait for ever.
    assert place([Node(3, 0, GB)] * 2, 3, gpu=False) == Placement(3, 1)


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "says"),
    [
        ([LAPTOP], 0, False, "--workers 0: give auto or at least 1"),
        ([LAPTOP], 3, False, "the cluster has 2 cores, and a worker takes at least one core; give at most 2"),
        ([LAPTOP], "auto", True, "the cluster has no GPUs; use --device cpu"),
        ([SERVER], 9, True, "the cluster has 8 GPUs, and one worker takes a whole GPU; give at most 8"),
        ([Node(0, 0, GB)], "auto", False, "the cluster has no cores"),
    ],
)
def test_what_a_cluster_does_not_have_is_refused_with_what_to_do(nodes, workers, gpu, says):
    with pytest.raises(InputError, match=says):
        place(nodes, workers, gpu=gpu)


NODES = st.lists(st.builds(Node, st.integers(1, 96), st.integers(0, 8), st.integers(1, 500)), min_size=1, max_size=5)


@given(NODES, st.integers(0, 100), st.integers(0, 100), st.booleans(), st.integers(1, 40))
def test_all_workers_fit_at_once_on_any_cluster(nodes, each, shared, gpu, asked):
    for workers in ("auto", asked):
        try:
            found = place(nodes, workers, gpu=gpu, each=each, shared=shared)
        except InputError:
            continue
        slots = [node.cores // found.cores for node in nodes]
        if gpu:
            slots = [min(slot, node.gpus) for slot, node in zip(slots, nodes, strict=True)]
        assert 1 <= found.workers <= sum(slots)
        assert workers in ("auto", found.workers)

"""S01: each known way lets a value out by default, and the detector finds it; the product's own part lets nothing out."""

import pytest

from orders_pipeline_tests.leaks.detector import Canaries, traces
from orders_pipeline_tests.leaks.known_ways import KNOWN_WAYS
from orders_pipeline_tests.support.soak import first_of

CONFIGURED = {"config of a run"}


def test_s01_there_are_24_known_ways():
    assert len(KNOWN_WAYS) == 24


@pytest.mark.parametrize("name", first_of(KNOWN_WAYS, 6))
def test_s01_a_known_way_lets_a_value_out_by_default_and_it_is_found(bare, name):
    canaries = Canaries(name)
    value = canaries.plant(name)
    bare.run(lambda bench: KNOWN_WAYS[name].by_default(bench, value), {"token": value} if name in CONFIGURED else None)
    assert canaries.found_in(*bare.left()) == {name}


@pytest.mark.parametrize("name", KNOWN_WAYS)
def test_s01_the_products_own_part_lets_nothing_out(guarded, name, tmp_path_factory):
    canaries = Canaries(name)
    value = canaries.plant(name)
    guarded.run(lambda bench: KNOWN_WAYS[name].in_product(bench, value))
    left = guarded.left()
    assert canaries.found_in(*left) == set()
    assert traces(guarded.log.getvalue().replace(str(tmp_path_factory.getbasetemp()), "")).keys() <= {"host"}

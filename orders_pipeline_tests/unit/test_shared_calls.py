"""Fair shares: nobody gets more than it wants, all together never more than there is, and whose turn it is goes round."""

from hypothesis import given
from hypothesis import strategies as st

from orders_pipeline.batches.shared_calls import fair_shares


@given(st.integers(0, 64), st.lists(st.integers(0, 64), max_size=12), st.integers(0, 10**10))
def test_all_that_is_wanted_is_shared_out_and_no_more_than_there_is(most, wanted, turn):
    shares = fair_shares(most, wanted, turn)
    assert sum(shares) == min(most, sum(wanted))
    assert all(0 <= share <= want for share, want in zip(shares, wanted, strict=True))
    hungry = [share for share, want in zip(shares, wanted, strict=True) if share < want]
    assert not hungry or max(shares) - min(hungry) <= 1


def test_who_wants_less_leaves_the_rest_to_the_others():
    assert fair_shares(32, [32, 3, 32], 0) == [15, 3, 14]
    assert fair_shares(32, [32], 7) == [32]


def test_where_there_is_not_enough_for_all_it_goes_round():
    assert [fair_shares(1, [5, 5, 5], turn) for turn in range(3)] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

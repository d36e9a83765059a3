"""What is packed in memory: it comes out as it went in, and takes little."""

from __future__ import annotations

import tracemalloc

from orders_pipeline.infrastructure.scratch import Packed


def test_what_is_packed_comes_out_as_it_went_in():
    for lengths in ([], [0], [1], [65_535, 1, 1], [200_000, 3]):
        packed, content = Packed(), b""
        for length in lengths:
            piece = bytes(number % 251 for number in range(length))
            packed.write(piece)
            content += piece
        assert b"".join(packed.read()) == content


def test_lines_that_repeat_themselves_take_a_tenth_of_their_size():
    packed = Packed()
    tracemalloc.start()
    try:
        for number in range(100_000):
            packed.write(f"{number},{number + 1},amount,amount,R_AMOUNT_FORMAT,The amount is no whole number.\r\n".encode())
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < sum(map(len, packed.read())) / 10

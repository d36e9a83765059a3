"""What tests of this folder assert in other modules is shown as in their own."""

import pytest

pytest.register_assert_rewrite("orders_pipeline_tests.fuzz.reading")

"""How many examples a test tries, and how."""

from hypothesis import HealthCheck, Phase, settings

_SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def examples(count: int, *, shrink: bool = True) -> settings:
    """Return the settings of a test with `count` examples; a failure prints how to repeat it."""
    phases = (*_PHASES, Phase.shrink) if shrink else _PHASES
    return settings(max_examples=count, deadline=None, print_blob=True, suppress_health_check=_SLOW, phases=phases)

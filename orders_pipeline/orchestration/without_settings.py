"""What a part of Dagster's is that dagster.yaml names and gives no settings; what it needs of ours it reads itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from dagster._config import UserConfigSchema
from dagster._serdes import ConfigurableClass, ConfigurableClassData


class WithoutSettings(ConfigurableClass):
    """A part that dagster.yaml names by its module and class alone."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Return how dagster.yaml names it."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the settings that dagster.yaml may give: none."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """Make what dagster.yaml names."""
        return cls(inst_data)

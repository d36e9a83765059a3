"""A bench: runs something as a Dagster op and keeps all that it leaves: records, files, compute logs, log output."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from orders_pipeline.definitions import defs
from orders_pipeline.orchestration.assets.boundary import safe_errors
from orders_pipeline.orchestration.dagster_home import new_config
from orders_pipeline.system.composition import System
from orders_pipeline_tests.leaks.detector import files_below

assert defs, "the product's definitions also say what of Dagster's own logging is kept"
Body = Callable[["Bench"], Any]


@dataclass
class Bench:
    """An instance of Dagster in a folder, and what is left there and in the process's log."""

    system: System
    folder: Path
    protected: bool
    instance: dg.DagsterInstance
    log: io.StringIO = field(default_factory=io.StringIO)

    def run(self, body: Body, config: dict[str, Any] | None = None) -> None:
        """Run a function as the only op of a job, in the same process; that it fails is what it is for."""

        def act(context) -> Any:  # unannotated: Dagster reads annotations, and here they are text
            with safe_errors(self.system) if self.protected else contextlib.nullcontext():
                return body(self)

        only_op = dg.op(name="only_op", config_schema=dict)(act)
        outputs = dg.FilesystemIOManager(base_dir=str(self.folder / "outputs"))
        job = dg.GraphDefinition(name="only_job", node_defs=[only_op]).to_job(resource_defs={"io_manager": outputs})
        with self._listening():
            job.execute_in_process(
                instance=self.instance,
                run_config={"ops": {"only_op": {"config": config or {}}}},
                raise_on_error=False,
            )

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        handler = logging.StreamHandler(self.log)
        logging.getLogger().addHandler(handler)
        try:
            with contextlib.redirect_stderr(self.log), pytest.MonkeyPatch.context() as environment:
                environment.setenv("DAGSTER_REDACT_USER_CODE_ERRORS", "1" if self.protected else "")
                yield
        finally:
            logging.getLogger().removeHandler(handler)

    def say(self, text: str) -> None:
        """Log a line as a program that shows its findings does."""
        logging.getLogger("bench").warning(text)

    def left(self) -> list[bytes]:
        """Return everything there is to be found."""
        return [self.log.getvalue().encode("utf-8", "surrogatepass"), *(data for _, data in files_below(self.folder))]


@contextlib.contextmanager
def open_bench(system: System, folder: Path, *, protected: bool) -> Iterator[Bench]:
    """Open a bench in a new folder."""
    folder.mkdir()
    home = folder / "dagster"
    home.mkdir()
    chosen = yaml.safe_load(new_config(system.settings)) if protected else {}
    kept = {name: chosen[name] for name in ("compute_logs", "telemetry") if name in chosen}
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}} | kept))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Bench(system, folder, protected, instance)

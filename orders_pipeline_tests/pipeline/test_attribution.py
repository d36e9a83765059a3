"""Who asked for a run in Dagster's UI: whom our proxy says has logged in, and nobody on anybody else's word."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
import uvicorn
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, instance_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_webserver.webserver import DagsterWebserver
from pydantic import SecretStr
from starlette.applications import Starlette

from orders_pipeline.orchestration.attribution import PROOF_TAG, USER_TAG, asked_for_by
from orders_pipeline.system.settings import Settings

SECRET = "planted-secret-of-the-proxy-0123456789"
SETTINGS = Settings(proxy_secret=SecretStr(SECRET), users_file=Path("users.toml"))
NAME = "oncall@platform.example"
USERS = f'["{NAME}"]\nrole = "operator"\n["clerk@shop.example"]\nclient = "shop"\nrole = "clerk"\n'
COORDINATOR = {"module": "orders_pipeline.orchestration.run_queue", "class": "RunQueue"}
REPOSITORY = "__repository__short_job"
LAUNCH = """
mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
Launch = Callable[..., dg.DagsterRun]


@contextlib.contextmanager
def served(app: Starlette) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield "http://{}:{}".format(*listening.getsockname())
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """A function that asks Dagster's web server for a run, as a browser does behind a proxy."""
    users = tmp_path_factory.mktemp("users") / "users.toml"
    users.write_text(USERS)
    module = "orders_pipeline_tests.pipeline.small_daemon"
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name=module, attribute="short_job"), location_name="test"
    )
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        instance = stack.enter_context(instance_for_test(overrides={"run_coordinator": COORDINATOR}))
        patch.setenv("ORDERS_PROXY_SECRET", SECRET)
        patch.setenv("ORDERS_USERS_FILE", str(users))
        with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(origin)) as context:
            url = stack.enter_context(served(DagsterWebserver(context).create_asgi_app()))

            def launch(headers: dict[str, str], tags: dict[str, str] | None = None) -> dg.DagsterRun:
                selector = {
                    "repositoryLocationName": "test",
                    "repositoryName": "__repository__short_job",
                    "jobName": "short_job",
                }
                own = [{"key": key, "value": value} for key, value in (tags or {}).items()]
                params: dict[str, Any] = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": own}}
                body = {"query": LAUNCH, "variables": {"run": params}}
                answer = requests.post(f"{url}/graphql", json=body, headers=headers, timeout=60).json()
                run = instance.get_run_by_id(answer["data"]["launchRun"]["run"]["runId"])
                assert run is not None
                assert run.status is dg.DagsterRunStatus.QUEUED
                return run

            yield launch


def of_proxy(name: str, secret: str = SECRET) -> dict[str, str]:
    return {"Orders-User": name, "Orders-Proxy-Secret": secret}


def test_a_run_is_of_whom_the_proxy_has_logged_in(launched: Launch) -> None:
    run = launched(of_proxy(NAME))
    assert asked_for_by(run, SETTINGS) == f"operator/{NAME}"
    assert SECRET not in str(run.tags)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Orders-User": NAME},
        of_proxy(NAME, "another-secret-of-somebody-0123456789"),
        of_proxy("nobody"),
        of_proxy("clerk@shop.example"),
    ],
)
def test_on_the_word_of_anybody_else_it_is_nobodys(launched: Launch, headers: dict[str, str]) -> None:
    assert asked_for_by(launched(headers), SETTINGS) is None


def test_tags_that_somebody_gives_or_copies_prove_nothing(launched: Launch) -> None:
    real = launched(of_proxy(NAME))
    copied = {name: real.tags[name] for name in (USER_TAG, PROOF_TAG)}
    assert asked_for_by(launched({}, copied), SETTINGS) is None
    assert asked_for_by(launched({}, {USER_TAG: f"operator/{NAME}"}), SETTINGS) is None
    assert asked_for_by(launched(of_proxy(NAME), copied | {USER_TAG: "operator/other"}), SETTINGS) == f"operator/{NAME}"
    assert asked_for_by(real, Settings.model_construct()) is None  # without a proxy that is known

"""The deployment files: what they set are settings, what they start are commands, and what they name is there."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import orders_pipeline
from orders_pipeline.cli import main
from orders_pipeline.orchestration import kubernetes_jobs
from orders_pipeline.system.settings import PREFIX, Settings

DEPLOYMENT = Path(orders_pipeline.__file__).parent / "deployment"
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
ASSIGNED = re.compile(r"^(#?)(ORDERS_[A-Z0-9_]+)=(.*)$", re.MULTILINE)
UNITS = sorted(DEPLOYMENT.glob("systemd/*.service"))
COMPOSE = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text("utf-8"))
OURS = {name: each for name, each in COMPOSE["services"].items() if "build" in each and "entrypoint" not in each}
MANIFESTS = [
    (path, each)
    for path in sorted(DEPLOYMENT.glob("kubernetes/*.yaml"))
    for each in yaml.safe_load_all(path.read_text("utf-8"))
]


def parse(arguments: list[str]) -> None:
    """Parse a command line as the program does; raise click's error where it is none."""
    with main.make_context("orders-pipeline", list(arguments)) as context:
        name, command, rest = main.resolve_command(context, context._protected_args + context.args)
        assert command is not None
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, rest)
            assert command is not None
        with command.make_context(name, rest, parent=context):
            pass


def test_the_environment_file_has_every_setting_once_and_its_defaults() -> None:
    found = ASSIGNED.findall((DEPLOYMENT / "orders.env").read_text("utf-8"))
    names = [name for _, name, _ in found]
    assert (sorted(names), len(set(names))) == (sorted(SETTINGS), len(names))
    for is_default, name, value in found:
        field = Settings.model_fields[name.removeprefix(PREFIX).lower()]
        if is_default and field.default not in (None, ""):
            assert value in (str(field.default).lower(), f"{field.default:g}" if value.isdigit() else value), name


def test_an_environment_file_that_is_filled_in_is_taken_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_default, name, value in ASSIGNED.findall((DEPLOYMENT / "orders.env").read_text("utf-8")):
        if not is_default:
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.is_production
    assert settings.home == Path("/var/lib/orders-pipeline")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_and_knows_how_it_ends(path: Path) -> None:
    unit = dict(line.split("=", 1) for line in path.read_text("utf-8").splitlines() if re.match(r"\w+=", line))
    program, *arguments = shlex.split(unit["ExecStart"].replace("%i", "4"))
    assert program == "/opt/orders-pipeline/bin/orders-pipeline"
    parse(arguments)
    modes = {"daemon": "process", "worker": "mixed"}  # runs that are forks outlive the daemon; a worker waits for its own
    assert unit.get("KillMode") == modes.get(arguments[0])
    assert (unit["User"], unit["EnvironmentFile"]) == ("orders", "/etc/orders-pipeline/orders.env")


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_the_compose_file_starts_a_command_with_settings(name: str, tmp_path: Path) -> None:
    service = OURS[name]
    mounted = [each.partition(":")[2] for each in service.get("volumes", ())]
    parse([str(tmp_path / Path(each).name) if str(Path(each).parent) in mounted else each for each in service["command"]])
    assert {each for each in service["environment"] if each.startswith(PREFIX)} <= SETTINGS
    assert service["read_only"] is True
    assert set(service["depends_on"]) <= set(COMPOSE["services"])


def test_the_compose_file_has_all_parts_and_one_daemon() -> None:
    started = {each["command"][0] for each in OURS.values()}
    assert {"daemon", "web", "serve", "worker", "sandbox", "db"} == started
    assert "deploy" not in OURS["daemon"]
    workers = OURS["worker"]
    slots = int(workers["command"][workers["command"].index("--slots") + 1])
    hosts = workers["deploy"]["replicas"]
    assert int(workers["environment"]["ORDERS_MAX_CONCURRENT_RUNS"]) <= slots * (hosts - 1)


@pytest.mark.parametrize(("path", "manifest"), MANIFESTS, ids=lambda each: getattr(each, "name", ""))
def test_a_manifest_is_one_of_kubernetes(path: Path, manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "orders-pipeline", path.name


def pods() -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for _, each in MANIFESTS
        if "template" in each.get("spec", {})
    }


@pytest.mark.parametrize("name", pods())
def test_a_pod_starts_a_command_without_rights_that_it_does_not_need(name: str) -> None:
    pod = pods()[name]
    (container,) = pod["containers"]
    parse(container["args"])
    rights = container["securityContext"]
    assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False)
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    makes_jobs = name in ("orders-daemon", "orders-web")
    assert pod["automountServiceAccountToken"] is makes_jobs
    assert pod["serviceAccountName"] == ("orders-pipeline" if makes_jobs else "orders-pipeline-run")


def test_what_a_run_is_given_in_kubernetes_is_made_by_the_manifests() -> None:
    made = {(each["kind"], each["metadata"]["name"]) for _, each in MANIFESTS}
    settings = next(
        each for _, each in MANIFESTS if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "orders-pipeline"
    )
    assert {name for name in settings["data"] if name.startswith(PREFIX)} <= SETTINGS
    secret = next(each for _, each in MANIFESTS if each["kind"] == "Secret")
    assert set(secret["stringData"]) <= SETTINGS
    run = yaml.safe_load(kubernetes_jobs.launcher_config(Settings(kubernetes_image="x", run_launcher="kubernetes")))[
        "config"
    ]
    assert ("ServiceAccount", run["service_account_name"]) in made
    assert {("ConfigMap", name) for name in run["env_config_maps"]} | {
        ("Secret", name) for name in run["env_secrets"]
    } <= made
    assert next(each for _, each in MANIFESTS if each["metadata"]["name"] == "orders-daemon")["spec"]["replicas"] == 1


def test_the_image_has_every_package_by_its_hash() -> None:
    locked = (DEPLOYMENT / "requirements.txt").read_text("utf-8")
    pinned = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", locked, re.MULTILINE)
    }
    assert len(re.findall(r"--hash=sha256:", locked)) >= len(pinned)
    for line in requires("orders-pipeline") or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": each}) for each in ("celery", "kubernetes")
        ):
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, line

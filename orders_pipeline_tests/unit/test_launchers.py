"""Launchers for many hosts: what dagster.yaml says of each, and what they tell the broker and the API server."""

from __future__ import annotations

import contextlib
import json
import multiprocessing.forkserver
import ssl
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from celery import Celery
from click.testing import CliRunner
from dagster import DagsterRunStatus, QueuedRunCoordinator
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import instance_for_test
from dagster._daemon.controller import create_daemon_of_type
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._serdes import ConfigurableClassData
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config
from dagster_postgres import DagsterPostgresStorage
from pydantic import SecretStr

from orders_pipeline.batches.run_tags import LARGE_BYTES, tags_of
from orders_pipeline.cli import main
from orders_pipeline.infrastructure import database_url
from orders_pipeline.orchestration import celery_launcher, dagster_home, run_process, run_queue
from orders_pipeline.orchestration.celery_launcher import BrokerUnavailable, CeleryLauncher, connection, require_broker
from orders_pipeline.orchestration.celery_worker import new_app
from orders_pipeline.orchestration.dagster_records import RecordsBySettings
from orders_pipeline.orchestration.run_launcher import ForkingRunLauncher
from orders_pipeline.orchestration.run_queue import RunQueue
from orders_pipeline.system.session_limit import DAEMON_POOL_SIZE
from orders_pipeline.system.settings import Settings, SettingsError
from orders_pipeline_tests.support.generated_pages import DOCS
from orders_pipeline_tests.support.kubernetes_api import write_kubeconfig

PASSWORD = "planted"
CELERY = Settings(run_launcher="celery", celery_broker=SecretStr(f"amqp://orders:{PASSWORD}@127.0.0.1:9//"))


def settings_of(launcher: Any, **more: Any) -> Settings:
    return Settings(run_launcher=launcher, celery_broker=CELERY.celery_broker, kubernetes_image="image:1", **more)


def written(folder: Path, text: str) -> InstanceRef:
    (folder / "dagster.yaml").write_text(text)
    return InstanceRef.from_dir(str(folder))


@pytest.mark.parametrize(
    ("launcher", "kind", "start_timeout_s"),
    [("fork", ForkingRunLauncher, 120), ("celery", CeleryLauncher, 600), ("kubernetes", K8sRunLauncher, 600)],
)
def test_dagster_yaml_of_each_launcher_loads_and_is_known_again(
    launcher: str,
    kind: type,
    start_timeout_s: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kubeconfig: Path,
) -> None:
    monkeypatch.setattr(celery_launcher, "load_settings", lambda: CELERY)
    text = dagster_home.new_config(settings_of(launcher, max_concurrent_runs=200))
    ref = written(tmp_path, text)
    assert ref.run_launcher_data is not None
    assert type(ref.run_launcher_data.rehydrate(as_type=kind)) is kind
    assert ref.settings["run_monitoring"]["start_timeout_seconds"] == start_timeout_s
    assert ref.settings["concurrency"]["runs"]["max_concurrent_runs"] == 200
    assert dagster_home._is_ours(text)
    for changed in (text.replace("200", "300", 1), text.replace("limit: 199", "limit: 5"), f"{text}# mine\n"):
        assert not dagster_home._is_ours(changed)
    assert PASSWORD not in text


@pytest.mark.parametrize("name", ["docker", "ecs"])
def test_the_examples_for_containers_differ_from_what_is_written_in_the_launcher_alone(name: str, tmp_path: Path) -> None:
    text = (DOCS / f"dagster.{name}.yaml").read_text("utf-8")
    assert written(tmp_path, text).run_launcher_data is not None
    example, ours = (yaml.safe_load(each) for each in (text, dagster_home.new_config(settings_of("celery"))))
    assert [key for key in ours | example if ours.get(key) != example.get(key)] == ["run_launcher"]


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster outside of which we are."""
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, "http://127.0.0.1:9")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


def starting(instance: dg.DagsterInstance, **tags: str) -> dg.DagsterRun:
    """Return a run that a launcher is to start."""
    job = dg.GraphDefinition("process_batch").to_job()
    return instance.create_run_for_job(job_def=job, status=DagsterRunStatus.STARTING, tags=tags)


@pytest.fixture
def instance() -> Any:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def launcher_of(instance: dg.DagsterInstance) -> CeleryLauncher:
    launcher = CeleryLauncher(default_queue=celery_launcher.QUEUE, **connection(CELERY))
    launcher.register_instance(instance)
    return launcher


def test_a_message_to_the_broker_holds_the_runs_id_and_nothing_else(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def send_task(_: Celery, name: str, args: Any, kwargs: Any, **options: Any) -> Any:
        told.append({"name": name, "args": args, "kwargs": kwargs} | options)
        return SimpleNamespace(task_id="t")

    monkeypatch.setattr(Celery, "send_task", send_task)
    run = starting(instance, **tags_of("acme", 1, "celery"))
    launcher_of(instance).launch_run(LaunchRunContext(run, None))
    (message,) = told
    assert (message["name"], message["args"], message["kwargs"]) == ("orders_pipeline.run", (run.run_id,), {})
    assert (message["queue"], message["priority"]) == ("dagster", 1)
    assert PASSWORD not in repr(message)


def test_a_broker_that_does_not_answer_is_said_with_its_place_and_no_password() -> None:
    with pytest.raises(BrokerUnavailable) as refused:
        require_broker(CELERY)
    assert PASSWORD not in str(refused.value)
    assert refused.value.__suppress_context__
    assert str(refused.value).endswith("does not answer (host 127.0.0.1, port 9)")


@pytest.mark.parametrize(
    ("meanwhile", "is_queued"),
    [
        (lambda instance, run: None, True),
        (lambda instance, run: instance.report_run_canceling(run), False),
    ],
)
def test_a_run_that_the_broker_does_not_take_waits_unless_somebody_has_canceled_it(
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    meanwhile: Any,
    is_queued: bool,
) -> None:
    monkeypatch.setattr(celery_launcher, "load_settings", lambda: CELERY)
    monkeypatch.setattr(celery_launcher, "POLL_S", 0.2)
    monkeypatch.setattr(celery_launcher, "PATIENCE_S", 3.0)
    run = starting(instance)
    meanwhile(instance, run)
    events: list[str] = []
    monkeypatch.setattr(instance, "report_dagster_event", lambda event, *_, **__: events.append(event.event_type_value))
    launcher_of(instance).launch_run(LaunchRunContext(run, None))
    assert ("PIPELINE_ENQUEUED" in events) is is_queued
    assert "E_BROKER: the broker of ORDERS_CELERY_BROKER does not answer (host 127.0.0.1, port 9); runs wait" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_run_is_taken_by_a_broker_that_is_back(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_launcher, "POLL_S", 0.2)
    answers = iter([BrokerUnavailable, BrokerUnavailable, None])
    sent: list[str] = []

    def require(_: Settings) -> None:
        if (answer := next(answers)) is not None:
            raise answer("is away")

    def send_task(_: Celery, name: str, *__: Any, **___: Any) -> Any:
        sent.append(name)
        if len(sent) == 1:
            raise OSError
        return SimpleNamespace(task_id="t")

    monkeypatch.setattr(celery_launcher, "load_settings", lambda: CELERY)
    monkeypatch.setattr(celery_launcher, "require_broker", require)
    monkeypatch.setattr(Celery, "send_task", send_task)
    run = starting(instance)
    launcher_of(instance).launch_run(LaunchRunContext(run, None))
    assert (len(sent), next(answers, "asked no more")) == (2, "asked no more")


def test_canceling_a_run_asks_the_run_and_revokes_nothing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Celery, "control", None)  # whatever would be revoked, goes through it
    launcher, run = launcher_of(instance), starting(instance)
    assert launcher.terminate(run.run_id)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is DagsterRunStatus.CANCELING
    instance.report_run_canceled(found)
    assert not launcher.terminate(run.run_id)
    assert not launcher.terminate("no-such-run")
    assert not launcher.supports_check_run_worker_health
    assert not launcher.supports_resume_run


def test_a_worker_knows_one_task_and_takes_no_remote_control() -> None:
    app = new_app(CELERY)
    assert list(app.tasks) == ["orders_pipeline.run"]
    conf = app.conf
    assert (conf.task_acks_late, conf.worker_prefetch_multiplier, conf.worker_enable_remote_control) == (True, 1, False)
    assert (conf.result_backend, conf.accept_content, conf.broker_use_ssl) == (None, ("json",), None)


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("amqps", {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": "ca.pem", "server_hostname": None}),  # the URL's name
        ("rediss", {"ssl_cert_reqs": "required", "ssl_ca_certs": "ca.pem", "ssl_check_hostname": True}),
        ("redis", None),
    ],
)
def test_a_private_broker_proves_its_name(scheme: str, options: dict[str, Any] | None) -> None:
    settings = Settings(celery_broker=SecretStr(f"{scheme}://host"), ca_file=Path("ca.pem"))
    assert connection(settings)["config_source"]["broker_use_ssl"] == options


def test_the_broker_is_the_one_that_is_set_whatever_variables_of_celerys_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND"):
        monkeypatch.setenv(f"CELERY_{name}", "redis://elsewhere:1/0")
    app = new_app(CELERY)
    with app.connection_for_read() as read, app.connection_for_write() as write:
        assert {each.as_uri() for each in (read, write)} == {"amqp://orders:**@127.0.0.1:9//"}
    assert app.conf.result_backend is None


def test_dagsters_daemon_waits_for_its_lock_and_is_ready_before_there_is_a_run_and_nobody_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    lock = SimpleNamespace(take=lambda: started.append("lock"), require=None, release=lambda: started.append("end"))
    monkeypatch.setattr(multiprocessing.forkserver, "ensure_running", lambda: started.append("fork server"))
    monkeypatch.setattr(run_queue, "keep_connections", lambda _, size, __: started.append(f"{size} connections"))
    monkeypatch.setattr(run_queue, "keep_short", lambda: started.append("log"))
    monkeypatch.setattr(run_queue, "records_database", lambda _: SimpleNamespace())
    monkeypatch.setattr(run_queue, "DaemonLock", lambda _: lock)
    queue, launcher = ({"module": each.__module__, "class": each.__name__} for each in (RunQueue, ForkingRunLauncher))
    with instance_for_test(overrides={"run_coordinator": queue, "run_launcher": launcher}) as instance:
        assert isinstance(instance.run_coordinator, RunQueue)
        assert isinstance(instance.run_launcher, ForkingRunLauncher)
        assert started == []
        create_daemon_of_type(QueuedRunCoordinatorDaemon.daemon_type(), instance)
        assert started == ["log", "lock", f"{DAEMON_POOL_SIZE} connections", "fork server"]
    assert started[4:] == ["end"]


def test_a_run_in_place_of_a_failed_one_is_before_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueuedRunCoordinator, "submit_run", lambda _, context: context.dagster_run)
    queue = {"module": RunQueue.__module__, "class": RunQueue.__name__}
    with instance_for_test(overrides={"run_coordinator": queue}) as instance:
        small = tags_of("acme", 10)
        first = instance.create_run_for_job(job_def=a_job, tags=small)
        again = instance.create_run_for_job(job_def=a_job, tags=small, parent_run_id=first.run_id, root_run_id=first.run_id)
        for run in (first, again):
            instance.run_coordinator.submit_run(SubmitRunContext(run, None))  # type: ignore[arg-type]
        found = [instance.get_run_by_id(run.run_id) for run in (first, again)]
    assert [run.tags["dagster/priority"] for run in found if run is not None] == ["1", "2"]


def test_a_run_that_another_process_has_begun_is_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_process, "core_execute_run", lambda *_, **__: pytest.fail("it was begun anew"))
    monkeypatch.setattr(run_process, "keep_connections", lambda _: None)
    monkeypatch.setattr(run_process, "ends_with_up", lambda: True)
    monkeypatch.setattr(run_process, "keep_single", lambda: None)
    job = dg.reconstructable(a_job)
    run = instance.create_run_for_job(
        job_def=job.get_definition(), job_code_origin=job.get_python_origin(), status=DagsterRunStatus.STARTED
    )
    for run_id in (run.run_id, "no-such-run"):
        run_process.execute(partial(contextlib.nullcontext, instance), run_id)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is DagsterRunStatus.STARTED


@dg.job
def a_job() -> None:
    """Do nothing."""


def test_a_job_of_kubernetes_names_secrets_and_holds_none(tmp_path: Path, kubeconfig: Path) -> None:
    ref = written(tmp_path, dagster_home.new_config(settings_of("kubernetes")))
    assert ref.run_launcher_data is not None
    launcher = ref.run_launcher_data.rehydrate(as_type=K8sRunLauncher)
    tags = tags_of("acme", 500 << 20, "kubernetes")
    config = get_user_defined_k8s_config(tags)
    with dg.DagsterInstance.ephemeral() as instance:
        context = launcher.get_container_context_for_run(starting(instance, **tags))
    job = construct_dagster_k8s_job(context.get_k8s_job_config(None, launcher), [], "j", context.run_k8s_config).to_dict()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert [each["secret_ref"] or each["config_map_ref"] for each in container["env_from"]] == 2 * [
        {"name": "orders-pipeline", "optional": None}
    ]
    assert container["resources"]["limits"]["memory"] == "1730Mi"  # 480, and two and a half times the file
    assert config.container_config["resources"]["requests"]["memory"] == "1730Mi"
    assert (job["spec"]["backoff_limit"], job["spec"]["ttl_seconds_after_finished"]) == (0, 3600)
    assert PASSWORD not in json.dumps(job, default=str)


@pytest.mark.parametrize(
    ("launcher", "size", "more"),
    [
        ("fork", 1, {"dagster/priority": "1"}),
        ("celery", 1, {"dagster/priority": "1", "dagster-celery/run_priority": "1"}),
        ("celery", LARGE_BYTES + 1, {"orders/size": "large"}),
        ("kubernetes", 1, {"dagster/priority": "1"}),
    ],
)
def test_a_launcher_is_told_what_it_can_use(launcher: str, size: int, more: dict[str, str]) -> None:
    assert tags_of("acme", size, launcher) == {"orders/client": "acme"} | more


@pytest.mark.parametrize("command", ["daemon", "web"])
def test_what_outlives_no_up_is_not_started_by_itself(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_HOME", str(tmp_path / "home"))
    refused = CliRunner().invoke(main, [command])
    assert refused.exit_code == 2
    assert "set ORDERS_DATABASE_URL, ORDERS_PAYMENT_URL, ORDERS_NOTIFICATION_URL" in refused.stderr
    assert not (tmp_path / "home").exists()


def test_a_worker_is_of_celery_alone() -> None:
    refused = CliRunner().invoke(main, ["worker"])
    assert (refused.exit_code, refused.stderr[:10]) == (2, "E_SETTINGS")
    assert "ORDERS_RUN_LAUNCHER is fork" in refused.stderr


def test_records_are_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(DagsterPostgresStorage, "__init__", lambda _, url, **__: opened.append(url))
    data = ConfigurableClassData("orders_pipeline.orchestration.dagster_records", "RecordsBySettings", "{}")
    for url in ("", "postgresql://orders:planted@db/orders"):
        monkeypatch.setenv("ORDERS_DATABASE_URL", url)
        with contextlib.nullcontext() if url else pytest.raises(SettingsError, match="ORDERS_DATABASE_URL is not set"):
            data.rehydrate(as_type=RecordsBySettings)
    watched = "%20".join(f"-c{name}%3D{value}" for name, value in {"search_path": "dagster", **database_url.WATCHED}.items())
    assert opened == [f"postgresql+psycopg2://orders:planted@db/orders?options={watched}"]

"""C30: runs as Jobs of Kubernetes, of which a pod is lost and a run is canceled; the API server is ours."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from dagster_k8s import K8sRunLauncher

from orders_pipeline_tests.support.commands import call, wait_for
from orders_pipeline_tests.support.hosts import Hosts, open_hosts
from orders_pipeline_tests.support.installation import check_books, check_finished
from orders_pipeline_tests.support.kubernetes_api import ApiServer, Job, open_api_server, write_kubeconfig

PATIENCE_S = 120.0
QUIET_S = 4.0  # in which a run that goes on would have sent something
TOKEN = "planted-token"


@dataclass(frozen=True)
class Cluster:
    """A daemon, and the API server that it asks for Jobs."""

    hosts: Hosts
    api: ApiServer
    kubeconfig: Path

    def job_of(self, run_id: str) -> Job:
        return self.api.jobs[f"dagster-run-{run_id}"]


@pytest.fixture(scope="module")
def cluster(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    kubeconfig = folder / "kubeconfig"
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("KUBECONFIG", str(kubeconfig))
        environment.setenv("NO_PROXY", "127.0.0.1")  # its client asks the environment, which leads nowhere
        api = stack.enter_context(open_api_server(folder / "api"))
        write_kubeconfig(kubeconfig, api.url)
        told = {
            "ORDERS_RUN_LAUNCHER": "kubernetes",
            "ORDERS_KUBERNETES_IMAGE": "orders:1",
            "ORDERS_PAYMENT_TOKEN": TOKEN,
            "ORDERS_MAX_CONCURRENT_RUNS": "2",
        }
        hosts = stack.enter_context(open_hosts(server_url, template, folder, **told))
        api.secret = hosts.environment("pod")
        stack.enter_context(hosts.running("daemon", "daemon"))
        yield Cluster(hosts, api, kubeconfig)


def test_c30_a_run_that_is_canceled_ends_in_its_pod_and_nothing_is_sent_any_more(cluster: Cluster) -> None:
    hosts = cluster.hosts
    hosts.installation.sandbox.change(latency_ms=400)
    batch_id = hosts.drop("canceled", 80)
    wait_for(lambda: hosts.paid(batch_id) >= 2, "payments", PATIENCE_S)
    ((run_id, _),) = hosts.runs(batch_id)
    launcher = K8sRunLauncher(
        service_account_name="x",
        instance_config_map="x",
        dagster_home="/x",
        load_incluster_config=False,
        kubeconfig_file=str(cluster.kubeconfig),
    )
    launcher.register_instance(hosts.installation.instance)
    assert launcher.terminate(run_id)
    wait_for(lambda: hosts.runs(batch_id) == [(run_id, DagsterRunStatus.CANCELED.value)], "the run's end", 30)
    known = hosts.installation.sandbox.ledger(batch_id)
    time.sleep(QUIET_S)
    assert hosts.installation.sandbox.ledger(batch_id) == known
    assert check_books(hosts.installation, batch_id)["status"] == "stopped"


def test_c30_a_lost_pod_is_followed_by_another_and_nobody_is_charged_twice(cluster: Cluster) -> None:
    hosts, sandbox = cluster.hosts, cluster.hosts.installation.sandbox
    sandbox.change(latency_ms=400)
    batch_id = hosts.drop("lost", 60)
    wait_for(lambda: hosts.paid(batch_id) >= 2, "payments", PATIENCE_S)
    ((first_run, _),) = hosts.runs(batch_id)
    cluster.job_of(first_run).lose()
    assert hosts.paid(batch_id) < 60
    wait_for(lambda: len(hosts.runs(batch_id)) == 2, "another run", PATIENCE_S)
    sandbox.change(latency_ms=0)
    wait_for(lambda: hosts.status(batch_id) == "completed", "the batch's end", PATIENCE_S)
    assert check_finished(hosts.installation, batch_id)["orders"]["paid"] == 60
    wait_for(lambda: [status for _, status in hosts.runs(batch_id)] == ["FAILURE", "SUCCESS"], "the other run's end", 30)


def test_c30_a_jobs_arguments_hold_no_secret_and_the_role_is_enough(cluster: Cluster) -> None:
    hosts, api = cluster.hosts, cluster.api
    assert len(api.jobs) >= 3
    secrets = [TOKEN, hosts.shared["ORDERS_ENCRYPTION_KEYS"], hosts.installation.database_url]
    for job in api.jobs.values():
        text = json.dumps(job.manifest)
        assert not [secret for secret in secrets if secret in text]
        assert not (job.home / "nothing").exists()
    well = call(hosts.environment("daemon"), "doctor", "--json")
    assert "the API server shows Jobs in default" in well.stdout
    assert api.refused == []

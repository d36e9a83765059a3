"""Runs as Jobs of Kubernetes: what dagster.yaml says of them to Dagster's own launcher, and whether its API server answers.

Nothing here is set but the image: a Job is in the daemon's namespace, and has the ConfigMap and Secret `orders-pipeline`
as its environment. Whoever wants it otherwise edits dagster.yaml.
"""

from __future__ import annotations

from pathlib import Path

from orders_pipeline.system.settings import Settings

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # there in every pod
CONFIG = """\
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    load_incluster_config: {is_in_cluster}
    job_namespace: {namespace}
    job_image: {image}
    service_account_name: orders-pipeline-run
    env_config_maps: [orders-pipeline]
    env_secrets: [orders-pipeline]
    dagster_home: {dagster_home}
    # this name is asked for and not used: a Job is told where Dagster's records are
    instance_config_map: orders-pipeline
    labels: {{app.kubernetes.io/part-of: orders-pipeline}}
    volumes:
      - {{name: tmp, emptyDir: {{}}}}
      - {{name: files, configMap: {{name: orders-pipeline-files, optional: true}}}}
    volume_mounts:
      - {{name: tmp, mountPath: /tmp}}
      - {{name: files, mountPath: /etc/orders-pipeline, readOnly: true}}
    resources: {{requests: {{cpu: 500m, memory: 768Mi}}, limits: {{memory: 1536Mi}}}}
    security_context:
      {{runAsNonRoot: true, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
    run_k8s_config:
      pod_spec_config: {{terminationGracePeriodSeconds: 120}}
      job_spec_config: {{ttlSecondsAfterFinished: 3600, backoffLimit: 0}}"""
ANSWER_S = 10


class ApiServerUnavailable(Exception):
    """Kubernetes' API server does not answer, or lets us see no Jobs."""

    code = "E_KUBERNETES"


def launcher_config(settings: Settings) -> str:
    """Return what dagster.yaml says of the launcher."""
    return CONFIG.format(
        is_in_cluster=str(NAMESPACE.exists()).lower(),
        namespace=_namespace(),
        image=settings.kubernetes_image,
        dagster_home=settings.dagster_home,
    )


def require_api_server() -> str:
    """Return where Jobs are seen; raise ApiServerUnavailable."""
    from dagster_k8s.utils import load_kubernetes_config  # noqa: PLC0415 - not installed on one host alone
    from kubernetes import client  # noqa: PLC0415 - as above

    try:
        load_kubernetes_config(load_incluster_config=NAMESPACE.exists())
        client.BatchV1Api().list_namespaced_job(_namespace(), limit=1, _request_timeout=ANSWER_S)
    except Exception as error:  # noqa: BLE001 - whatever its client finds wrong
        status = getattr(error, "status", None)
        why = f"answers with {status}" if status else "does not answer"
        raise ApiServerUnavailable(f"the API server {why} when it is asked for Jobs in {_namespace()}") from None
    return f"the API server shows Jobs in {_namespace()}"


def _namespace() -> str:
    return NAMESPACE.read_text("utf-8").strip() if NAMESPACE.exists() else "default"

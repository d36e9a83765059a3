"""A client of one of Amazon's services: time limits, tries, and nothing that comes from elsewhere than the settings.

What is asked of a service, and what its errors mean, belongs to who asks. boto3 is imported when it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 10


def aws_client(
    service: str,
    endpoint_url: str | None,
    ca_file: Path | None,
    *,
    tries: int,
    read_timeout_s: int = READ_TIMEOUT_S,
    **options: Any,  # noqa: ANN401 - whatever botocore's Config takes
) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
    """Return a client of a service, at its own address or the one given, that trusts the usual authorities or one file."""
    import boto3  # noqa: PLC0415 - slow, and most do without
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": tries},
        proxies={},  # not those of the environment: the endpoint comes from the settings alone
        ignore_configured_endpoint_urls=True,
        **options,
    )
    verify = None if ca_file is None else str(ca_file)
    return boto3.session.Session().client(service, endpoint_url=endpoint_url, config=config, verify=verify)

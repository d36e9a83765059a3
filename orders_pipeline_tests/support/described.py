"""A server held against an OpenAPI description by a program that guesses what to ask from it alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "ignored_auth",
)
TIMEOUT_S = 3600


def assert_as_described(
    folder: Path,
    document: Mapping[str, Any],
    url: str,
    token: str,
    phases: str,
    examples: int,
    *options: str,
    checks: str = "",
) -> None:
    """Fail unless whatever is asked is answered as described; phases, options and further checks are schemathesis's."""
    (folder / "openapi.json").write_text(json.dumps(document))
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", f"--url={url}"),
            *(f"--header=Authorization: Bearer {token}", f"--checks={','.join([*CHECKS, *checks.split()])}"),
            *(f"--phases={phases}", f"--max-examples={examples}", "--seed=1", "--generation-database=none"),
            *("--continue-on-failure", "--request-timeout=30", "--no-color", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr

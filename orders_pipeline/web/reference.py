"""What a client's program can look up: its own limits and columns, all codes, an empty file, the API's own description."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.intake.file_staging import limits_of
from orders_pipeline.records.normalise import unnumbered
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import CODES, message
from orders_pipeline.web.calls import Call, conditional
from orders_pipeline.web.files import attachment
from orders_pipeline.web.problems import KINDS, Problem, language_of

OPENAPI = "openapi.yaml"


def show_profile(call: Call) -> Response:
    """Answer with the limits and columns of this client."""
    call.parameters(())
    profile = call.system.clients.profile(call.caller.client_code)
    limits = limits_of(call.system.settings, profile)
    headers: dict[str, list[str]] = {}
    for header, column in profile.header_names().items():
        headers.setdefault(column, []).append(unnumbered(header))
    required = profile.required_columns()
    body = {
        "client_code": call.caller.client_code,
        "name": profile.name,
        "max_bytes": limits.max_bytes,
        "max_rows": limits.max_rows,
        "delimiter": profile.delimiter,
        "encoding": profile.encoding,
        "sheet": profile.sheet,
        "same_bytes": profile.same_bytes,
        "bad_rows": profile.bad_rows,
        "lines": profile.lines,
        "approval": profile.approval,
        "approval_above": profile.approval_above,
        "notify_channel": profile.notify_channel,
        "payments": profile.payments,
        "notifications": profile.notifications,
        "columns": [
            {"name": name, "required": name in required, "headers": headers.get(name, [])} for name in ORDERS.column_names
        ],
    }
    return conditional(call.request, body, {})


def show_codes(call: Call) -> Response:
    """Answer with every code and its sentence, in both languages or in one."""
    wanted = call.parameters(("lang",)).get("lang")
    if wanted not in (None, "ja", "en"):
        raise Problem("malformed-request")
    codes = [
        {"code": code}
        | ({"en": message(code, "en")} if wanted != "ja" else {})
        | ({"ja": message(code, "ja")} if wanted != "en" else {})
        for code in CODES
    ]
    return conditional(call.request, {"items": codes}, {})


def give_template(call: Call) -> Response:
    """Answer with an empty order file."""
    from orders_pipeline.samples.synthetic import write_template  # noqa: PLC0415 - its names take long to import

    call.parameters(())
    with scratch_files() as folder:
        write_template(folder / "template.csv")
        content = (folder / "template.csv").read_bytes()
    return Response(content, media_type="text/csv", headers=attachment("orders.csv"))


def show_problem(request: Request) -> Response:
    """Answer with what a problem means."""
    kind = KINDS.get(request.path_params["slug"])
    if kind is None:
        raise Problem("not-found")
    return PlainTextResponse(kind.title(language_of(request.headers.get("accept-language", ""))) + "\n")


def show_openapi(_: Request) -> Response:
    """Answer with the description of the API."""
    return Response((resources.files("orders_pipeline.web") / OPENAPI).read_bytes(), media_type="application/yaml")

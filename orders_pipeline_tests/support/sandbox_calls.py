"""Calls of the sandbox's services as the contract has them, and what a problem must look like."""

from __future__ import annotations

from types import SimpleNamespace

import requests

from orders_pipeline.sandbox import SandboxServer

LOST = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout)


def payment(number: int = 1, *, orders: tuple[int, ...] | None = None, **changes) -> dict:
    orders = (number,) if orders is None else orders
    return {
        "amount": 100 * len(orders),
        "currency": "JPY",
        "customer_code": f"C-{number}",
        "reference": f"ref-{number}",
        "payment_method": {"type": "invoice"},
        "allocations": [{"order_id": order, "amount": 100} for order in orders],
        "metadata": {"batch_id": "b-1"},
        **changes,
    }


def notification(number: int = 1, **changes) -> dict:
    return {
        "template_id": "order-paid",
        "channel": "email",
        "recipient": {"customer_code": f"C-{number}", "address": f"customer{number}@example.com"},
        "locale": "ja-JP",
        "variables": {"name": "x"},
        "order_ids": [number],
        "dedupe_key": f"d-{number}",
        "metadata": {"batch_id": "b-1"},
        **changes,
    }


def post(server: SandboxServer, path: str, body, key: str | None = None, **kwargs) -> requests.Response:
    headers = {"Idempotency-Key": key} if key else {}
    kwargs["headers"] = headers | kwargs.get("headers", {})
    kwargs.setdefault("timeout", 10)
    return requests.post(server.url + path, json=body, allow_redirects=False, **kwargs)


def pay(server: SandboxServer, number: int = 1, key: str | None = None, body: dict | None = None, **kwargs):
    return post(server, "/v1/payments", body or payment(number), key or f"k-{number}", **kwargs)


def notify(server: SandboxServer, number: int = 1, key: str | None = None, body: dict | None = None, **kwargs):
    return post(server, "/v1/notifications", body or notification(number), key or f"n-{number}", **kwargs)


def get(server: SandboxServer, path: str, **params) -> requests.Response:
    return requests.get(server.url + path, params=params, timeout=10)


def assert_problem(response: requests.Response, status: int, slug: str) -> dict:
    body = response.json()
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert body["type"].endswith("/" + slug)
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert {"title", "code", "retryable"} <= body.keys()
    return body


def attempt(server: SandboxServer, number: int, timeout: float = 2) -> SimpleNamespace:
    """A try to pay, as a careless client sees it: lost, or a status with what it could read."""
    try:
        response = pay(server, number, timeout=timeout)
    except LOST:
        return SimpleNamespace(status=None, body=None)
    try:
        body = response.json()
    except ValueError:
        body = None
    return SimpleNamespace(status=response.status_code, body=body)

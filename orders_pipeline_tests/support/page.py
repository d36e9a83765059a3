"""The page as a browser meets it without scripts: signed in with a token, its forms sent as browsers send them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests

from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import PAGE, USUAL_SCOPES
from orders_pipeline.system.composition import System

TIMEOUT_S = 60
OWN = {"Sec-Fetch-Site": "same-origin"}


class Browser:
    """A browser of somebody who has signed in, if it was told with what."""

    def __init__(self, url: str, language: str = "en") -> None:
        self.url = url
        self._session = requests.Session()
        self._session.headers.update({"Accept-Language": language, "Accept": "text/html"})

    def get(self, path: str, **query: str) -> requests.Response:
        return self._session.get(f"{self.url}{path}", params=query, timeout=TIMEOUT_S)

    def post(self, path: str, headers: dict[str, str] | None = None, **more: Any) -> requests.Response:
        given = OWN if headers is None else headers
        return self._session.post(f"{self.url}{path}", headers=given, timeout=TIMEOUT_S, allow_redirects=False, **more)

    def sign_in(self, token: str, **more: str) -> requests.Response:
        return self.post("/sign-in", data={"token": token, **more})

    @property
    def cookies(self) -> Any:
        return self._session.cookies


def page_token(system: System, client_code: str | None, scopes: Sequence[str] = USUAL_SCOPES) -> str:
    """Return a token that a person of a client, or without one an operator, signs in with."""
    own = ("operator",) if client_code is None else tuple(scopes)
    return api_tokens.new(system.database, client_code, "a desk", (*own, PAGE), 30, "a test").text


def signed_in(
    system: System, url: str, client_code: str | None, scopes: Sequence[str] = USUAL_SCOPES, language: str = "en"
) -> Browser:
    browser = Browser(url, language)
    assert browser.sign_in(page_token(system, client_code, scopes)).status_code == 303
    return browser

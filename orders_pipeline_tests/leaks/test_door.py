"""S01, S11 at the API and the page: values planted in all that is sent there, and all that it said and wrote is read."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import OPERATOR, PAGE, REFUND, USUAL_SCOPES
from orders_pipeline_tests.leaks.detector import files_below, traces
from orders_pipeline_tests.leaks.planted import IN_CLEAR, PlantedHouse, open_planted_installation, planted_file
from orders_pipeline_tests.leaks.test_whole_pipeline import OF_THE_CLIENT, dump, names
from orders_pipeline_tests.support.api import TIMEOUT_S, Client, exchanged, served
from orders_pipeline_tests.support.page import OWN, Browser

LAST_WORDS = "this is the end of the log"
KEPT = {"reason"}  # with a refund: whoever asks for one says why, to the service as well
PLACES = {"page", "next"}  # where the page's own links lead back to
SHOWN = IN_CLEAR | {"file name", "header"}


@dataclass
class Door:
    """An installation at whose door everything was tried, and what was said there."""

    house: PlantedHouse
    secrets: list[str] = field(default_factory=list)  # tokens and cookies
    log: str = ""
    problems: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)  # by path

    def heard(self, answer: requests.Response) -> requests.Response:
        text = answer.text + json.dumps(dict(answer.headers), ensure_ascii=False)
        if answer.status_code >= 400 and "html" not in answer.headers["Content-Type"]:
            self.problems.append(text)
        else:
            path = urlsplit(answer.url).path
            self.answers[path] = self.answers.get(path, "") + text
        return answer


@pytest.fixture(scope="module")
def door(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder, log = tmp_path_factory.mktemp("door"), io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    handler.addFilter(lambda record: not record.name.startswith("urllib3"))  # who sends, in this process too
    level = root.level
    with open_planted_installation(server_url, template, folder) as house:
        tried = Door(house)
        body = planted_file(house.canaries, folder, "sent")
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            with served(house.installation.system) as url, contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
                _by_programs(tried, url, body)
                _by_browsers(tried, url, body)
                _by_strangers(tried, url)
            logging.getLogger("end").debug(LAST_WORDS)
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
        tried.log = log.getvalue()
        yield tried


def _token(door: Door, scopes: tuple[str, ...], client_code: str | None = "shop") -> str:
    text = api_tokens.new(door.house.installation.system.database, client_code, "a test", scopes, 30, "a test").text
    door.secrets.append(text.rpartition("_")[2] if text.count("_") == 2 else text[13:])
    return text


def _by_programs(door: Door, url: str, body: Path) -> None:
    plant, installation = door.house.canaries.plant, door.house.installation
    agent = {"User-Agent": plant("agent"), "Referer": f"https://{plant('referrer')}.example/"}
    client = Client(url, _token(door, (*USUAL_SCOPES, REFUND)), agent)
    content = body.read_bytes()
    door.heard(client.post("checks", content, key=None, name=body.name))
    batch_id = door.heard(client.post("batches", content, key=plant("key"), name=body.name)).json()["batch_id"]
    with requests.get(
        f"{url}/v1/batches/{batch_id}/events", headers=client._headers(None), stream=True, timeout=60
    ) as stream:
        door.answers["events"] = next(stream.iter_content(100_000)).decode()
    with _unheard():
        installation.work_off(batch_id)
    own = f"batches/{batch_id}"
    for path in ("batches", own, *(f"{own}/{each}" for each in ("orders", "payments", "notifications", "rejections"))):
        door.heard(client.get(path))
        for name in ("cursor", "status", "code", "limit", "name", "from", "unheard-of"):
            door.heard(client.get(path, **{name: plant(f"{path}: {name}")}))
    for path in ("profile", "codes", f"batches/{plant('path')}", f"{own}/files/{plant('path of a file')}", plant("route")):
        door.heard(client.get(path, headers={"Accept-Language": plant("language"), "If-None-Match": plant("etag")}))
    door.heard(client.get(f"{own}/events", headers={"Authorization": f"Bearer {plant('event token')}"}))
    for body_sent, media_type in (
        (f'{{"orders":[{{"amount":1.5,"{plant("member")}":"{plant("value")}"}}]}}', "application/json"),
        (f'[{{"{plant("nested")}":{{"{plant("nested name")}":1}}}}]', "application/json"),
        (f"{plant('no JSON')}", "application/x-ndjson"),
        (plant("no media type"), plant("media type", "text/{}")),
    ):
        for path in ("batches", "checks"):
            door.heard(client.post(path, body_sent.encode(), media_type=media_type))
    digest = {"Content-Digest": f"sha-256=:{plant('digest')}:"}
    door.heard(client.post("batches", b"x", headers=digest, name=plant("name", "../{}.csv")))
    door.heard(client.post("batches", b"x", headers=digest, name=plant("other name", "{}.csv")))
    door.heard(client.post(f"{own}/corrections", content, name=plant("correction", "{}.csv")))
    command: dict[str, Any] = {"reason": plant("reason")}
    plan = door.heard(client.post(f"{own}/refunds", json.dumps(command).encode())).json()["plan_digest"]
    for more in (
        {"confirm": plan},
        {"confirm": plant("confirm")},
        {plant("unknown member"): 1},
        {"orders": [plant("unknown order")]},
        {"orders": plant("orders")},
        {"reason": 1},
    ):
        door.heard(client.post(f"{own}/refunds", json.dumps(command | more).encode()))
    for path in ("cancel", "resume"):
        door.heard(client.post(f"{own}/{path}", plant("no body").encode()))
    with pytest.MonkeyPatch.context() as patch:
        for place in ("web.reference.limits_of", "web.batches.etag_of", "web.rows.message", "web.submission.preview_file"):
            patch.setattr(f"orders_pipeline.{place}", _failing(door.house.everything_planted()), raising=False)
        for path in ("profile", own, f"{own}/rejections"):
            door.heard(client.get(path))
        door.heard(client.post("checks", b"x", key=None))


def _failing(text: str) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(text)

    return fail


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Do what is not about the door: what its log may say is for `test_whole_pipeline.py`."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _by_browsers(door: Door, url: str, body: Path) -> None:
    plant = door.house.canaries.plant
    for client_code, scopes in (("shop", (*USUAL_SCOPES, REFUND, PAGE)), (None, (OPERATOR, PAGE))):
        browser = Browser(url)
        door.heard(browser.post("/sign-in", data={"token": plant(f"{client_code}: wrong token"), "next": "/history"}))
        door.heard(browser.sign_in(_token(door, scopes, client_code)))
        door.secrets += [str(cookie.value) for cookie in browser.cookies]
        rows = door.house.installation.rows("SELECT batch_id FROM batches ORDER BY received_at LIMIT 1")
        own = f"/b/{rows[0][0]}"
        for path in ("/", "/send", "/history", "/overview", own, f"{own}/fix", f"/b/{plant(f'{client_code}: page')}"):
            door.heard(browser.get(path, before=plant(f"{client_code}{path}: before"), code=plant(f"{path}: code")))
            door.heard(browser.get(path))
        query = {"name": body.name} | ({} if client_code else {"client": "shop"})
        for where in ("/check", f"{own}/edits"):
            door.heard(browser.post(where, OWN, params=query, data=body.read_bytes()))
            door.heard(browser.post(where, {"Origin": f"https://{plant(f'{where}: origin')}.example"}, data=b"x"))
        edits = {"edits": [{"row": 3, "cell": 1, "old": plant(f"{client_code}: old"), "new": plant(f"{client_code}: new")}]}
        for dry in ("true", "false"):
            key = {"Idempotency-Key": plant(f"{client_code}{dry}: page key")}
            door.heard(browser.post(f"{own}/edits", OWN | key, params={"dry_run": dry}, json=edits))
        door.heard(browser.get("/language/en", next=plant(f"{client_code}: next", "https://{}.example/")))
        door.heard(browser.post("/sign-out"))


def _by_strangers(door: Door, url: str) -> None:
    plant = door.house.canaries.plant
    for headers in (
        {"Authorization": f"Bearer {plant('bearer')}"},
        {"Authorization": f"Basic {plant('basic')}"},
        {"Cookie": f"orders={plant('cookie')}"},
        {"X-Forwarded-For": plant("address"), "X-Forwarded-User": plant("user")},
    ):
        for path in ("/v1/batches", f"/{plant('stranger path' + next(iter(headers)))}", "/history"):
            answer = requests.get(url + path, headers=headers, timeout=TIMEOUT_S, allow_redirects=False)
            door.heard(answer)
    for line in (f"GET /{plant('raw')}\xff HTTP/1.1", plant("no HTTP"), f"{plant('method')} / HTTP/1.1"):
        answer = exchanged(url, f"{line}\r\nHost: {plant('host' + line)}\r\nX: \0\r\n\r\n".encode("latin-1"))
        assert answer is not None
        door.heard(answer)


def test_s01_everything_was_tried(door: Door) -> None:
    assert len(door.problems) > 50
    assert LAST_WORDS in door.log
    statuses = {line.split()[2] for line in door.log.splitlines() if line.startswith(("GET /", "POST /"))}
    assert {"200", "202", "400", "401", "403", "404", "409", "422", "500"} <= statuses


def test_s01_the_log_of_the_door_has_nothing_that_was_sent(door: Door) -> None:
    assert names(door.house.canaries.found_in(door.log)) == set()
    assert traces(*(line for line in door.log.splitlines() if line.startswith(("GET", "POST", "-")))) == {}


def test_s01_no_problem_has_anything_that_was_sent_or_tells_of_the_inside(door: Door) -> None:
    assert names(door.house.canaries.found_in(*door.problems)) == set()
    assert {kind: text for kind, text in traces(*door.problems).items() if kind != "host"} == {}


def test_s01_answers_and_pages_show_what_names_nobody_and_to_who_corrects_them_rejected_rows(door: Door) -> None:
    for path, text in door.answers.items():
        found = door.house.canaries.found_in(text)
        if path.endswith("/fix"):
            assert not {name for name in found if "payment_token" in name or " good: " in name}, path
        else:
            assert names(found) <= SHOWN | PLACES, path


def test_s11_tokens_and_cookies_are_said_and_written_nowhere(door: Door) -> None:
    installation = door.house.installation
    places = [door.log, *door.problems, *dump(door.house, "public").values(), *dump(door.house, "dagster").values()]
    places += [data.decode("latin-1") for _, data in files_below(installation.home)]
    assert len(door.secrets) >= 5
    for secret in door.secrets:
        assert not [place[:200] for place in places if secret in place]


def test_s01_the_database_and_dagster_keep_only_what_names_nobody(door: Door) -> None:
    public, dagster = dump(door.house, "public"), dump(door.house, "dagster")
    assert names(door.house.canaries.found_in(*public.values())) <= SHOWN | KEPT
    assert names(door.house.canaries.found_in(public["audit_events"])) <= IN_CLEAR
    assert door.house.canaries.found_in(*dagster.values()) == set()


def test_s01_files_keep_no_planted_value_but_the_batches_own(door: Door) -> None:
    for name, data in files_below(door.house.installation.home):
        if Path(name).name not in OF_THE_CLIENT:
            assert names(door.house.canaries.found_in(data, name)) <= SHOWN | KEPT | {"home"}, name

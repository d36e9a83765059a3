"""Problems: every answer that is no success, as RFC 9457 has it, in Japanese or English.

Nothing in one is built from what was sent. Which error is which problem is decided where it is met, and for what nobody
meets in `boundary.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from starlette.responses import Response

from orders_pipeline.records.rejections import Language


@dataclass(frozen=True)
class Kind:
    """One kind of problem: its status, its title in two languages, and whether the same request may succeed later."""

    status: int
    english: str
    japanese: str
    retryable: bool = False

    def title(self, language: Language) -> str:
        """Return the title in a language."""
        return self.japanese if language == "ja" else self.english


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed-request": Kind(
            400,
            "A header, parameter or path is not as it must be.",
            "ヘッダー、パラメーターまたはパスの形式が正しくありません。",
        ),
        "malformed-json": Kind(400, "The body is not a JSON list of flat orders.", "本文を注文のJSONとして読み取れません。"),
        "malformed-command": Kind(
            400, "The body is not the JSON object that is taken here.", "本文がこの操作のJSONとして読み取れません。"
        ),
        "idempotency-key-missing": Kind(
            400,
            "Send an Idempotency-Key of 1 to 255 printable ASCII characters.",
            "Idempotency-Keyヘッダー(印字可能なASCII文字1〜255文字)が必要です。",
        ),
        "digest-mismatch": Kind(
            400, "The body is not the one that Content-Digest names.", "本文がContent-Digestの値と一致しません。"
        ),
        "unauthorized": Kind(401, "A valid token is needed.", "有効なトークンが必要です。"),
        "missing-scope": Kind(403, "The token does not allow this.", "このトークンでは許可されていない操作です。"),
        "foreign-page": Kind(
            403, "This was not asked for by a page of ours.", "このサイトのページからの操作ではありません。"
        ),
        "not-found": Kind(404, "There is nothing here.", "見つかりません。"),
        "no-such-file": Kind(404, "The batch has no such file.", "このバッチにそのファイルはありません。"),
        "method-not-allowed": Kind(405, "This is not done with this method.", "このメソッドは使えません。"),
        "too-slow": Kind(408, "The body did not arrive in time.", "本文が時間内に届きませんでした。", retryable=True),
        "request-in-progress": Kind(
            409,
            "A request with this Idempotency-Key is being worked on.",
            "同じIdempotency-Keyのリクエストを処理しています。",
            retryable=True,
        ),
        "duplicate-file": Kind(
            409, "A file with the same content was received already.", "同じ内容のファイルを受け付け済みです。"
        ),
        "not-cancellable": Kind(
            409, "The batch has ended and cannot be cancelled any more.", "このバッチは終了しているため中止できません。"
        ),
        "not-resumable": Kind(
            409,
            "The batch has ended, or is being cancelled, and cannot be resumed.",
            "このバッチは終了または中止されているため再開できません。",
        ),
        "not-awaiting-approval": Kind(409, "The batch does not wait for approval.", "このバッチは承認待ちではありません。"),
        "own-batch": Kind(
            409,
            "Somebody else than who sent the batch has to approve or refuse it.",
            "送信した本人は承認も却下もできません。",
        ),
        "being-paid": Kind(
            409,
            "The batch is being paid; refund it when that is over.",
            "このバッチは決済中です。終わってから返金してください。",
            retryable=True,
        ),
        "plan-changed": Kind(
            409,
            "Something else would be refunded now; ask for the plan again.",
            "返金の内容が変わりました。もう一度計画を確認してください。",
        ),
        "nothing-to-refund": Kind(
            409, "Nothing of these orders is left to refund.", "これらの注文に返金できるものはありません。"
        ),
        "cell-changed": Kind(409, "The rows have changed since they were shown.", "表示した後に行の内容が変わりました。"),
        "already-corrected": Kind(409, "These rows have been corrected already.", "修正済みの行が含まれています。"),
        "too-large": Kind(413, "The body is too large.", "本文が大きすぎます。"),
        "too-many-rows": Kind(413, "There are too many orders.", "注文の件数が上限を超えています。"),
        "unsupported-media-type": Kind(
            415,
            "Send CSV, XLSX, JSON or NDJSON, without Content-Encoding.",
            "CSV、XLSX、JSON、NDJSONのいずれかを、Content-Encodingを付けずに送ってください。",
        ),
        "idempotency-key-reused": Kind(
            422,
            "This Idempotency-Key belongs to another request.",
            "このIdempotency-Keyは別のリクエストで使われています。",
        ),
        "unknown-orders": Kind(422, "Some of the orders are not in this batch.", "このバッチにない注文が含まれています。"),
        "not-a-correction": Kind(
            422, "The file does not correct rows of this batch.", "このバッチの行を訂正するファイルではありません。"
        ),
        "not-encodable": Kind(
            422,
            "A character cannot be written in the encoding of the file.",
            "ファイルの文字コードで表せない文字が含まれています。",
        ),
        "rate-limited": Kind(429, "Too many requests.", "リクエストが多すぎます。", retryable=True),
        "internal": Kind(
            500,
            "Something unforeseen happened. With the same Idempotency-Key it is safe to repeat the request.",
            "予期しないエラーが発生しました。同じIdempotency-Keyで安全に再送できます。",
            retryable=True,
        ),
        "busy": Kind(503, "Too much is being received at the moment.", "ただいま混み合っています。", retryable=True),
        "paying-stopped": Kind(
            503,
            "Nothing is paid or refunded until an operator has compared the ledgers.",
            "台帳の照合が終わるまで、決済と返金を停止しています。",
            retryable=True,
        ),
        "database-unavailable": Kind(
            503, "The database cannot be used at the moment.", "データベースを一時的に利用できません。", retryable=True
        ),
        "storage-unavailable": Kind(
            503, "The storage cannot be used at the moment.", "ストレージを一時的に利用できません。", retryable=True
        ),
    }
)
RETRY_AFTER_S: Mapping[str, int] = MappingProxyType(
    {
        "being-paid": 10,
        "request-in-progress": 1,
        "rate-limited": 1,
        "busy": 5,
        "paying-stopped": 60,
        "database-unavailable": 5,
        "storage-unavailable": 5,
    }
)


class Problem(Exception):
    """An answer that is no success; `more` are further members, and hold nothing that was sent."""

    def __init__(
        self,
        slug: str,
        *,
        code: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] = MappingProxyType({}),
        **more: object,
    ) -> None:
        super().__init__(slug)
        self.slug = slug
        self.kind = KINDS[slug]
        self._code = code or slug
        self._errors = list(errors)
        self._more = more
        self._headers = dict(headers)

    def response(self, request_id: str, language: Language) -> Response:
        """Return the problem as an answer to a request."""
        kind = self.kind
        body = {
            "type": f"/problems/{self.slug}",
            "title": kind.title(language),
            "status": kind.status,
            "code": self._code,
            "request_id": request_id,
            "retryable": kind.retryable,
            **self._more,
            "errors": self._errors,
        }
        headers = {"Content-Language": language, "Vary": "Accept-Language", **self._headers}
        if self.slug in RETRY_AFTER_S:
            headers.setdefault("Retry-After", str(RETRY_AFTER_S[self.slug]))
        return Response(json.dumps(body, ensure_ascii=False), kind.status, headers, media_type="application/problem+json")


def language_of(accept_language: str, unasked: Language = "ja") -> Language:
    """Return which of our languages a request wants most: Japanese where it wants both alike, `unasked` where neither."""
    wanted: dict[str, float] = {}
    for part in accept_language[:200].lower().split(","):
        tag, _, quality = part.partition(";q=")
        primary = tag.strip().partition("-")[0]
        if primary in ("ja", "en"):
            try:
                wanted[primary] = max(wanted.get(primary, 0.0), float(quality or 1))
            except ValueError:
                continue
    if not wanted:
        return unasked
    return "en" if wanted.get("en", 0.0) > wanted.get("ja", 0.0) else "ja"

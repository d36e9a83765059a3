"""The catalogue of public rejection codes, each with its message in English and Japanese.

`F_*` rejects a whole file, `R_*` one row, `W_*` only warns; `P_*` and `N_*` say what became of an accepted order's
payment and notification. Codes, their words and the values that carry them are here; what makes a row or a file bad is
decided by who reads it, the rules and `intake/validation.py`, and what is reported of it in `reports/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import pyarrow as pa

from orders_pipeline.records.orders import ORDERS

Language = Literal["en", "ja"]

REJECTIONS_SCHEMA = pa.schema(
    [
        pa.field("import_row_number", pa.int32()),
        pa.field("line", pa.int32()),
        pa.field("column", pa.string()),
        pa.field("code", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

_JAPANESE_NAMES = {column.name: column.aliases[0] for column in ORDERS.columns}
_OPTIONAL_PART = re.compile(r"\[([^\[\]]*)\]")
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Code:
    """One public code with its two message templates.

    Parts in square brackets hold `{name}` parameters, and are left out when a parameter of theirs is not given; what stands
    behind `|` in such a part is said instead.
    """

    code: str
    english: str
    japanese: str


@dataclass(frozen=True)
class Rejection:
    """One finding about a file, row or cell; `detail` holds numbers, column names and ids, never a cell's value."""

    import_row_number: int | None
    line: int | None
    column: str | None
    code: str
    detail: Mapping[str, str] = field(default_factory=dict)


class FileRejected(Exception):
    """The whole file is rejected: `code` is an `F_*` code and `detail` the safe parameters of its message."""

    def __init__(self, code: str, detail: Mapping[str, str] = MappingProxyType({})) -> None:
        self.code = code
        self.detail = dict(detail)
        super().__init__(f"{code}: {message(code, 'en', self.detail)}")

    def __reduce__(self) -> tuple[type[FileRejected], tuple[str, dict[str, str]]]:
        return FileRejected, (self.code, self.detail)


def message(code: str, language: Language, detail: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the sentence for `code` in one language; parameters that are missing leave their part of the sentence out.

    A `hint` parameter may be a key of `HINTS`, which is then shown in the right language, as columns' names are. A code the
    catalogue does not know is returned as it is.
    """
    entry = CODES.get(code)
    if entry is None:
        return code
    template = entry.english if language == "en" else entry.japanese
    values = {name: str(value) for name, value in detail.items() if str(value) != ""}
    if values.get("hint") in HINTS:
        values["hint"] = HINTS[values["hint"]][0 if language == "en" else 1]
    if language == "ja":
        values |= {name: _in_japanese(values[name]) for name in ("column", "columns") if name in values}

    def part(match: re.Match[str]) -> str:
        said, _, instead = match[1].partition("|")
        if not set(_PARAMETER.findall(said)) <= values.keys():
            return instead
        return _PARAMETER.sub(lambda parameter: values[parameter[1]], said)

    return _OPTIONAL_PART.sub(part, template)


def _in_japanese(columns: str) -> str:
    return ", ".join(_JAPANESE_NAMES.get(name, name) for name in columns.split(", "))


HINTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "title_lines": (
            "the first line must be the header, without titles or comments above it",
            "1行目は見出しにしてください(表題やコメントの行は削除してください)",
        ),
        "not_json": ("it is not JSON in UTF-8", "UTF-8のJSONとして読めません"),
        "json_list": (
            'it is a list of objects, or {"orders": [...]}, and in NDJSON one object a line',
            'オブジェクトの配列、または{"orders": [...]}にしてください(NDJSONでは1行に1オブジェクト)',
        ),
        "json_value": (
            "a value is a string, a whole number or null",
            "値は文字列、整数またはnullにしてください",
        ),
        "json_key_twice": ("an order has the same key twice", "1件の注文に同じキーが2つあります"),
        "json_keys": ("the orders have too many different keys", "キーの種類が多すぎます"),
        "says_nothing": (
            "it is one JSON object with sha256, row_count, amount_total or several of them",
            "sha256・row_count・amount_totalのいずれかを持つJSONオブジェクトにしてください",
        ),
        "sep_line": ("remove the line beginning with sep=", "「sep=」で始まる行を削除してください"),
        "no_header": ("the first line looks like an order", "1行目が注文データのように見えます"),
        "semicolon": ("the file seems to use semicolons", "セミコロン区切りのようです"),
        "tab": ("the file seems to use tabs", "タブ区切りのようです"),
        "full_width_comma": ("the file seems to use full-width commas", "全角カンマ区切りのようです"),
        "comma": ("the file seems to use commas", "カンマ区切りのようです"),
        "another_batch": ("names another one than the rows before", "がそれより前の行と異なります"),
        "rows_gone": (
            "the rows of that one are not kept any more; send them as a new file, without the column",
            "のバッチの行はもう保存されていません。_batch列のない新しいファイルで送ってください",
        ),
        "no_batch": ("names none of this client's", "の値はこの取引先のバッチではありません"),
        "no_such_row": ("no row with this number was rejected there", "その番号の行はエラーになっていません"),
        "named_twice": ("several rows of this file name the same one", "同じ行を訂正する行が複数あります"),
        "rows_elsewhere": (
            "not all rows of it were rejected there: correct an earlier batch in which they were, or send the order as new",
            "訂正元のバッチに、この注文のエラー行の全てがそろっていません。全てそろった元のバッチを訂正するか、新しい注文として送ってください",
        ),
        "excel_serial": (
            "it looks like a spreadsheet's serial number; format the cells as dates",
            "表計算ソフトのシリアル値のようです。セルの書式を日付にしてください",
        ),
        "total_row": ("total rows are not counted", "合計行は数えません"),
        "dot_thousands": (
            "a dot before three digits can be read in two ways",
            "3桁の数字の前の「.」は、小数点とも桁区切りとも読めます",
        ),
        "archive_several": ("it must hold exactly one file", "ファイルを1つだけ入れてください"),
        "archive_nested": ("the file in it is compressed itself", "中のファイルがさらに圧縮されています"),
        "archive_kind": (
            "the file in it must be named .csv, .tsv, .txt or .xlsx",
            "中のファイルの名前は.csv、.tsv、.txt、.xlsxのいずれかで終わる必要があります",
        ),
        "archive_encrypted": ("remove its password", "パスワードを解除してください"),
        "archive_damaged": ("it is damaged, or not complete", "壊れているか、途中で切れています"),
        "excel_old": ("or as a workbook named .xlsx", "または.xlsx形式のブックとして保存してください"),
        "excel_macros": ("or as a workbook without macros (.xlsx)", "またはマクロなしのブック(.xlsx)として保存してください"),
        "excel_protected": ("or remove the workbook's password", "またはブックのパスワードを解除してください"),
        "excel_damaged": (
            "or open it in Excel and save it as a workbook (.xlsx) again",
            "またはExcelで開いて、ブック(.xlsx)として保存し直してください",
        ),
    }
)

_FILE_CODES = (
    Code("F_EMPTY", "The file is empty.", "ファイルが空です。"),
    Code(
        "F_NO_ROWS",
        "The file has a header but no orders[: {count} rows were skipped, as the client's profile says; {by}].",
        "見出しだけで、注文の行がありません[(取引先の設定により対象外とした行: {count}件、{by})]。",
    ),
    Code(
        "F_ENCODING",
        "The file is not throughout [{agreed}, which the client's profile says it is|UTF-8, UTF-16 or CP932 (Shift_JIS)]"
        "[; the first byte that does not fit is at offset {offset}][, row {row}][, line {line}].",
        "文字コードが[取引先の設定にある{agreed}|UTF-8、UTF-16、CP932(Shift_JIS)のいずれか]に統一されていません"
        "[。最初に合わないバイトの位置: {offset}][、{row}件目][、{line}行目]。",
    ),
    Code(
        "F_ENCODING_AMBIGUOUS",
        "The file's encoding is not certain[: it can be read as {readings}][; the first doubtful byte is at offset {offset}]"
        "[, row {row}][, line {line}]; send it as UTF-8 with BOM.",
        "文字コードを特定できません[({readings}のいずれとも読めます)][。最初の疑わしいバイトの位置: {offset}]"
        "[、{row}件目][、{line}行目]。BOM付きUTF-8で送ってください。",
    ),
    Code(
        "F_SHEETS",
        "Which sheet has the orders is not certain[: {sheets}][; there is no sheet {wanted}].",
        "注文のシートを特定できません[: {sheets}][。シート「{wanted}」がありません]。",
    ),
    Code(
        "F_CONTROL_CHARS",
        "The file contains control characters a text file must not have[ (offset {offset})][, row {row}][, line {line}].",
        "使用できない制御文字が含まれています[(位置: {offset})][、{row}件目][、{line}行目]。",
    ),
    Code(
        "F_QUOTE",
        "A quotation mark is not closed or stands in the wrong place[: row {row}][, line {line}].",
        '引用符(")が閉じていないか、位置が正しくありません[: {row}件目][、{line}行目]。',
    ),
    Code(
        "F_COLUMNS",
        "The rows do not have the number of columns the header has[ (header {expected}, rows {found})].",
        "行の列数が見出しの列数と一致しません[(見出し: {expected}列、行: {found}列)]。",
    ),
    Code(
        "F_AMOUNTS_SPLIT",
        "Amounts like 1,000 stand without quotes, so that each fills two cells[: row {row}][, line {line}]; put amounts in "
        "quotes or leave the commas out.",
        "金額の桁区切り(1,000など)が引用符で囲まれていないため、2つの列に分かれています[: {row}件目][、{line}行目]。"
        "金額を引用符で囲むか、桁区切りを外してください。",
    ),
    Code(
        "F_HEADER_DUPLICATE",
        "Two columns have the same name[: {columns}].",
        "同じ名前の列が2つ以上あります[: {columns}]。",
    ),
    Code(
        "F_HEADER_MISSING",
        "Required columns are missing from the header[: {columns}][; nearest names found: {nearest}][; {hint}].",
        "必要な列が見出しにありません[: {columns}][。近い列名: {nearest}][。{hint}]。",
    ),
    Code(
        "F_LEFT_OUT",
        "A line outside of the table, which would be left out, looks like an order[: line {line}].",
        "表の外にあり読み飛ばされる行が、注文のように見えます[: {line}行目]。",
    ),
    Code(
        "F_HEADER_REPEATED",
        "The header appears again inside the file[: row {row}][, line {line}]; were two files joined?",
        "ファイルの途中に見出しが再び現れます[: {row}件目][、{line}行目]。複数のファイルを結合していませんか。",
    ),
    Code(
        "F_DELIMITER",
        "The columns are not separated as expected[; {hint}].",
        "列の区切り文字が異なります[。{hint}]。",
    ),
    Code(
        "F_CONTROL_TOTAL",
        "The totals sent with the file do not agree with its rows[ ({field})][: expected {expected}][, found {found}]"
        "[; {hint}].",
        "ファイルに添えられた合計が内容と一致しません[({field})][: 指定 {expected}][、実際 {found}][({hint})]。",
    ),
    Code(
        "F_TOO_MANY_ERRORS",
        "Too many rows are wrong[: {rejected}, and at most {limit} may be]; nothing of the file was taken.",
        "エラーの行が多すぎるため、ファイル全体を受け付けませんでした[(エラー: {rejected}行、上限: {limit}行)]。",
    ),
    Code(
        "F_JSON",
        "The file is not a list of orders in JSON[; order {row}][: {hint}].",
        "注文のJSONとして読み取れません[({row}件目)][: {hint}]。",
    ),
    Code(
        "F_ARCHIVE",
        "The compressed file cannot be taken[: {hint}].",
        "圧縮されたファイルを受け付けられません[: {hint}]。",
    ),
    Code(
        "F_NOT_CSV",
        "The file is not a CSV text file[ but looks like {kind}]; save it as CSV[: {hint}].",
        "CSV形式のテキストファイルではありません[({kind}のようです)]。CSV形式で保存し直してください[({hint})]。",
    ),
    Code(
        "F_TOO_LARGE",
        "The file is too large[; at most {limit} bytes].",
        "ファイルが大きすぎます[(上限: {limit}バイト)]。",
    ),
    Code("F_TOO_MANY_ROWS", "The file has too many rows[; at most {limit}].", "行数が多すぎます[(上限: {limit}行)]。"),
    Code(
        "F_FIELD_TOO_LONG",
        "A field is too long for any column[ ({limit} characters)][: row {row}][, line {line}]; is a quote missing?",
        "項目が長すぎます[(上限: {limit}文字)][: {row}件目][、{line}行目]。引用符の閉じ忘れがないかご確認ください。",
    ),
    Code("F_CHANGED", "The file changed while it was being read.", "読み込み中にファイルが変更されました。"),
    Code("F_GONE", "The file was removed before it could be read.", "読み込む前にファイルが削除されました。"),
    Code("F_DENIED", "The file may not be read: access was denied.", "ファイルを読み取る権限がありません。"),
    Code("F_NAME", "The file's name cannot be used.", "このファイル名は使用できません。"),
    Code(
        "F_DUPLICATE_FILE",
        "The same file was received before[ as batch {batch_id}].",
        "同じ内容のファイルを受け付け済みです[(バッチ: {batch_id})]。",
    ),
    Code("F_UNKNOWN_CLIENT", "The file's client is not known here.", "登録されていない取引先のファイルです。"),
    Code(
        "F_MANIFEST",
        "The manifest beside the file cannot be used[: {field}][: {hint}].",
        "ファイルに添えられたマニフェストが正しくありません[: {field}][: {hint}]。",
    ),
    Code(
        "F_MANIFEST_SHARED",
        "Two order files share this manifest: name it after the whole name of its file, like orders.csv.manifest.json.",
        "同じマニフェストを共有する注文ファイルが2つあります。orders.csv.manifest.jsonのように、ファイル名全体を付けてください。",
    ),
    Code(
        "F_BATCH_COLUMN",
        "The column _batch must name one known batch and the same one in every row[: row {row}][, line {line}][ {hint}].",
        "_batch列には、受付済みのバッチを1つだけ、全行に同じ値で指定してください[: {row}件目][、{line}行目][{hint}]。",
    ),
)

_ROW_CODES = (
    Code(
        "R_COLUMNS",
        "The row does not have as many cells as the header.",
        "行の項目数が見出しの列数と一致しません。",
    ),
    Code(
        "R_QUOTE",
        'A quotation mark is escaped by a backslash (\\"); inside a cell in quotation marks, write it twice ("").',
        '引用符が「\\"」と書かれています。引用符で囲んだ項目の中の引用符は「""」のように2つ重ねてください。',
    ),
    Code(
        "R_CELL_ERROR",
        "The cell contains an error of the spreadsheet, like #N/A, instead of a value[: {column}].",
        "表計算ソフトのエラー(#N/Aなど)が値の代わりに入っています[: {column}]。",
    ),
    Code(
        "R_CELL_FORMULA",
        "The cell contains a formula that was never computed[: {column}]; open and save the workbook in Excel, "
        "or send values.",
        "計算されていない数式が入っています[: {column}]。Excelで開いて保存し直すか、数式を値にしてください。",
    ),
    Code(
        "R_CELL_FORMAT",
        "The cell shows another value than it contains (in brackets), by its format or as it is merged; or it is struck "
        "through; or a code is a number of more than 15 digits, of which a spreadsheet keeps no more[: {column}].",
        "セルの表示形式や結合により実際の値(括弧内)と異なる内容が表示されているか、取り消し線が引かれているか、"
        "コードが16桁以上の数値です[: {column}]。",
    ),
    Code(
        "R_TOTAL_ROW",
        "This row is a total of rows above, not an order.",
        "上の行の合計を示す行で、注文ではありません。",
    ),
    Code("R_REQUIRED", "A required value is missing[: {column}].", "必須項目が空です[: {column}]。"),
    Code(
        "R_TOO_LONG",
        "The value is too long[: {column}][, at most {limit} characters].",
        "値が長すぎます[: {column}][(上限: {limit}文字)]。",
    ),
    Code(
        "R_CHARS",
        "The value contains characters that are not allowed (control, invisible or private-use)[: {column}].",
        "使用できない文字(制御文字、不可視文字、外字など)が含まれています[: {column}]。",
    ),
    Code(
        "R_EXAMPLE_ROW",
        "This is the template's example row and no order; remove it.",
        "テンプレートの記入例の行です。注文ではないため、削除してください。",
    ),
    Code(
        "R_REF_FORMAT",
        "The order reference must be 1 to 64 of the characters A-Z a-z 0-9 - _ . /.",
        "注文番号は半角英数字と「-」「_」「.」「/」の64文字以内で入力してください。",
    ),
    Code(
        "R_REF_DUP_IN_FILE",
        "The same order is in this file already[: row {first_row}].",
        "同じ注文がこのファイル内に既にあります[: {first_row}件目]。",
    ),
    Code(
        "R_REF_CONFLICT",
        "Different orders in this file have the same order reference[ (first: row {first_row})][: {columns}].",
        "内容の異なる注文が同じ注文番号になっています[(最初: {first_row}件目)][: {columns}]。",
    ),
    Code(
        "R_ORDER_INCOMPLETE",
        "The rows of an order are taken together[, and row {other_row} of it, or beside it, is wrong]"
        "[; these rows of it are missing: {missing}][; {hint}].",
        "1つの注文の行はまとめて受け付けます[。同じ注文の行、または前後の行({other_row}件目)に誤りがあります]"
        "[。次の行が不足しています: {missing}件目][。{hint}]。",
    ),
    Code(
        "R_TO_DECIDE",
        "A person has to decide on this order, as the client's profile says[: {said}]; to charge it, set the amount that is "
        "due and empty the cell that says so; not to charge it, write what the profile skips, such as a word for cancelled.",
        "取引先の設定により、担当者の判断が必要な注文です[({said})]。請求する場合は金額を確認のうえ、該当の項目を空にしてください。"
        "請求しない場合は、設定で対象外とする値(取消など)を入力してください。",
    ),
    Code(
        "R_TOO_MANY_LINES",
        "An order has too many rows[; at most {limit}].",
        "1つの注文の行数が多すぎます[(上限: {limit}行)]。",
    ),
    Code(
        "R_REF_EXISTS",
        "An order with this reference was received before[ as {reference}][ in batch {batch_id}].",
        "この注文番号は受付済みです[(注文番号: {reference})][(バッチ: {batch_id})]。",
    ),
    Code(
        "R_REF_EXISTS_DIFFERS",
        "An order with this reference was received before[ as {reference}][ in batch {batch_id}], and not the same"
        "[: {columns}].",
        "この注文番号は受付済みですが、内容が異なります[(注文番号: {reference})][(バッチ: {batch_id})][: {columns}]。",
    ),
    Code(
        "R_REF_SPENT",
        "This order was received before under another reference, as a correction[ in batch {batch_id}].",
        "この注文は、訂正後の別の注文番号で受付済みです[(バッチ: {batch_id})]。",
    ),
    Code(
        "R_REF_CHANGED",
        "A corrected row keeps the order reference of the row it corrects; a spreadsheet may have changed it.",
        "訂正する行の注文番号は変更できません。表計算ソフトで変わっていないかご確認ください。",
    ),
    Code(
        "R_CODE_CHANGED",
        "The row that is corrected had another code, of which a spreadsheet seems to have made this one[: {column}].",
        "訂正前の行のコードが、表計算ソフトで別の値(先頭の0の欠落や日付など)に変わっているようです[: {column}]。",
    ),
    Code(
        "R_CORRECTED_ROW",
        "The cells _batch and _row must be those of rejected.csv, or both empty for a new order[: {hint}].",
        "_batch列と_row列はrejected.csvの値のままにしてください。新しい注文の場合は両方とも空にしてください[: {hint}]。",
    ),
    Code(
        "R_CORRECTED_BEFORE",
        "The row that this one corrects was received before, or left out as not to be charged[, in batch {batch_id}].",
        "訂正対象の行は、既に受付済みか、請求しないものとして処理済みです[(バッチ: {batch_id})]。",
    ),
    Code(
        "R_ENCODING_DAMAGE",
        "The text was broken by a program that opened the file in the wrong encoding; correct the file as it was sent.",
        "文字コードの誤りにより文字化けしています。お送りした元のファイルを訂正してください。",
    ),
    Code(
        "R_CUSTOMER_CODE",
        "The customer code must be 1 to 32 of the characters A-Z a-z 0-9 - _.",
        "得意先コードは半角英数字と「-」「_」の32文字以内で入力してください。",
    ),
    Code(
        "R_DATE_FORMAT",
        "The date cannot be read; write it like 2026-04-01[ ({hint})].",
        "日付として読み取れません。2026-04-01のように入力してください[({hint})]。",
    ),
    Code(
        "R_DATE_AMBIGUOUS",
        "The date can be read in more than one way; write it like 2026-04-01.",
        "日付が複数の意味に読み取れます。2026-04-01のように入力してください。",
    ),
    Code(
        "R_DATE_RANGE",
        "The date is in the future or more than 366 days ago.",
        "日付が未来か、366日より前です。",
    ),
    Code("R_EMAIL", "The e-mail address is not valid.", "メールアドレスの形式が正しくありません。"),
    Code(
        "R_PHONE",
        "To be sent an SMS, the phone number must have 10 or 11 digits and begin with 0.",
        "SMSで通知する場合、電話番号は0で始まる10桁または11桁で入力してください。",
    ),
    Code(
        "R_ITEM_CODE",
        "Item code, quantity and unit price are given together or not at all.",
        "商品コードは数量・単価とあわせて入力するか、3項目とも空にしてください。",
    ),
    Code(
        "R_QUANTITY",
        "The quantity must be a whole number from 1, given together with item code and unit price[ ({hint})].",
        "数量は1以上の整数で、商品コード・単価とあわせて入力してください[({hint})]。",
    ),
    Code(
        "R_UNIT_PRICE",
        "The unit price must be a whole number of yen from 1, given together with item code and quantity[ ({hint})].",
        "単価は1以上の整数(円)で、商品コード・数量とあわせて入力してください[({hint})]。",
    ),
    Code(
        "R_AMOUNT_FORMAT",
        "The amount must be a whole number of yen, for example 1000 or 1,000[ ({hint})].",
        "金額は1000または1,000のように整数(円)で入力してください[({hint})]。",
    ),
    Code("R_AMOUNT_RANGE", "The amount must be at least 1 yen.", "金額は1円以上で入力してください。"),
    Code(
        "R_AMOUNT_OVER_LIMIT",
        "The amount is above the limit of 1,000,000 yen for one order.",
        "金額が1注文の上限(1,000,000円)を超えています。",
    ),
    Code(
        "R_AMOUNT_MISMATCH",
        "Quantity times unit price is not the amount.",
        "数量×単価が金額と一致しません。",
    ),
    Code("R_CURRENCY", "The currency must be JPY or empty.", "通貨はJPYまたは空にしてください。"),
    Code(
        "R_PAYMENT_METHOD",
        "The payment method must be invoice, card_on_file or bank_transfer.",
        "支払方法は請求書払い（invoice）、登録済みカード（card_on_file）、銀行振込（bank_transfer）のいずれかで入力してください。",
    ),
    Code(
        "R_PAYMENT_TOKEN",
        "The payment token must be 8 to 128 printable characters without spaces.",
        "決済トークンは空白を含まない半角8〜128文字で入力してください。",
    ),
    Code(
        "R_NOTIFY_CHANNEL",
        "The notification channel must be email, sms or none.",
        "通知方法はメール（email）、sms、なし（none）のいずれかで入力してください。",
    ),
    Code(
        "R_FORBIDDEN_DATA",
        "The value contains what looks like a card number, which must never be sent[: {column}].",
        "カード番号と思われる値が含まれています。カード番号は送らないでください[: {column}]。",
    ),
)

_WARNING_CODES = (
    Code(
        "W_UNKNOWN_COLUMN",
        "Columns that are not known were ignored[ ({count})][: {columns}][ and {more} more].",
        "未知の列は無視しました[({count}列)][: {columns}][ ほか{more}列]。",
    ),
    Code(
        "W_LINES_LEFT_OUT",
        "Comments or footers at the end were left out, as the client's profile says[: {count}].",
        "取引先の設定により末尾の注記の行を除外しました[: {count}行]。",
    ),
    Code(
        "W_SEP_LINE",
        "The first line, which tells a spreadsheet what separates the columns (sep=), was left out.",
        "1行目の区切り文字の指定(sep=)は読み飛ばしました。",
    ),
    Code(
        "W_BOM",
        "Byte order marks in front of rows were left out[: {count}]; were files joined?",
        "行頭のBOMを取り除きました[: {count}件]。複数のファイルを結合していませんか。",
    ),
    Code(
        "W_PHONE",
        "Phone numbers that are no Japanese ones were kept as they were sent[: {count}].",
        "日本の電話番号として読み取れない番号を、そのまま保存しました[: {count}件]。",
    ),
    Code(
        "W_SAME_ORDERS",
        "Rows that are the same as orders received before were skipped, as the client's profile says[: {count}].",
        "取引先の設定により、受付済みの注文と同じ行は対象外としました[: {count}件]。",
    ),
    Code(
        "W_ROWS_SKIPPED",
        "Rows were skipped, as the client's profile says[: {count}][; {by}].",
        "取引先の設定により対象外とした行があります[: {count}件][。{by}]。",
    ),
    Code(
        "W_ROWS_NOT_CLOSED",
        "Skipped rows do not close the row that they name: no such row waits, it is an order already, another row names it "
        "too, it is of another order, or other rows of its order are not skipped[: {count}][; {skipped}].",
        "対象外とした行のうち、訂正対象の行を終了できなかったものがあります。該当する行がない、受付済みである、同じ行を訂正する行が"
        "ほかにもある、注文番号が異なる、または同じ注文に対象外でない行があるためです[: {count}件][。{skipped}]。",
    ),
    Code(
        "W_HIDDEN_ROWS",
        "Rows that are hidden in the workbook were read like the others[ ({count})].",
        "ブック内の非表示の行も、ほかの行と同じように読み込みました[({count}行)]。",
    ),
    Code(
        "W_ROWS_GONE",
        "The rejected rows cannot be returned as they were sent: the file as it was kept is not in the storage any more.",
        "保存していたファイルがなくなったため、エラーの行を受け取ったままの形でお返しできません。",
    ),
    Code(
        "W_SEQUENCE_GAP",
        "A file seems to be missing before this one[: expected {expected}][, found {found}].",
        "このファイルの前のファイルが届いていない可能性があります[: 想定 {expected}][、実際 {found}]。",
    ),
)

_ORDER_CODES = (
    Code(
        "P_DECLINED",
        "The payment of this order was declined[ ({reason})].",
        "この注文の決済は承認されませんでした[({reason})]。",
    ),
    Code(
        "P_UNKNOWN",
        "It is not known yet whether this order was paid[ ({reason})].",
        "この注文の決済結果はまだ確認できていません[({reason})]。",
    ),
    Code(
        "P_CANCELLED",
        "This order was not paid: its batch was cancelled.",
        "この注文は取り込みが取り消されたため、決済されていません。",
    ),
    Code(
        "N_FAILED",
        "The customer could not be notified of this order[ ({reason})].",
        "この注文の通知を送信できませんでした[({reason})]。",
    ),
)

CODES: Mapping[str, Code] = MappingProxyType(
    {entry.code: entry for entry in (*_FILE_CODES, *_ROW_CODES, *_WARNING_CODES, *_ORDER_CODES)}
)

# the settings of a client's profile with which a file like it is taken: words for who keeps the clients file
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "F_ENCODING": "`encoding` names what the client's files are in",
        "F_ENCODING_AMBIGUOUS": "`encoding` names what the client's files are in",
        "F_SHEETS": "`sheet` names the one with the orders",
        "F_QUOTE": '`quoting = "none"` is for files in which a quotation mark is a character',
        "F_HEADER_DUPLICATE": "`occurrence` of the column, or of `skip`, says which of the two is meant",
        "F_HEADER_MISSING": "`columns` says what the client calls them; `header_line` and `comment` are for lines above",
        "F_LEFT_OUT": "`header_line`, `header_rows`, `comment` and `footer_lines` say what is outside of the table",
        "F_DELIMITER": "`delimiter` names what separates columns",
        "F_TOO_LARGE": "`max_bytes`",
        "F_TOO_MANY_ROWS": "`max_rows`",
        "F_TOO_MANY_ERRORS": "`bad_rows`, `refuse_above_rows` and `refuse_above_percent` say how many rows may be wrong",
        "F_DUPLICATE_FILE": '`same_bytes = "take"`',
        "R_TO_DECIDE": "`reject` says which rows a person has to decide on",
        "R_REF_CONFLICT": '`lines = "grouped"` takes several rows of a reference as one order',
        "R_REF_EXISTS": '`same_orders = "skip"` is for exports that repeat earlier orders',
        "R_REF_EXISTS_DIFFERS": '`same_orders = "skip"` skips only orders that are the same',
        "R_REF_FORMAT": "`after` and `until` take a part of a cell",
        "R_CUSTOMER_CODE": "`after` and `until` take a part of a cell, `values` replaces words",
        "R_DATE_FORMAT": "`format` and `until` of order_date say how the client writes dates",
        "R_DATE_AMBIGUOUS": "`format` of order_date says how the client writes dates",
        "R_REQUIRED": "`default` of the column stands for empty cells",
        "R_PAYMENT_METHOD": "`values` of payment_method says what the client's words mean",
        "R_NOTIFY_CHANNEL": "`values` of notify_channel says what the client's words mean",
        "R_AMOUNT_MISMATCH": "`ignore` leaves out item_code, quantity and unit_price",
        "R_ITEM_CODE": "`ignore` leaves out item_code, quantity and unit_price",
        "R_QUANTITY": "`ignore` leaves out item_code, quantity and unit_price",
        "R_UNIT_PRICE": "`ignore` leaves out item_code, quantity and unit_price",
        "R_TOTAL_ROW": "`footer_lines` leaves out last lines, `skip` rows with a certain word",
    }
)

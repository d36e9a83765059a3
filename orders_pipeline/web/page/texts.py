"""The words of the page, in English and Japanese, and how numbers, yen and times are written in it.

Sentences about codes of rows and files are in `records/rejections.py`, those about problems in `web/problems.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from types import MappingProxyType

from orders_pipeline.batches.batches import JAPAN
from orders_pipeline.records.rejections import Language

TEXTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        # every page
        "product": ("Order files", "注文ファイル受付"),
        "skip": ("Skip to the content", "本文へ移動"),
        "send": ("Send", "送信"),
        "history": ("History", "履歴"),
        "overview": ("Overview", "全体"),
        "other_language": ("日本語", "English"),
        "sign_out": ("Sign out", "ログアウト"),
        "menu": ("Pages", "ページ"),
        "all_clients": ("All clients", "すべての取引先"),
        "no_script": (
            "Sending and correcting need JavaScript, which is switched off here. History and downloads work without.",
            "送信と修正にはJavaScriptが必要です。履歴の表示とダウンロードはこのまま利用できます。",
        ),
        "lost": (
            "No connection. This is how things stood last; the page keeps trying. Nothing is charged twice.",
            "接続できません。最後に確認した時点の内容を表示しています。再接続しています。二重に請求されることはありません。",
        ),
        "failed": (
            "That did not work. Nothing was sent; please try again.",
            "処理できませんでした。何も送信されていません。もう一度お試しください。",
        ),
        # signing in
        "sign_in": ("Sign in", "ログイン"),
        "unsupported": (
            "This kind of file cannot be taken. Choose a CSV or Excel (.xlsx) file; save an .xls file as .xlsx first.",
            "この種類のファイルは受け付けられません。CSVまたはExcel(.xlsx)を選んでください。.xlsの場合は、Excelで.xlsx形式として保存し直してください。",
        ),
        "busy": (
            "Many files are being received. This one is tried again in a few seconds.",
            "ただいま混み合っています。数秒後に自動で再試行します。",
        ),
        "unknown_user": (
            "You are logged in, but not registered here. Ask your administrator.",
            "ログインしていますが、このシステムには登録されていません。管理者に依頼してください。",
        ),
        "token": ("Token", "トークン"),
        "token_hint": (
            "Your administrator gives you one. It begins with opk_.",
            "管理者から受け取った、opk_で始まる文字列を入力してください。",
        ),
        "token_wrong": (
            "This token cannot be used to sign in. Check that it is complete, or ask for a new one.",
            "このトークンではログインできません。全体が入力されているか確かめるか、管理者に新しいトークンを依頼してください。",
        ),
        "client_unknown": (
            "This token is right, but its client is not set up here. Ask your administrator to look into the clients file.",
            "トークンは正しいのですが、その取引先がこのシステムに登録されていません。管理者に取引先の設定を確認してもらってください。",
        ),
        "link_old": (
            "This link is no longer valid. Open the one that was shown at the last start.",
            "このリンクは無効になりました。最後の起動時に表示されたリンクを開いてください。",
        ),
        # sending
        "send_title": ("Send an order file", "注文ファイルの送信"),
        "client": ("Client", "取引先"),
        "client_hint": (
            "The code of the client that the orders are from: letters, digits, - and _.",
            "注文元の取引先コード(英数字、-、_)です。",
        ),
        "choose_client": ("Choose a client", "取引先を選んでください"),
        "drop": ("Drop an order file here", "注文ファイルをここにドロップ"),
        "or": ("or", "または"),
        "choose": ("Choose a file", "ファイルを選ぶ"),
        "limits": (
            "CSV or Excel (.xlsx), up to {mb} MB and {rows} orders",
            "CSVまたはExcel(.xlsx)、{mb}MB・{rows}件まで",
        ),
        "template": ("Download an empty file with the columns", "列見出しの入ったひな形をダウンロード"),
        "paste": ("Paste from a spreadsheet instead", "表計算ソフトから貼り付ける"),
        "paste_label": ("Rows with their headings", "見出し行を含む表"),
        "paste_hint": (
            "Copy the rows together with the line of headings, and paste them here.",
            "見出し行ごとコピーして、ここに貼り付けてください。",
        ),
        "paste_check": ("Check these rows", "この内容を検査"),
        "pasted_name": ("pasted", "貼り付け"),
        "uploading": ("Uploading", "アップロード中"),
        "checking": ("Checking. Nothing has been sent yet.", "検査しています。まだ何も送信していません。"),
        "check_title": ("Result of the check", "検査の結果"),
        "check_approval": (
            "Nothing will be paid before somebody else has approved the file.",
            "このファイルは、別の担当者が承認するまで決済されません。",
        ),
        "check_all": ("All {n} orders can be taken.", "{n}件を受け付けられます。エラーはありません。"),
        "times": ("{n}", "{n}回"),
        "paid_together": ("Orders of one customer are paid together.", "同じ得意先の注文はまとめて決済します。"),
        "sample": ("The first rows, as they were read", "最初の行(読み取り結果)"),
        "check_some": (
            "{n} of {total} orders can be taken. {bad} to correct.",
            "{total}件中{n}件を受け付けられます。{bad}件は修正が必要です。",
        ),
        "check_some_rows": (
            "{n} of {total} rows can be taken. {bad} to correct.",
            "{total}行中{n}行を受け付けられます。{bad}行は修正が必要です。",
        ),
        "check_none": ("None of the {total} rows can be taken.", "{total}件とも受け付けられません。"),
        "check_undecided": (
            "{n} row{s} to decide on. Send the file, and decide on each row here. Nothing is charged before.",
            "判断が必要な行が{n}件あります。ファイルを送信すると、この画面で1件ずつ判断できます。それまで決済は行いません。",
        ),
        "check_closes": (
            "{n} row{s} left out. Once the file is sent, nothing of it waits any more. Nothing is charged.",
            "{n}件を対象外とします。送信すると、要修正の行から外れます。決済は行いません。",
        ),
        "check_skipped": ("{n} row{s} left out, as your settings say.", "設定により、{n}件を対象外とします。"),
        "check_refused": ("This file cannot be taken.", "このファイルは受け付けられません。"),
        "not_sent": ("Nothing has been sent yet.", "まだ何も送信していません。"),
        "what_would_be": ("What will be done", "送信後に行われること"),
        "orders": ("Orders", "注文"),
        "amount": ("Amount", "金額"),
        "payments": ("Payments", "決済"),
        "notices": ("Notifications", "通知"),
        "notices_time": ("{n}, about {time}", "{n}件、約{time}"),
        "send_all": ("Send {n} order{s}, {yen}", "{n}件・{yen}を送信する"),
        "send_good": ("Send {n}, {yen}; correct {bad} later", "{n}件・{yen}を送信し、{bad}件は後で修正する"),
        "send_to_decide": ("Send, and decide on {n} row{s}", "送信して{n}件を判断する"),
        "send_to_fix": ("Send, and correct {n} row{s} here", "送信して{n}件を画面で修正する"),
        "send_closing": ("Send {n} row{s} not to be charged", "{n}件を請求しないものとして送信する"),
        "fix_first": ("Correct the file first", "先にファイルを修正する"),
        "fix_first_hint": (
            "Correct these rows in your own program and drop the file here again.",
            "お使いのソフトで次の行を修正し、もう一度ファイルを入れてください。",
        ),
        "discard": ("Discard", "取り消す"),
        "another": ("Choose another file", "別のファイルを選ぶ"),
        "sending": ("Sending", "送信しています"),
        "see_result": ("See its result", "その結果を見る"),
        "recent": ("Recent files", "最近のファイル"),
        "none_yet": ("No file has been sent yet.", "まだファイルは送信されていません。"),
        "more_errors": ("and {n} more", "ほか{n}件"),
        # problems of rows
        "problems": ("What is to be corrected", "修正が必要な箇所"),
        "column": ("Column", "列"),
        "problem": ("Problem", "内容"),
        "rows": ("Rows", "件数"),
        "row": ("Row", "行"),
        "line": ("Line", "ファイルの行"),
        "whole_row": ("Whole row", "行全体"),
        # a batch
        "number": ("No.", "受付番号"),
        "received_at": ("Received", "受付日時"),
        "by": ("By", "送信者"),
        "may_close": (
            "You may close this page; work goes on.",
            "このページを閉じても処理は続きます。",
        ),
        "steps": ("Steps", "処理の流れ"),
        "receive": ("Receive", "受付"),
        "check": ("Check", "検査"),
        "load": ("Record", "登録"),
        "pay": ("Pay", "決済"),
        "notify": ("Notify", "通知"),
        "report": ("Report", "結果"),
        "done": ("done", "済み"),
        "working": ("in progress", "進行中"),
        "waiting": ("waiting", "待ち"),
        "done_in_part": ("done in part", "一部実施"),
        "left_undone": ("not done", "未実施"),
        "of_pay": ("{done} of {total} payments", "{total}回中{done}回"),
        "of_notify": ("{done} of {total}", "{total}件中{done}件"),
        "time_left": ("about {time} left", "残り約{time}"),
        "unknown_total": ("being counted", "集計中"),
        "result": ("Result", "結果"),
        "rows_in_file": ("Rows in the file", "ファイルの行数"),
        "accepted": ("Accepted", "受付"),
        "rejected": ("Rejected", "エラー"),
        "blank": ("Blank", "空行"),
        "skipped": ("Skipped", "対象外"),
        "paid": ("Paid", "決済済み"),
        "declined": ("Declined", "決済不可"),
        "open": ("Open", "処理中"),
        "unknown": ("Unclear", "確認中"),
        "refunded": ("Refunded", "返金済み"),
        "cancelled_orders": ("Cancelled", "中止"),
        "total": ("Total", "合計"),
        "yen": ("Yen", "金額"),
        "sent": ("Sent", "送信済み"),
        "not_delivered": ("Failed", "送信不可"),
        "rows_to_fix": (
            "{n} row{s} to correct",
            "修正が必要な行が{n}件あります",
        ),
        "rows_being_fixed": (
            "The correction of {n} row{s} is being processed.",
            "{n}件の修正を処理しています。",
        ),
        "correction_sent": ("A correction is being processed.", "送信した修正を処理しています。"),
        "fix": ("Correct now", "修正する"),
        "fix_in": ("Correct the rows of {name}", "「{name}」の行を修正する"),
        "all_fixed": ("All rows that were to be corrected have been.", "修正が必要だった行はすべて修正済みです。"),
        "corrects": ("Corrects", "修正元"),
        "files": ("Downloads", "ダウンロード"),
        "original": ("The file as it was sent", "送信したファイル"),
        "rejected.csv": ("Rows to correct (rejected.csv)", "要修正の行(rejected.csv)"),
        "rejected_again": (
            "{n} of its {total} rows still wait for a correction. The others need none or were sent again since; if they "
            "come once more, nothing is paid twice.",
            "全{total}行のうち、修正が必要な行は{n}行です。ほかの行は修正の必要がないか、修正を送信済みです。"
            "もう一度送信しても、二重に決済されることはありません。",
        ),
        "errors.csv": ("All problems (errors.csv)", "エラー一覧(errors.csv)"),
        "result.json": ("Result (result.json)", "処理結果(result.json)"),
        "cancel": ("Cancel", "中止する"),
        "cancel_title": ("Cancel this file?", "このファイルの処理を中止しますか"),
        "cancel_says": (
            "Orders that are not paid yet are stopped. What is paid stays paid and is not refunded. Nobody is notified any "
            "more, not even customers whose orders are paid.",
            "まだ決済していない注文を中止します。済んだ決済は返金されません。通知もこれ以上送信しません。"
            "決済済みの注文のお客様にも、未送信の通知は届きません。",
        ),
        "cancel_left": (
            "At most {n} order{s}, {yen}, are stopped: paying goes on until you cancel.",
            "中止されるのは最大で{n}件、{yen}です。中止するまで決済は続きます。",
        ),
        "cancel_paid": ("At least {n} order{s}, {yen}, stay paid.", "少なくとも{n}件、{yen}は決済済みのまま残ります。"),
        "cancel_notices": (
            "At most {n} of {total} notifications are never sent.",
            "{total}件の通知のうち、最大で{n}件が送信されません。",
        ),
        "was_cancelled": ("Cancelled by {by}, {at}. Reason: {reason}", "{by}が{at}に中止しました。理由: {reason}"),
        "no_reason": ("none given", "記載なし"),
        "not_notified": (
            "{n} order{s}, {yen}, are paid and their customers are not notified. Tell them yourself.",
            "{n}件、{yen}の注文は決済済みですが、お客様に通知していません。必要に応じてご連絡ください。",
        ),
        "not_notified_list": ("Download the list of these orders", "この注文の一覧をダウンロード"),
        "cancel_do": ("Cancel the rest", "残りを中止する"),
        "keep": ("Go on as before", "中止しない"),
        "resume": ("Resume", "再開する"),
        "approval": ("Approval", "承認"),
        "approve_what": ("{n} order{s}, {yen} in all, wait to be approved.", "{n}件、合計{yen}の注文が承認を待っています。"),
        "approve_not_you": (
            "Somebody else than who sent the file approves it.",
            "送信者以外の承認権限を持つ人が承認します。",
        ),
        "approve_no_right": (
            "Your token or login may not approve. Somebody whose may, and who did not send this file, approves it.",
            "お使いのトークンまたはアカウントには承認権限がありません。送信者以外の承認権限を持つ人が承認します。",
        ),
        "approve": ("Approve", "承認する"),
        "approve_title": ("Approve this file?", "このファイルを承認しますか"),
        "approve_says": (
            "{n} order{s}, {yen} in all, will be paid.",
            "{n}件、合計{yen}の注文の決済を始めます。",
        ),
        "approve_do": ("Approve and pay", "承認して決済を始める"),
        "approve_not": ("Go back", "承認しない"),
        "refuse": ("Refuse", "却下する"),
        "refuse_title": ("Refuse this file?", "このファイルを却下しますか"),
        "refuse_says": (
            "None of its orders is paid, and they can be sent again.",
            "このファイルの注文は1件も決済されません。修正して送り直すことができます。",
        ),
        "reason": ("Reason", "理由"),
        "refuse_do": ("Refuse the file", "このファイルを却下する"),
        "keep_waiting": ("Go back", "却下しない"),
        "was_approved": ("Approved by {by}, {at}.", "{by}が{at}に承認しました。"),
        "was_refused": ("Refused by {by}, {at}. Reason: {reason}", "{by}が{at}に却下しました。理由: {reason}"),
        # refunding
        "refund": ("Refund orders", "返金する"),
        "refund_title": ("Refund orders", "注文の返金"),
        "refund_lead": (
            "You see first what would be refunded. Nothing is refunded until you confirm it.",
            "はじめに返金の内容を表示します。確定するまで返金は行いません。",
        ),
        "refund_orders": ("Order references", "注文番号"),
        "refund_orders_hint": (
            "With spaces, commas or line breaks between them. Without any, all paid orders of this file. "
            "At most 4,000 characters at once.",
            "空白、カンマ、改行で区切ります。空欄の場合は、このファイルの決済済みの注文すべてが対象です。"
            "一度に4,000文字まで入力できます。",
        ),
        "refund_show": ("Show what would be refunded", "返金の内容を表示する"),
        "refund_missing": ("{n} of them not in this file: {refs}", "このファイルにない注文番号が{n}件あります: {refs}"),
        "refund_plan": ("What would be refunded", "返金の内容"),
        "refund_refundable": ("To be refunded", "返金する注文"),
        "refund_under_way": ("Refund begun", "返金手続き中"),
        "refund_not_paid": ("Not paid", "未決済"),
        "refund_says": ("{yen} in all, in {n} refund{s}.", "合計{yen}、返金は{n}回です。"),
        "refund_notified": (
            "Customers who were notified of {n} order{s} are notified of the refund.",
            "{n}件は通知済みのため、返金したことをお客様に通知します。",
        ),
        "refund_reason_hint": (
            "Kept with the refund, and sent to the payment service.",
            "返金の記録に残り、決済サービスにも送信されます。",
        ),
        "refund_do": ("Refund {n} order{s}, {yen}", "{n}件・{yen}を返金する"),
        "refund_none": ("None of these orders can be refunded.", "返金できる注文はありません。"),
        "refund_failed": (
            "No answer. Confirm once more: nothing is refunded twice.",
            "応答がありません。もう一度確定してください。二重に返金されることはありません。",
        ),
        # states
        "state_received": ("Received", "受け付けました"),
        "state_staged": ("Checking", "検査中"),
        "state_validated": ("Checking", "検査中"),
        "state_loaded": ("Recorded", "登録済み"),
        "state_awaiting_approval": ("Waits for approval", "承認待ち"),
        "state_paying": ("In progress", "処理中"),
        "state_paused": ("Waiting", "待機中"),
        "state_stopped": ("Stopped", "停止中"),
        "state_still": ("Stands still", "中断中"),
        "state_cancelling": ("Being cancelled", "中止処理中"),
        "state_completed": ("Done", "完了"),
        "state_completed_with_errors": ("Done, with errors", "完了(一部エラー)"),
        "state_rejected": ("Not taken", "受付不可"),
        "state_cancelled": ("Cancelled", "中止済み"),
        "says_received": (
            "The file is here and will be checked in a moment.",
            "ファイルを受け取りました。まもなく検査が始まります。",
        ),
        "says_staged": ("The rows are being checked.", "各行を検査しています。"),
        "says_validated": ("The accepted rows are being recorded.", "受け付けた行を登録しています。"),
        "says_loaded": ("The orders are recorded; payments begin.", "注文を登録しました。決済を開始します。"),
        "says_awaiting_approval": (
            "Nothing is paid until somebody else than who sent the file approves it.",
            "送信した本人以外が承認するまで、決済は行いません。",
        ),
        "says_paying": (
            "Orders are being paid and customers notified.",
            "決済と通知を行っています。",
        ),
        "says_paused": ("Work waits and goes on by itself.", "処理を待機しています。自動的に再開します。"),
        "says_stopped": (
            "Somebody stopped the work. What is paid stays paid; the rest waits until it is resumed.",
            "担当者が処理を停止しました。済んだ決済はそのまま残り、残りは再開するまで待機します。",
        ),
        "says_still": (
            "Nothing has been done on it since {since}. Nothing is lost, and nothing is charged twice. "
            "It goes on by itself as soon as the system works again.",
            "{since}から処理が止まっています。受け付けた内容は失われず、二重に請求されることもありません。"
            "システムが復旧すると自動的に再開します。",
        ),
        "still_client": (
            "If it does not within a few minutes, tell your administrator.",
            "数分たっても再開しない場合は、管理者に連絡してください。",
        ),
        "still_operator": (
            "To see what is missing: orders-pipeline doctor",
            "原因の確認: orders-pipeline doctor",
        ),
        "says_cancelling": (
            "The rest is being cancelled. What is paid stays paid.",
            "残りを中止しています。済んだ決済はそのまま残ります。",
        ),
        "says_cancelling_unpaid": (
            "The orders are being cancelled. None of them was paid.",
            "注文を中止しています。決済は1件も行っていません。",
        ),
        "says_completed": ("All orders are paid.", "すべての注文の決済が完了しました。"),
        "says_completed_none": (
            "This file has no order to pay: its rows were left out.",
            "このファイルに決済する注文はありません。行はすべて対象外です。",
        ),
        "says_completed_rows_open": (
            "All orders of this file are paid. Other rows of the file that it corrects are still to be corrected.",
            "このファイルの注文の決済はすべて完了しました。修正元のファイルには、修正が必要な行がまだあります。",
        ),
        "says_completed_with_errors": (
            "What could be done is done. What could not is shown below.",
            "処理できるものはすべて完了しました。できなかったものは下に表示しています。",
        ),
        "says_refunded": ("Refunded since then: {n} order{s}, {yen}.", "その後、{n}件・{yen}を返金しました。"),
        "says_refunding": ("Being refunded: {n} order{s}, {yen}.", "{n}件・{yen}の返金を処理しています。"),
        "says_refund_waits": (
            "An administrator has to decide on the refund of {n} order{s}, {yen}. Nothing is refunded twice.",
            "{n}件・{yen}の返金は、管理者の判断を待っています。二重に返金されることはありません。",
        ),
        "says_rejected": ("No order of this file was taken.", "このファイルの注文は1件も受け付けていません。"),
        "says_rejected_corrected": (
            "No order of this file itself was taken. None of its rows waits for a correction any more.",
            "このファイル自体の注文は受け付けていませんが、修正が必要な行は残っていません。",
        ),
        "says_cancelled": (
            "The orders that were not paid are cancelled.",
            "決済していなかった注文を中止しました。",
        ),
        "says_cancelled_paid": (
            "All orders were paid already. What was left to do, such as notifications, was not done.",
            "すべての注文の決済が完了した後に中止しました。通知など、残りの処理は行っていません。",
        ),
        "says_cancelled_unpaid": (
            "The orders are cancelled. None of them was paid.",
            "注文を中止しました。決済は1件も行っていません。",
        ),
        "E_PAYMENT_UNAVAILABLE": (
            "The payment service does not answer. Nothing is charged twice; work goes on by itself.",
            "決済サービスの応答を待っています。二重に請求されることはありません。応答があれば自動的に再開します。",
        ),
        "E_PAYMENT_REFUSED": (
            "The payment service refuses these payments. An administrator must look into it.",
            "決済サービスがこの決済を受け付けません。管理者の確認が必要です。",
        ),
        "E_PAYMENT_UNKNOWN": (
            "For some payments it is unclear whether they were made. They are asked about; nothing is charged twice.",
            "一部の決済について結果を確認しています。二重に請求されることはありません。",
        ),
        "E_LEDGERS_DIFFER": (
            "Our records and the payment service's differ. Nothing is paid until an administrator has looked into it.",
            "当方の記録と決済サービスの記録が一致しません。管理者が確認するまで決済は行いません。",
        ),
        "E_NOTIFICATION_UNAVAILABLE": (
            "The notification service does not answer. The orders are paid; customers are notified later.",
            "通知サービスの応答を待っています。決済は済んでいます。通知は応答があれば自動的に再開します。",
        ),
        "E_NOTIFICATION_REFUSED": (
            "The notification service refuses these notifications. An administrator must look into it.",
            "通知サービスがこの通知を受け付けません。管理者の確認が必要です。",
        ),
        "E_REFUNDS_OPEN": ("Some refunds are still under way.", "一部の返金を処理しています。"),
        "E_ELSE": (
            "A step could not be done and is tried again. Code for the administrator: {code}",
            "処理の一部を実行できませんでした。再試行しています。管理者への連絡用コード: {code}",
        ),
        "next_try": ("Next try at {time}.", "次の確認は{time}です。"),
        # correcting
        "fix_title": ("Correct rows", "行の修正"),
        "fix_lead": (
            "Each row names its wrong columns. Corrected rows are sent as a file of their own, with those that can be taken "
            "unchanged now.",
            "誤りのある列名を行の左端に示しています。修正した行は、そのまま受け付けられるようになった行とともに、"
            "新しいファイルとして送信されます。",
        ),
        "groups": ("By problem", "エラーの種類"),
        "replace_all": ("Replace all at once", "まとめて置き換える"),
        "replace": ("Replace", "置き換える"),
        "replace_label": ("Replace “{old}” in {n} rows with", "「{old}」({n}件)を次の値に置き換える"),
        "undo": ("Undo", "元に戻す"),
        "hidden_value": ("hidden; type it anew", "非表示(入力し直してください)"),
        "empty_value": ("empty", "空欄"),
        "personal_hidden": ("hidden", "非表示"),
        "show_personal": ("Show personal data", "個人情報を表示"),
        "hide_personal": ("Hide personal data", "個人情報を隠す"),
        "all_columns": ("Show all columns", "すべての列を表示"),
        "bad_columns": ("Show only what is wrong", "誤りのある列だけを表示"),
        "edit_row": ("Edit whole row", "行全体を編集"),
        "not_editable": ("Correct this row in the file:", "この行はファイルで修正してください:"),
        "row_by_row": ("Row by row", "行ごとに見る"),
        "rows_shown": ("Rows {first} to {last} of {n}", "{n}件中{first}〜{last}件目"),
        "fix_check": ("Check", "確認する"),
        "fix_checking": ("Checking…", "確認しています…"),
        "fix_send": ("Send {n} row{s}, {yen}", "{n}件・{yen}を送信"),
        "changed": ("{n} row{s} changed", "{n}件を変更しました"),
        "unchanged": ("Nothing changed yet", "まだ変更はありません"),
        "row_changed": ("changed, not checked yet", "変更済み・未確認"),
        "row_good": ("can be taken", "受け付けられます"),
        "keep_row": ("Right as it is", "このままで正しい"),
        "row_kept": ("right as it is, not checked yet", "このままで正しい・未確認"),
        "row_as_is": ("can be taken as it is", "このまま受け付けられます"),
        "row_bad": ("still wrong", "まだ誤りがあります"),
        "fix_checked": (
            "{good} of {n} changed rows can be taken.",
            "変更した{n}件のうち{good}件を受け付けられます。",
        ),
        "fix_unchanged": ("{n} row{s} can be taken unchanged.", "変更していない{n}件も、このまま受け付けられます。"),
        "fix_money": ("What is sent is {yen}, in {n} payment{s}.", "送信する金額は{yen}、決済は{n}回です。"),
        "fix_again": ("Changed since the check. Check again.", "確認中に変更されました。もう一度確認してください。"),
        "fix_none_unchanged": (
            "No row can be taken as it is. Correct what is wrong first.",
            "そのまま受け付けられる行はありません。誤りを修正してください。",
        ),
        "fix_skipped": (
            "Would be left out, yet still wait: other rows of its order are not left out, or it names another order.",
            "対象外になりますが、訂正待ちのままです。同じ注文に対象外でない行があるか、注文番号が別の注文のものです。",
        ),
        "fix_closed": ("{n} row{s} will not be charged.", "{n}件は請求しません。"),
        "row_closed": ("will not be charged", "請求しません"),
        "decide_charged": ("Charge ({header}: {word})", "請求する({header}: {word})"),
        "decide_not": ("Do not charge ({header}: {word})", "請求しない({header}: {word})"),
        "left_out_filled": (
            "A row with anything under “{header}” is not charged.",
            "「{header}」に入力がある行は請求しません。",
        ),
        "left_out_but": (
            "A row with anything but {words} under “{header}” is not charged.",
            "「{header}」に「{words}」以外の入力がある行は請求しません。",
        ),
        "fix_left": ("{n} left", "残り{n}件"),
        "fix_none": ("There is no row to correct here.", "修正が必要な行はありません。"),
        "fix_later": (
            "The rows can be corrected as soon as the file has been recorded.",
            "登録が終わると、ここで行を修正できます。",
        ),
        "page_of": ("Page {page} of {pages}", "{pages}ページ中{page}ページ"),
        "previous": ("Previous", "前へ"),
        "next": ("Next", "次へ"),
        "back": ("Back to the file", "ファイルに戻る"),
        # history
        "history_title": ("Files sent so far", "送信したファイルの履歴"),
        "file": ("File", "ファイル"),
        "state": ("State", "状態"),
        "refunded_of": ("Refunded: {n}, {yen}", "返金済み {n}件・{yen}"),
        "refunding_of": ("Being refunded: {n}, {yen}", "返金処理中 {n}件・{yen}"),
        "refund_waits_of": ("Refund to be decided: {n}, {yen}", "返金の判断待ち {n}件・{yen}"),
        "older": ("Older files", "以前のファイル"),
        "newest": ("Newest files", "最新のファイル"),
        # the overview
        "overview_title": ("Overview of all clients", "全取引先の状況"),
        "needs_somebody": ("Waiting or stopped", "待機中・停止中"),
        "nothing_waits": ("Nothing is waiting or stopped.", "待機中・停止中のファイルはありません。"),
        "still_why": (
            "No process has worked on it since {since}. Are the daemon and the workers there?",
            "{since}から、処理するプロセスがありません。デーモンとワーカーを確認してください。",
        ),
        "refunds_wait": ("{n} refund{s} to be decided on:", "返金{n}回の判断が必要です:"),
        "running": ("In progress", "処理中"),
        "nothing_runs": ("Nothing is in progress.", "処理中のファイルはありません。"),
        "services": ("Services", "外部サービス"),
        "service_payment": ("Payment", "決済"),
        "service_notification": ("Notification", "通知"),
        "service_ok": ("answers", "正常"),
        "service_closed": ("not asked until {time}: {code}", "{time}まで停止: {code}"),
        "by_day": ("Accepted yen by day", "日別の受付金額"),
        "by_client": ("Accepted yen by client", "取引先別の受付金額"),
        "last_days": ("The last {n} days", "直近{n}日間"),
        "day": ("Day", "日付"),
        "batches": ("Files", "ファイル数"),
        "why": ("Why", "理由"),
        "as_table": ("As a table", "表で見る"),
        "no_orders": ("No file was received in these days.", "この期間に受け付けたファイルはありません。"),
        # errors
        "error_title": ("This cannot be shown", "表示できません"),
        "error_id": ("For the administrator: {id}", "管理者への連絡用番号: {id}"),
        "to_start": ("To the first page", "最初のページへ"),
    }
)


class Words:
    """The page's words in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._at = 0 if language == "en" else 1

    def __call__(self, key: str, **values: object) -> str:
        """Return a text; numbers among its values are written as such, and `s` is the plural's."""
        shown = {name: self.number(value) if isinstance(value, int) else value for name, value in values.items()}
        return TEXTS[key][self._at].format(**shown, s="" if values.get("n") == 1 else "s")

    def number(self, value: int | None) -> str:
        """Return a number with its thousands apart."""
        return "–" if value is None else f"{value:,}"

    def yen(self, value: int | None) -> str:
        """Return an amount in yen."""
        if value is None:
            return "–"
        return f"¥{value:,}" if self.language == "en" else f"{value:,}円"

    def duration(self, seconds: float) -> str:
        """Return about how long something takes."""
        if seconds < 60:
            return f"{max(1, round(seconds))} s" if self.language == "en" else f"{max(1, round(seconds))}秒"
        minutes = round(seconds / 60)
        if minutes < 60:
            return f"{minutes} min" if self.language == "en" else f"{minutes}分"
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if self.language == "en" else f"{hours}時間{minutes}分"

    def moment(self, at: datetime | str | None) -> str:
        """Return a time as it is in Japan."""
        if at is None:
            return "–"
        moment = _in_japan(at)
        is_this_year = moment.year == datetime.now(JAPAN).year
        if self.language == "ja":
            return f"{'' if is_this_year else f'{moment.year}年'}{moment.month}月{moment.day}日 {moment:%H:%M}"
        return f"{moment.day} {moment:%b}{'' if is_this_year else f' {moment.year}'} {moment:%H:%M} JST"

    def day(self, day: date) -> str:
        """Return a day without its year."""
        return f"{day.month}/{day.day}" if self.language == "ja" else f"{day.day} {day:%b}"

    def clock(self, at: datetime | str | None) -> str:
        """Return the time of a day in Japan."""
        if at is None:
            return "–"
        return f"{_in_japan(at):%H:%M}"


def _in_japan(at: datetime | str) -> datetime:
    return (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(JAPAN)

"""Exports of shop systems: the columns are those of the systems, the rows are synthetic."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

Row = Mapping[str, str]

SHOPIFY = (
    "Name,Email,Financial Status,Paid at,Fulfillment Status,Fulfilled at,Accepts Marketing,Currency,Subtotal,"
    "Shipping,Taxes,Total,Discount Code,Discount Amount,Shipping Method,Created at,Lineitem quantity,Lineitem name,"
    "Lineitem price,Lineitem compare at price,Lineitem sku,Lineitem requires shipping,Lineitem taxable,"
    "Lineitem fulfillment status,Billing Name,Billing Street,Billing Address1,Billing Address2,Billing Company,"
    "Billing City,Billing Zip,Billing Province,Billing Country,Billing Phone,Shipping Name,Shipping Street,"
    "Shipping Address1,Shipping Address2,Shipping Company,Shipping City,Shipping Zip,Shipping Province,"
    "Shipping Country,Shipping Phone,Notes,Note Attributes,Cancelled at,Payment Method,Payment Reference,"
    "Refunded Amount,Vendor,Outstanding Balance,Employee,Location,Device ID,Id,Tags,Risk Level,Source,"
    "Lineitem discount,Tax 1 Name,Tax 1 Value,Tax 2 Name,Tax 2 Value,Tax 3 Name,Tax 3 Value,Tax 4 Name,Tax 4 Value,"
    "Tax 5 Name,Tax 5 Value,Phone,Receipt Number,Duties,Billing Province Name,Shipping Province Name,Payment ID,"
    "Payment Terms Name,Next Payment Due At,Payment References"
)
ECCUBE = (
    "注文ID,注文番号,会員ID,お名前(姓),お名前(名),お名前(セイ),お名前(メイ),会社名,郵便番号,都道府県(ID),都道府県(名称),住所1,住所2,"
    "メールアドレス,TEL,性別(ID),性別(名称),職業(ID),職業(名称),誕生日,ショップ用メモ欄,小計,値引き,送料,税金,手数料,合計,支払合計,"
    "対応状況(ID),対応状況(名称),支払方法(ID),支払方法(名称),受注日,入金日,注文詳細ID,商品ID,商品規格ID,商品名,商品コード,規格名1,"
    "規格名2,規格分類名1,規格分類名2,価格,数量,税率,税率ルール(ID),明細区分(ID),明細区分(名称),配送ID,配送先_お名前(姓),"
    "配送先_お名前(名),配送先_お名前(セイ),配送先_お名前(メイ),配送先_会社名,配送先_郵便番号,配送先_都道府県(ID),"
    "配送先_都道府県(名称),配送先_住所1,配送先_住所2,配送先_TEL,配送業者(ID),配送業者(名称),お届け時間ID,お届け時間(名称),"
    "お届け希望日,送料ID,出荷用伝票番号,配達用メモ欄,発送日,出荷メール送信日"
)
RAKUTEN = (
    "注文番号,ステータス,サブステータスID,サブステータス,注文日時,注文日,注文時間,キャンセル期限日,注文確認日時,注文確定日時,発送指示日時,"
    "発送完了報告日時,支払方法名,クレジットカード支払い方法,クレジットカード支払い回数,配送方法,配送区分,注文種別,複数送付先フラグ,"
    "送付先一致フラグ,離島フラグ,楽天確認中フラグ,警告表示タイプ,楽天会員フラグ,購入履歴修正有無フラグ,商品合計金額,消費税合計,送料合計,"
    "代引料合計,請求金額,合計金額,ポイント利用額,クーポン利用総額,店舗発行クーポン利用額,楽天発行クーポン利用額,注文者郵便番号1,"
    "注文者郵便番号2,注文者住所都道府県,注文者住所郡市区,注文者住所それ以降の住所,注文者姓,注文者名,注文者姓カナ,注文者名カナ,"
    "注文者電話番号1,注文者電話番号2,注文者電話番号3,注文者メールアドレス,注文者性別,申込番号,申込お届け回数,送付先ID,送付先送料,"
    "送付先代引料,送付先消費税合計,送付先商品合計金額,送付先合計金額,のし,送付先郵便番号1,送付先郵便番号2,送付先住所都道府県,"
    "送付先住所郡市区,送付先住所それ以降の住所,送付先姓,送付先名,送付先姓カナ,送付先名カナ,送付先電話番号1,送付先電話番号2,送付先電話番号3,"
    "商品明細ID,商品ID,商品名,商品番号,商品管理番号,単価,個数,送料込別,税込別,代引手数料込別,項目・選択肢,ポイント倍率,納期情報,"
    "在庫タイプ,ラッピングタイトル1,ラッピング名1,ラッピング料金1,お届け時間帯,お届け日指定,担当者,ひとことメモ,メール差込文,ギフト配送希望,"
    "コメント,利用端末,メールキャリアコード,あす楽希望フラグ,医薬品受注フラグ,楽天スーパーDEAL商品受注フラグ,メンバーシッププログラム,"
    "商品税率,商品税込価格,SKU管理番号,システム連携用SKU番号,SKU情報"
)
AMAZON = (
    "order-id,order-item-id,purchase-date,payments-date,buyer-email,buyer-name,buyer-phone-number,sku,product-name,"
    "quantity-purchased,currency,item-price,item-tax,shipping-price,shipping-tax,ship-service-level,recipient-name,"
    "ship-address-1,ship-address-2,ship-address-3,ship-city,ship-state,ship-postal-code,ship-country,ship-phone-number,"
    "delivery-start-date,delivery-end-date,delivery-time-zone,delivery-Instructions,is-prime"
)
BASE = (
    "注文ID,注文日時,氏(請求先),名(請求先),郵便番号(請求先),都道府県(請求先),住所(請求先),住所2(請求先),電話番号(請求先),"
    "メールアドレス(請求先),氏(配送先),名(配送先),郵便番号(配送先),都道府県(配送先),住所(配送先),住所2(配送先),電話番号(配送先),備考,商品名,"
    "バリエーション,価格,税率,数量,合計金額,送料,支払い方法,代引き手数料,発送状況,商品ID,種類ID,購入元,配送日,配送時間帯,注文メモ,調整金額"
)
YAHOO = (
    "OrderId,OrderTime,OrderStatus,PayStatus,ShipStatus,BillName,BillNameKana,BillZipCode,BillPrefecture,BillCity,"
    "BillAddress1,BillAddress2,BillPhoneNumber,BillMailAddress,ShipName,ShipNameKana,ShipZipCode,ShipPrefecture,ShipCity,"
    "ShipAddress1,ShipAddress2,ShipPhoneNumber,PayMethodName,ShipMethodName,BuyerComments,ShipCharge,PayCharge,Discount,"
    "UsePoint,TotalPrice,LineId,ItemId,SubCode,Title,UnitPrice,Quantity"
)
NEXT_ENGINE = (
    "店舗伝票番号,受注日,受注郵便番号,受注住所１,受注住所２,受注名,受注名カナ,受注電話番号,受注メールアドレス,発送郵便番号,発送先住所１,"
    "発送先住所２,発送先名,発送先カナ,発送電話番号,支払方法,発送方法,商品計,税金,発送料,手数料,ポイント,その他費用,合計金額,ギフトフラグ,"
    "時間帯指定,日付指定,作業者欄,備考,商品名,商品コード,商品価格,受注数量,商品オプション,出荷済フラグ,顧客区分,顧客コード,消費税率（%）"
)
WOOCOMMERCE = (
    "order_id,order_number,date,status,shipping_total,tax_total,fee_total,discount_total,order_total,refunded_total,"
    "order_currency,payment_method,shipping_method,customer_id,billing_first_name,billing_last_name,billing_company,"
    "billing_email,billing_phone,billing_address_1,billing_address_2,billing_postcode,billing_city,billing_state,"
    "billing_country,shipping_first_name,shipping_last_name,shipping_address_1,shipping_address_2,shipping_postcode,"
    "shipping_city,shipping_state,shipping_country,customer_note,item_id,item_name,item_sku,item_quantity,item_subtotal,"
    "item_total,item_meta"
)


def written(header: str, rows: Sequence[Row], *, delimiter: str = ",", quoted: bool = True) -> str:
    """Return a file of some rows, which may have cells under each header of a system, and are blank under the others."""
    names = header.split(",")
    assert all(row.keys() <= set(names) for row in rows)
    records = [names, *([row.get(name, "") for name in names] for row in rows)]
    cells = (['"' + cell.replace('"', '""') + '"' for cell in record] if quoted else record for record in records)
    return "".join(delimiter.join(record) + "\r\n" for record in cells)


def orders_like(
    made: bytes, codec: str, header: str, like: str, changes: Sequence[Row], *, delimiter: str = ",", more: str = ""
) -> bytes:
    """Return an export with a row for each change of that which is `like` this under a header, referred to as A-1, A-2, ...

    `more` are headers that it has besides.
    """
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.DictReader(io.StringIO(made.decode(codec), newline=""), delimiter=delimiter, quoting=quoting)
    (row,) = (row for row in reader if row[header] == like)
    names = ",".join([*row, more] if more else row)
    mark = "#" if like.startswith("#") else ""
    rows = [row | change | {header: f"{mark}A-{number}"} for number, change in enumerate(changes, 1)]
    return written(names, rows, delimiter=delimiter, quoted=delimiter == ",").encode(codec)


def shopify(day: str) -> bytes:
    common = {"Created at": f"{day} 10:00:01 +0900"}
    first = common | {
        "Financial Status": "paid",
        "Currency": "JPY",
        "Billing Name": "見本 太郎",
        "Billing Phone": "'+81 90-1234-5678",
        "Shipping Zip": "'100-0001",
        "Shipping Province Name": "東京都",
        "Shipping City": "千代田区",
        "Payment Method": "Shopify Payments",
    }
    rows = [
        first | {"Name": "#1001", "Email": "taro@example.com", "Total": "3800", "Lineitem quantity": "1"}
        | {"Lineitem name": "紅茶", "Lineitem price": "1000", "Lineitem sku": "T-1"},
        common | {"Name": "#1001", "Email": "taro@example.com", "Lineitem quantity": "2", "Lineitem name": '緑茶 "特選"'}
        | {"Lineitem price": "1150", "Lineitem sku": "T-2"},
        first | {"Name": "#1002", "Email": "h@example.com", "Financial Status": "refunded", "Total": "9000"}
        | {"Lineitem quantity": "1", "Lineitem name": "茶器", "Lineitem price": "9000", "Lineitem sku": "K-1"},
        common | {"Name": "#1002", "Email": "h@example.com", "Lineitem quantity": "1", "Lineitem name": "袋"}
        | {"Lineitem price": "0", "Lineitem sku": "F-1"},
        first | {"Name": "#1003", "Email": "h@example.com", "Total": "1320", "Lineitem quantity": "1"}
        | {"Lineitem name": "珈琲", "Lineitem price": "1200", "Lineitem sku": "C-1", "Payment Method": "Bank Deposit"},
    ]  # fmt: skip
    return written(SHOPIFY, rows).encode()


def eccube(day: str) -> bytes:
    common = {
        "お名前(姓)": "見本",
        "お名前(名)": "太郎",
        "メールアドレス": "t@example.com",
        "TEL": "0312345678",
        "受注日": f"{day} 10:00:00",
        "支払方法(名称)": "銀行振込",
        "対応状況(名称)": "新規受付",
        "配送先_郵便番号": "1000001",
        "配送先_都道府県(名称)": "東京都",
    }
    first = common | {"注文番号": "5001", "支払合計": "2830.00"}
    second = common | {"注文番号": "5002", "会員ID": "12", "支払合計": "1650.00"}
    rows = [
        first | {"商品コード": "A-1", "価格": "1000.00", "数量": "2", "明細区分(名称)": "商品"},
        first | {"価格": "500.00", "数量": "1", "商品名": "送料", "明細区分(名称)": "送料"},
        first | {"価格": "-20.00", "数量": "1", "商品名": "割引", "明細区分(名称)": "割引"},
        second | {"商品コード": "A-2", "価格": "1500.00", "数量": "1", "明細区分(名称)": "商品"},
        second | {"注文番号": "5003", "商品コード": "A-2", "価格": "1500.00", "数量": "1", "対応状況(名称)": "注文取消し"},
    ]
    return written(ECCUBE, rows).encode("cp932")


def rakuten(day: str) -> bytes:
    common = {
        "ステータス": "300",
        "注文日時": f"{day} 21:06:21",
        "支払方法名": "クレジットカード",
        "注文者姓": "見本",
        "注文者名": "花子",
        "注文者姓カナ": "ミホン",
        "注文者名カナ": "ハナコ",
        "注文者電話番号1": "03",
        "注文者電話番号2": "1234",
        "注文者電話番号3": "5678",
        "注文者メールアドレス": "0123abcd@fw.example.com",
        "送付先郵便番号1": "100",
        "送付先郵便番号2": "0001",
        "送付先住所都道府県": "東京都",
    }
    first = common | {"注文番号": "123456-20261120-0000000001", "請求金額": "4480"}
    rows = [
        first | {"商品番号": "tea-01", "単価": "1980", "個数": "2", "商品名": "ほうじ茶"},
        first | {"商品番号": "bag-01", "単価": "520", "個数": "1", "商品名": "袋"},
        common
        | {"注文番号": "123456-20261120-0000000002", "請求金額": "980", "商品番号": "tea-02", "単価": "980", "個数": "1"},
        common
        | {"注文番号": "123456-20261120-0000000003", "ステータス": "900", "請求金額": "980", "単価": "980", "個数": "1"},
    ]
    return written(RAKUTEN, rows).encode("cp932")


def amazon(day: str) -> bytes:
    common = {"purchase-date": f"{day}T10:00:00+09:00", "buyer-name": "見本 太郎", "currency": "JPY"}
    common |= {"buyer-email": "a@marketplace.example", "buyer-phone-number": "090-1234-5678", "ship-state": "東京都"}
    rows = [
        common | {"order-id": "503-1111111-0000001", "sku": "S-1", "product-name": '"特選"茶 100g"', "item-price": "1200"}
        | {"quantity-purchased": "2", "item-tax": "89", "shipping-price": "350.00", "shipping-tax": "32"},
        common | {"order-id": "503-1111111-0000001", "sku": "S-2", "product-name": '"12インチ"', "item-price": "900"}
        | {"quantity-purchased": "1", "item-tax": "82", "shipping-price": "120", "shipping-tax": "11"},
        common | {"order-id": "503-1111111-0000002", "sku": "S-3", "product-name": "急須", "item-price": "800"}
        | {"quantity-purchased": "1", "shipping-price": "410"},
        common | {"order-id": "503-1111111-0000003", "sku": "S-3", "product-name": "急須", "item-price": "800"}
        | {"quantity-purchased": "1"},
    ]  # fmt: skip
    return written(AMAZON, rows, delimiter="\t", quoted=False).encode("cp932")


def base(day: str) -> bytes:
    common = {
        "注文日時": f"{day} 09:15:00",
        "氏(請求先)": "見本",
        "名(請求先)": "次郎",
        "メールアドレス(請求先)": "j@example.com",
        "電話番号(請求先)": "09012345678",
        "郵便番号(配送先)": "1000001",
        "支払い方法": "クレジットカード決済",
        "発送状況": "未対応",
    }
    first = common | {"注文ID": "A1B2C3D4E5F6", "合計金額": "2700"}
    rows = [
        first | {"商品ID": "101", "価格": "1000", "数量": "2"},
        first | {"商品ID": "102", "価格": "200", "数量": "1"},
        common | {"注文ID": "B1B2C3D4E5F6", "合計金額": "500", "商品ID": "103", "価格": "500", "数量": "1"},
        common | {"注文ID": "C1B2C3D4E5F6", "合計金額": "500", "商品ID": "103", "価格": "500", "数量": "1"}
        | {"発送状況": "キャンセル"},
    ]  # fmt: skip
    return written(BASE, rows).encode("cp932")


def yahoo(day: str) -> bytes:
    common = {
        "OrderTime": f"{day.replace('-', '/')} 12:30:00",
        "OrderStatus": "2",
        "BillName": "見本 三郎",
        "BillPhoneNumber": "0312345678",
        "BillMailAddress": "s@example.com",
        "PayMethodName": "クレジットカード決済",
    }
    first = common | {"OrderId": "shop-10000001", "ShipCharge": "600", "TotalPrice": "3600"}
    rows = [
        first | {"LineId": "1", "ItemId": "tea", "UnitPrice": "1200", "Quantity": "2"},
        first | {"LineId": "2", "ItemId": "bag", "UnitPrice": "600", "Quantity": "1"},
        common | {"OrderId": "shop-10000002", "TotalPrice": "1200", "ItemId": "tea", "UnitPrice": "1200", "Quantity": "1"},
        common | {"OrderId": "shop-10000003", "TotalPrice": "1200", "ItemId": "tea", "UnitPrice": "1200", "Quantity": "1"}
        | {"OrderStatus": "4"},
    ]  # fmt: skip
    return written(YAHOO, rows).encode("cp932")


def next_engine(day: str) -> bytes:
    common = {
        "受注日": f"{day.replace('-', '/')} 00:00:00",
        "受注名": "髙橋商店",
        "受注電話番号": "03-1234-5678",
        "受注メールアドレス": "t@example.com",
        "発送郵便番号": "100-0001",
        "発送先住所１": "東京都千代田区",
        "支払方法": "銀行振込",
    }
    first = common | {"店舗伝票番号": "NE-1", "合計金額": "5300", "顧客コード": "K0012"}
    rows = [
        first | {"商品コード": "tea", "商品価格": "1200", "受注数量": "4"},
        first | {"商品コード": "bag", "商品価格": "500", "受注数量": "1"},
        common | {"店舗伝票番号": "NE-2", "合計金額": "1200", "商品コード": "tea", "商品価格": "1200", "受注数量": "1"},
    ]
    return written(NEXT_ENGINE, rows).encode("cp932")


def woocommerce(day: str) -> bytes:
    common = {
        "date": f"{day} 08:00:00",
        "status": "processing",
        "order_currency": "JPY",
        "payment_method": "bacs",
        "billing_first_name": "花子",
        "billing_last_name": "見本",
        "billing_email": "h@example.com",
        "billing_phone": "+819012345678",
    }
    first = common | {"order_number": "2001", "order_total": "2400.00", "customer_id": "7"}
    rows = [
        first | {"item_sku": "tea", "item_quantity": "2", "item_total": "2000.00"},
        first | {"item_sku": "bag", "item_quantity": "1", "item_total": "400.00"},
        common
        | {"order_number": "2002", "order_total": "1000.00", "customer_id": "0", "item_sku": "tea", "item_quantity": "1"},
        common | {"order_number": "2003", "status": "cancelled", "order_total": "1000.00", "item_quantity": "1"},
    ]
    return written(WOOCOMMERCE, rows).encode()

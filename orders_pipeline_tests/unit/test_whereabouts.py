"""What the settings name, in words that anybody may read."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from orders_pipeline.system.settings import Settings
from orders_pipeline.system.whereabouts import FOLDER, SANDBOX, whereabouts

SECRET = "geheim"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"postgresql://app:{SECRET}@db.example.com:6432/orders?sslmode=verify-full", "orders on db.example.com:6432"),
        (f"postgresql://app:{SECRET}/{SECRET}@db.example.com/orders", "orders on db.example.com"),
        (f"postgresql:///orders?host=/run/postgresql&password={SECRET}", "orders on this host"),
        (f"mysql://app:{SECRET}@db.example.com/orders", "ORDERS_DATABASE_URL names none"),
    ],
)
def test_a_database_is_named_by_its_host_and_name_alone(url, place):
    assert whereabouts(Settings(database_url=SecretStr(url)))["database"] == place


def test_services_and_storages_are_named_by_host_and_bucket_alone():
    found = whereabouts(
        Settings(
            payment_url=f"https://user:{SECRET}@pay.example.com:8443/{SECRET}?key={SECRET}",
            notification_url="https://notify.example.com",
            storage_url=f"s3://orders-production/{SECRET}",
            landing_url=f"/srv/{SECRET}/landing",
        )
    )
    assert SECRET not in str(found)
    assert (found["payment_service"], found["notification_service"]) == ("pay.example.com:8443", "notify.example.com")
    assert (found["storage"], found["landing"]) == ("bucket orders-production", FOLDER)


def test_what_is_not_set_starts_by_itself():
    found = whereabouts(Settings())
    assert found["payment_service"] == found["notification_service"] == SANDBOX
    assert "ORDERS_HOME" in found["database"]

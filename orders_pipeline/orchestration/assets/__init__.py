"""The assets of a batch, from the uploaded file to its report, and of control: each a few lines around a use case."""

from orders_pipeline.orchestration.assets.client_day import client_day
from orders_pipeline.orchestration.assets.encryption_keys import encryption_keys
from orders_pipeline.orchestration.assets.intake import orders, staged_orders, uploaded_csv, validated_orders
from orders_pipeline.orchestration.assets.reconciliation import reconciliation
from orders_pipeline.orchestration.assets.report import batch_report
from orders_pipeline.orchestration.assets.retention import retention, verification
from orders_pipeline.orchestration.assets.settlement import settlement

ASSETS = (
    uploaded_csv,
    staged_orders,
    validated_orders,
    orders,
    settlement,
    batch_report,
    client_day,
    reconciliation,
    retention,
    verification,
    encryption_keys,
)

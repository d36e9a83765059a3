"""The registry of payment providers, by the name that users set; the gateway's conformance tests run over it."""

from collections.abc import Callable, Mapping

from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.services.payment_gateway import Capabilities, PaymentGateway
from orders_pipeline.services.rest_payments import RestPayments

PROVIDERS: Mapping[str, Callable[[ServiceClient, Capabilities], PaymentGateway]] = {"rest": RestPayments}

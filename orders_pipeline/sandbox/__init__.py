"""Payment and Notification services to try the pipeline against, over real HTTP, with a ledger of their own.

They keep the contract of the order platform's services and can break it on request. Nothing here is used in production,
and nothing here imports the pipeline.
"""

from orders_pipeline.sandbox.faults import Faults
from orders_pipeline.sandbox.server import SandboxError, SandboxServer

__all__ = ["Faults", "SandboxError", "SandboxServer"]

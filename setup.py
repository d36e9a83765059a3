"""Puts the top-level `sql` folder into the package, so that an installed wheel finds its migrations and queries."""

from setuptools import setup

setup(
    packages=[
        "orders_pipeline",
        "orders_pipeline.audit",
        "orders_pipeline.batches",
        "orders_pipeline.cli",
        "orders_pipeline.clients",
        "orders_pipeline.infrastructure",
        "orders_pipeline.infrastructure.storage",
        "orders_pipeline.intake",
        "orders_pipeline.intake.csv_file",
        "orders_pipeline.intake.excel_file",
        "orders_pipeline.intake.landing",
        "orders_pipeline.orchestration",
        "orders_pipeline.orchestration.assets",
        "orders_pipeline.records",
        "orders_pipeline.reports",
        "orders_pipeline.samples",
        "orders_pipeline.sandbox",
        "orders_pipeline.security",
        "orders_pipeline.services",
        "orders_pipeline.settlement",
        "orders_pipeline.settlement.payments",
        "orders_pipeline.settlement.refunds",
        "orders_pipeline.system",
        "orders_pipeline.upkeep",
        "orders_pipeline.web",
        "orders_pipeline.sql",
        "orders_pipeline.sql.migrations",
        "orders_pipeline.sql.queries",
    ],
    package_dir={"orders_pipeline.sql": "sql"},
    package_data={
        "orders_pipeline.sql.migrations": ["*.sql"],
        "orders_pipeline.sql.queries": ["*.sql"],
        "orders_pipeline.web": ["openapi.yaml"],
    },
)

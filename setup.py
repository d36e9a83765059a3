"""Puts the top-level `sql` folder into the package, so that an installed wheel finds its migrations and queries."""

from setuptools import setup

setup(
    packages=[
        "orders_pipeline",
        "orders_pipeline.assets",
        "orders_pipeline.audit",
        "orders_pipeline.cli",
        "orders_pipeline.csv_file",
        "orders_pipeline.excel_file",
        "orders_pipeline.payments",
        "orders_pipeline.records",
        "orders_pipeline.refunds",
        "orders_pipeline.sandbox",
        "orders_pipeline.storage",
        "orders_pipeline.sql",
        "orders_pipeline.sql.migrations",
        "orders_pipeline.sql.queries",
    ],
    package_dir={"orders_pipeline.sql": "sql"},
    package_data={"orders_pipeline.sql.migrations": ["*.sql"], "orders_pipeline.sql.queries": ["*.sql"]},
)

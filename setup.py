"""Puts the top-level `sql` folder into the package, so that an installed wheel finds its migrations and queries."""

from setuptools import find_packages, setup

SQL = ["orders_pipeline.sql", "orders_pipeline.sql.migrations", "orders_pipeline.sql.queries"]

setup(
    packages=find_packages(include=["orders_pipeline", "orders_pipeline.*"]) + SQL,
    package_dir={"orders_pipeline.sql": "sql"},
    package_data={
        "orders_pipeline": ["deployment/**/*", "docs/*"],
        "orders_pipeline.sql.migrations": ["*.sql"],
        "orders_pipeline.sql.queries": ["*.sql"],
        "orders_pipeline.web": ["openapi.yaml"],
        "orders_pipeline.web.page": ["static/*", "templates/*"],
    },
)

"""A filled store for the tests of one module, and roles that are gone after a test."""

import uuid

import psycopg
import pytest
from psycopg import sql

from sql import desk


@pytest.fixture(scope="module")
def url(databases, tmp_path_factory):
    """The URL of a store that is filled as :func:`desk.fill` says."""
    with databases.kept() as fresh:
        yield fresh(template="desk", prepare=lambda url: desk.fill(url, tmp_path_factory.mktemp("desk")))


@pytest.fixture
def session(url):
    with desk.asking(url) as connection:
        yield connection


@pytest.fixture
def fresh_roles(databases, fresh_database):  # noqa: ARG001  (databases of a test outlive its roles)
    """Names for roles: ``fresh_roles(url, "read")``. At the end they are gone, with all that is theirs at ``url``."""
    made = []

    def name(url, word):
        made.append((url, sql.Identifier(f"hdi_test_{word}_{uuid.uuid4().hex[:12]}")))
        return made[-1][1].as_string().strip('"')

    yield name
    with psycopg.connect(databases.dsn, autocommit=True) as admin:
        for url, role in made:
            with psycopg.connect(url, autocommit=True) as database:
                database.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
        for _, role in made:
            admin.execute(sql.SQL("DROP ROLE {}").format(role))

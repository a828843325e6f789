"""The PostgreSQL of the tests of stores, for tests of the pipeline."""

from tests.search.conftest import postgres as postgres

"""Alembic's entry: migrates over the connection that `migrations.upgrade` hands in."""

from alembic import context

from sweeper.ledger.migrations import VERSION_TABLE
from sweeper.ledger.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()

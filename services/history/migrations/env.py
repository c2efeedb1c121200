"""What Alembic runs: the migrations, on the connection and in the transaction of the caller."""

from alembic import context

from services.history.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_server_default=True,
)
context.run_migrations()

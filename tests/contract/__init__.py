"""Contract tests of the events between the services, and of the client's types."""

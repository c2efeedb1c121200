"""What every web service does alike: server, protocol, problem documents, health."""

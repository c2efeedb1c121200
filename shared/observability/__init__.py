"""What every process reports: logs, traces, metrics."""

"""What every process reports about itself: logs, traces, metrics."""

"""Whatever is sent, the answer is clear, the service lives on and nothing wrong is recorded."""

"""The dashboard in a real browser; `make test-browser`. Named so that `make test` passes it by."""

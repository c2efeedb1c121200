"""What the services share: the wire contract and plumbing without a domain word."""

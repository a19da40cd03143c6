"""A detection in, bytes out, and back; the ledger, and what observers are told of each message."""

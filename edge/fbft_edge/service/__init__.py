"""What makes a line a service: metrics, health over HTTP, logs, systemd, a new model without a stop.

Each part watches messages as an observer or is called from outside; none is needed for inspection.
"""

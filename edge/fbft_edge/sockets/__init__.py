"""The bytes' ways: endpoints, who is let in, publisher and subscriber, commands."""

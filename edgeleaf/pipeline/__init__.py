"""The work of each command. Only this package chains stages."""

"""What a command does. Only this package chains stages."""

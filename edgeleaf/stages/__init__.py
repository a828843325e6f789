"""Stages: functions that fill a folder from folders, run once for the same inputs."""

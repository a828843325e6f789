"""Stages: functions that fill a folder from other folders, run once for the same inputs."""

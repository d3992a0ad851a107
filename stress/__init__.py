"""Programs that damage files, kill runs and train for an hour (docs/reliability.md)."""

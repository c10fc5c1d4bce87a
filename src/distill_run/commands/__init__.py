"""The commands that a person types: arguments, help, checks before anything is written."""

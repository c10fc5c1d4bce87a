"""Stages: each turns inputs into artefacts, and is skipped where these exist."""

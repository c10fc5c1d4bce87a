"""From overrides and YAML files to typed settings."""

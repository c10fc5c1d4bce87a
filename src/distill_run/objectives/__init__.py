"""What the student is asked to minimise: one final class a file."""

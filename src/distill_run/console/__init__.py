"""What a terminal, a file or a pipe is shown: lines, tables and live displays. Only here is rich imported."""

"""What a reader sees of runs: tables, pictures, and one self-contained HTML page."""
